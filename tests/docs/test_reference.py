"""The reference pages of docs/ are generated from the code, and are fresh."""

import pytest

from tests.tools.reference.__main__ import FOLDER, PAGES
from tests.tools.reference.metrics import Entry, rooms


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_fresh(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run `make reference`"


def test_every_metric_has_a_help_text() -> None:
    assert [entry.name for room in rooms().values() for entry in room if not entry.help.strip()] == []


def test_a_metric_of_the_engine_has_its_type_and_its_labels_with_their_values() -> None:
    (found,) = [entry for entry in rooms()["Engine"] if entry.name == "alise_engine_admissions_total"]
    assert (found.kind, found.labels) == ("counter", {"outcome": ("admitted", "rejected", "failed_open")})


def test_a_label_without_fixed_values_is_listed_by_its_name() -> None:
    (found,) = [entry for entry in rooms()["Operator"] if entry.name == "alise_operator_children_applied_total"]
    assert found == Entry("alise_operator_children_applied_total", "counter", {"kind": ()}, found.help)

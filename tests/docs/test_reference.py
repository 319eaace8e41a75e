"""The reference pages of docs/ are generated from the code, and are fresh."""

import re

import pytest

from alise_contract import names
from tests.tools.reference import undocumented
from tests.tools.reference.__main__ import PAGES
from tests.tools.reference.metrics import Entry, rooms
from tests.tools.reference.settings import LAUNCHER, launched


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_fresh(name: str) -> None:
    assert undocumented.page(name) == PAGES[name](), "run `make reference`"


def test_every_metric_is_described_and_in_the_reference() -> None:
    assert undocumented.metrics() == []


def test_every_setting_is_described_and_in_the_reference() -> None:
    assert undocumented.settings() == [], (
        "describe it in config.py or variables.py and run `make reference`; if it is described, its name is misspelt where it is set"
    )


def test_a_metric_of_the_engine_has_its_type_and_its_labels_with_their_values() -> None:
    (found,) = [entry for entry in rooms()["Engine"] if entry.name == "alise_engine_admissions_total"]
    assert (found.kind, found.labels) == ("counter", {"outcome": ("admitted", "rejected", "failed_open")})


def test_a_label_without_fixed_values_is_listed_by_its_name() -> None:
    (found,) = [entry for entry in rooms()["Operator"] if entry.name == "alise_operator_children_applied_total"]
    assert found == Entry("alise_operator_children_applied_total", "counter", {"kind": ()}, found.help)


def test_every_variable_that_the_engines_command_sets_has_a_reason_and_no_other() -> None:
    assert set(LAUNCHER) == set(launched())


def test_every_header_of_the_contract_is_in_the_reference() -> None:
    headers = [value for name, value in vars(names).items() if re.fullmatch(r"[A-Z_]+_HEADERS?", name)]
    spellings = {one for value in headers for one in ([value] if isinstance(value, str) else value)}
    assert spellings
    assert sorted(one for one in spellings if f"`{one}`" not in undocumented.page("http.md")) == []

"""The reference pages of docs/ are generated from the code, and are fresh."""

import re
from functools import cache
from pathlib import Path

import pytest

from alise_contract import names
from tests.tools.reference.__main__ import FOLDER, PAGES
from tests.tools.reference.metrics import Entry, rooms
from tests.tools.reference.settings import LAUNCHER, launched, settings

ROOT = FOLDER.parents[1]
PRODUCT = ("operator/alise_operator", "scheduler_sidecar/alise_scheduler", "engine_image/alise_engine", "engine_image/alise_contract")


def page(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


@cache
def product_sources() -> dict[Path, str]:
    return {path: path.read_text(encoding="utf-8") for room in PRODUCT for path in sorted((ROOT / room).rglob("*.py"))}


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_fresh(name: str) -> None:
    assert page(name) == PAGES[name](), "run `make reference`"


def test_every_metric_has_a_help_text() -> None:
    assert [entry.name for room in rooms().values() for entry in room if not entry.help.strip()] == []


def test_a_metric_of_the_engine_has_its_type_and_its_labels_with_their_values() -> None:
    (found,) = [entry for entry in rooms()["Engine"] if entry.name == "alise_engine_admissions_total"]
    assert (found.kind, found.labels) == ("counter", {"outcome": ("admitted", "rejected", "failed_open")})


def test_a_label_without_fixed_values_is_listed_by_its_name() -> None:
    (found,) = [entry for entry in rooms()["Operator"] if entry.name == "alise_operator_children_applied_total"]
    assert found == Entry("alise_operator_children_applied_total", "counter", {"kind": ()}, found.help)


def test_every_setting_is_described() -> None:
    assert [one.variable or one.flag for found in settings().values() for one in found if not one.meaning.strip()] == []


def test_every_variable_that_the_engines_command_sets_has_a_reason_and_no_other() -> None:
    assert set(LAUNCHER) == set(launched())


def test_every_variable_of_alise_that_the_code_names_is_in_the_reference() -> None:
    named = {name for text in product_sources().values() for name in re.findall(r'"(ALISE_[A-Z0-9_]+)"', text)}
    assert named
    assert sorted(name for name in named if f"`{name}`" not in page("settings.md")) == []


def test_every_metric_that_the_code_names_is_in_the_reference() -> None:
    named = {name for text in product_sources().values() for name in re.findall(r'"(alise_(?:engine|scheduler|operator)_[a-z_]+)"', text)}
    listed = set(re.findall(r"`(alise_[a-z_]+)`", page("metrics.md")))
    assert named & listed
    assert sorted(name for name in named if not {name, f"{name}_total"} & listed) == []


def test_every_header_of_the_contract_is_in_the_reference() -> None:
    headers = [value for name, value in vars(names).items() if re.fullmatch(r"[A-Z_]+_HEADERS?", name)]
    spellings = {one for value in headers for one in ([value] if isinstance(value, str) else value)}
    assert spellings
    assert sorted(one for one in spellings if f"`{one}`" not in page("http.md")) == []

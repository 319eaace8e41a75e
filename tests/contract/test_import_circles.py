"""No module of the product imports itself, directly or through others. Imports inside functions and for type checkers count, too."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest

ROOMS = ("alise_operator", "alise_picker", "alise_scheduler", "alise_engine", "alise_contract", "alise_simulator")


def circle(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle of imports, from a module back to itself; empty if there is none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    graph = grimp.build_graph(*ROOMS, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_no_module_imports_itself_through_others(imports: dict[str, set[str]]) -> None:
    assert circle(imports) == []


def test_every_room_is_looked_at(imports: dict[str, set[str]]) -> None:
    assert {module.split(".")[0] for module in imports} == set(ROOMS)


def test_a_circle_is_named_in_the_direction_of_its_imports() -> None:
    found = circle({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})
    assert " imports ".join(found) in {
        "a imports b imports c imports a", "b imports c imports a imports b", "c imports a imports b imports c",
    }  # fmt: skip

"""The operator's table of reasons has every condition, reason and event that its code uses, and no other."""

import ast
from collections.abc import Iterator

from alise_operator import autoscaler, errors, reasons, replicas, restores
from alise_operator.errors import OperatorError
from tests.tools.house.tree import files, nodes, parsed

ROOM = "operator/alise_operator/"
# Functions and classes whose argument at this place is a reason.
TAKES_A_REASON = {"Condition": 2, "Trouble": 0, "_refused": 0}


def room() -> list[str]:
    return [path for path in files(".py") if path.startswith(ROOM)]


def calls() -> Iterator[ast.Call]:
    for path in room():
        yield from (node for node in nodes(path) if isinstance(node, ast.Call))


def texts(node: ast.AST) -> set[str]:
    """The texts that stand in the code, without the keys of what it looks up."""
    if isinstance(node, ast.Subscript):
        return set()
    found = {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()
    return found.union(*(texts(child) for child in ast.iter_child_nodes(node)))


def used() -> set[str]:
    found: set[str] = set()
    for call in calls():
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        if name in TAKES_A_REASON and len(call.args) > TAKES_A_REASON[name]:
            found |= texts(call.args[TAKES_A_REASON[name]])
    return found


def listed() -> set[str]:
    others = [one for found in reasons.OTHERS.values() for one in found]
    return {one.name for one in [*reasons.UNAPPLIED, *reasons.TROUBLES, *others]}


def reasons_of_errors() -> set[str]:
    def below(kind: type[OperatorError]) -> Iterator[type[OperatorError]]:
        yield kind
        for child in kind.__subclasses__():
            yield from below(child)

    # Other modules have errors that end the process before there is a resource to report them on.
    return {kind.reason for kind in below(OperatorError) if kind.__module__ == errors.__name__}


def test_every_reason_that_the_code_names_is_in_the_table() -> None:
    assert used()
    assert sorted(used() - listed()) == []


def test_every_error_that_is_reported_on_the_resource_is_in_the_table() -> None:
    assert reasons_of_errors() == {one.name for one in reasons.UNAPPLIED}


def test_every_reason_of_the_table_is_in_the_code() -> None:
    named = {text for path in room() if not path.endswith("/reasons.py") for text in texts(parsed(path))}
    assert sorted(listed() - named) == []


def test_every_type_of_condition_is_in_the_table() -> None:
    types = {text for call in calls() if isinstance(call.func, ast.Name) and call.func.id == "Condition" for text in texts(call.args[0])}
    assert types <= set(reasons.TYPES)
    assert {kind for kind, _ in reasons.OTHERS} == set(reasons.TYPES)


def test_the_events_without_a_condition_are_in_the_table() -> None:
    posted = {replicas.REASON, restores.REASON, autoscaler.UP, autoscaler.DOWN}
    assert {one.name for one in reasons.EVENTS} == posted, "a new event stands in reasons.EVENTS and, by its constant, here"


def test_no_reason_is_described_twice() -> None:
    names = [one.name for one in (*reasons.UNAPPLIED, *reasons.TROUBLES)]
    assert sorted(names) == sorted(set(names))

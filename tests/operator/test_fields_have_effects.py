"""No field is without effect: some child of a spec of SPECS differs without it."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from alise_operator.children import children
from alise_operator.children.meta import Manifest
from alise_operator.errors import OperatorError
from alise_operator.spec import parse
from tests.operator.builders import CURRENT, OWNER, raw_spec
from tests.operator.built import SPECS
from tests.operator.test_crd import fields_of_the_spec

# What the operator's own processes read, and no child shows.
ELSEWHERE = ".spec.autoscaling"


def without(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yields copies of the value, each without one occurrence of the field."""
    name, *rest = path
    if not isinstance(value, dict):
        return
    if name.endswith("[]"):
        items = value.get(name.removesuffix("[]"), [])
        for number, item in enumerate(items):
            for less in without(item, rest):
                yield value | {name.removesuffix("[]"): [*items[:number], less, *items[number + 1 :]]}
    elif name in value and rest:
        yield from (value | {name: less} for less in without(value[name], rest))
    elif name in value:
        yield {other: one for other, one in value.items() if other != name}


def built(raw: dict[str, Any]) -> list[Manifest] | None:
    """Returns the children; None for a spec that is not allowed, as one without a required field."""
    try:
        return list(children(parse(raw), OWNER, CURRENT))
    except OperatorError:
        return None


@pytest.mark.parametrize("path", [path for path, _, _ in fields_of_the_spec() if not path.startswith(ELSEWHERE)])
def test_a_child_differs_without_the_field(path: str) -> None:
    pairs = [(raw_spec(**one), less) for one in SPECS.values() for less in without(raw_spec(**one), path.removeprefix(".spec.").split("."))]
    allowed = [(whole, less) for whole, less in pairs if built(less) is not None]
    differ = [whole for whole, less in allowed if built(whole) != built(less)]
    assert differ or not allowed, f"{path} changes nothing: carry it into a child, and give it another value than its default in SPECS"

"""What the operator says of a bad spec. `test_rules.py` and `test_spec.py` ask it."""

from typing import Any

import pytest

from alise_operator.errors import InvalidSpec
from alise_operator.rules import check
from alise_operator.spec import parse
from tests.operator.builders import raw_spec

KEYS = {"secretRef": {"name": "keys"}}


def complaint(raw: dict[str, Any], name: str = "tiny") -> str:
    """What the operator says of a bad spec."""
    with pytest.raises(InvalidSpec) as caught:
        check(parse(raw), name)
    return str(caught.value)


def engine(**changes: Any) -> dict[str, Any]:
    return raw_spec(engine={"device": "cpu"} | changes)

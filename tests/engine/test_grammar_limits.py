"""Grammars that would take the machine are refused, those that people write are not."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_engine.compat.grammar_limits import MAX_BYTES, complaint


def params(**given: Any) -> Any:
    return SimpleNamespace(**(dict.fromkeys(("json", "regex", "choice", "grammar", "structural_tag")) | given))


def unions(count: int) -> dict[str, Any]:
    return {"anyOf": [{"type": "string", "maxLength": length} for length in range(count)]}


TOO_LARGE = [
    pytest.param({"json": {"type": "array", "minItems": 10**9}}, "minItems and maxItems add up to 1000000000", id="a long array"),
    pytest.param({"json": '{"type": "array", "maxItems": 1e9}'}, "add up to 1000000000", id="a long array, as text"),
    pytest.param({"json": {"properties": {"a": {"maxItems": 6000}, "b": {"maxItems": 6000}}}}, "add up to 12000", id="arrays together"),
    pytest.param({"structural_tag": json.dumps({"structures": [{"schema": {"minItems": 10**9}}]})}, "add up to", id="in a structural tag"),
    pytest.param({"json": unions(1000)}, "a choice in it has 1000 alternatives", id="many alternatives"),
    pytest.param({"regex": "|".join(f"a{{0,{most}}}" for most in range(300))}, "300 bounded repetitions", id="many repetitions"),
    pytest.param({"json": {"pattern": "a{2}" * 200}}, "200 bounded repetitions", id="many repetitions in a schema"),
    pytest.param({"regex": "a" * (MAX_BYTES + 1)}, "characters, the limit is 65536", id="a long expression"),
    pytest.param({"choice": ["a" * 1000] * 100}, "has 100000 characters", id="long choices"),
    pytest.param({"json": {"enum": list(range(100_000))}}, "characters", id="a long enumeration"),
    pytest.param({"json": "[" * 100_000}, "characters", id="no JSON, and long"),
]


@pytest.mark.parametrize(("given", "why"), TOO_LARGE)
def test_what_would_take_the_machine_is_refused_with_the_reason(given: dict[str, Any], why: str) -> None:
    assert why in (complaint(params(**given)) or "")


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"json": {"type": "object", "properties": {f"p{at}": unions(2) for at in range(200)}}}, id="200 optional fields"),
        pytest.param({"json": {"type": "array", "minItems": 1, "maxItems": 1000}}, id="an array of a thousand"),
        pytest.param({"json": {"type": "string", "maxLength": 1_000_000}}, id="a long string"),
        pytest.param({"json": "{"}, id="no JSON, which vLLM refuses"),
        pytest.param({"regex": r"\d{4}-\d{2}-\d{2}"}, id="a date"),
        pytest.param({"choice": [f"label {number}" for number in range(1000)]}, id="a thousand labels"),
        pytest.param({}, id="nothing"),
    ],
)
def test_what_people_write_is_not_refused(given: dict[str, Any]) -> None:
    assert complaint(params(**given)) is None


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["minItems", "anyOf", "pattern", "a"]), inner),
)


@given(schema=JSON_VALUES, text=st.text(), choice=st.none() | st.lists(st.text()))
def test_no_value_is_too_odd_to_be_judged(schema: Any, text: str, choice: list[str] | None) -> None:
    assert isinstance(complaint(params(json=schema, regex=text, structural_tag=text, choice=choice)), str | None)

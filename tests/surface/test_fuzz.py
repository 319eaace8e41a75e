"""What is generated is bounded, the same every time, and sent to stock only where ours fails."""

from typing import Any

import pytest
from hypothesis import strategies as st

from tests.surface.fuzz import MAX_CHOICES, MAX_TOKENS, bounded, drawn, of_few_fields
from tests.surface.row import Request


@pytest.mark.parametrize(
    ("sent", "becomes"),
    [
        pytest.param({"max_tokens": 10**9}, {"max_tokens": MAX_TOKENS}, id="a length is cut"),
        pytest.param(
            {"sampling_params": {"max_tokens": 99}}, {"sampling_params": {"max_tokens": MAX_TOKENS}}, id="inside another object too"
        ),
        pytest.param({"max_tokens": -1}, {"max_tokens": -1}, id="a length that is refused stays"),
        pytest.param({"max_tokens": True}, {"max_tokens": True}, id="a length of another type stays"),
        pytest.param({"n": 1000}, {"n": MAX_CHOICES}, id="a number of choices is cut"),
        pytest.param({"n": 2**40}, {"n": 2**40}, id="a number of choices that is refused stays"),
    ],
)
def test_a_generated_body(sent: Any, becomes: Any) -> None:
    assert bounded(sent) == becomes


def test_the_same_is_drawn_every_time() -> None:
    requests = st.integers().map(lambda number: Request("a row", f"/{number}"))
    assert drawn(requests, 10) == drawn(requests, 10)


def test_fields_of_a_body_are_known_ones_and_none_is_needed() -> None:
    reference = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Ask"}}}}
    document = {
        "paths": {"/ask": {"post": {"requestBody": reference}}, "/health": {"get": {}}},
        "components": {"schemas": {"Ask": {"properties": {"prompt": {}}, "required": ["prompt"]}}},
    }
    assert of_few_fields(document)["components"]["schemas"]["Ask"] == {
        "properties": {"prompt": {}},
        "required": [],
        "additionalProperties": False,
        "minProperties": 1,
    }

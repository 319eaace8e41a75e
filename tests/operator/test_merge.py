from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_operator.build.merge import merge

KEYS = st.sampled_from(["a", "b", "name"])
JSON = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(KEYS, JSON)


@pytest.mark.parametrize(
    ("base", "patch", "merged"),
    [
        pytest.param({"a": 1}, {"b": 2}, {"a": 1, "b": 2}, id="a field is added"),
        pytest.param({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}, id="objects are merged"),
        pytest.param({"a": 1, "b": 2}, {"a": None}, {"b": 2}, id="null removes"),
        pytest.param({"a": 1}, {"b": {"c": None, "d": 1}}, {"a": 1, "b": {"d": 1}}, id="null removes nothing where nothing is"),
        pytest.param({"a": [1, 2]}, {"a": [3]}, {"a": [3]}, id="plain lists are replaced"),
        pytest.param(
            {"a": [{"name": "x", "v": 1}, {"name": "y"}]},
            {"a": [{"name": "x", "v": 2}, {"name": "z"}]},
            {"a": [{"name": "x", "v": 2}, {"name": "y"}, {"name": "z"}]},
            id="lists of named items are merged by name",
        ),
        pytest.param({"a": [{"name": "x"}]}, {"a": [{"key": "k"}]}, {"a": [{"key": "k"}]}, id="lists without names are replaced"),
        pytest.param({"a": [{"name": "x"}]}, {"a": []}, {"a": []}, id="an empty list replaces"),
        pytest.param({"a": 1}, {"a": {"b": None}}, {"a": {}}, id="an object replaces a value"),
    ],
)
def test_a_patch_merges(base: Any, patch: Any, merged: Any) -> None:
    assert merge(base, patch) == merged


@given(OBJECT, OBJECT)
def test_merging_twice_is_merging_once(base: dict[str, Any], patch: dict[str, Any]) -> None:
    once = merge(base, patch)
    assert merge(once, patch) == once


@given(OBJECT)
def test_an_empty_patch_changes_nothing(base: dict[str, Any]) -> None:
    assert merge(base, {}) == base

"""The list of LoRA adapters between the operator and the engine."""

import json

import pytest

from alise_contract.adapters import MAX_ADAPTERS, Adapter, dump, load

SUPPORT = Adapter("support", "org/support-lora", "v2")
LEGAL = Adapter("legal", "/adapters/legal")


def test_what_the_operator_writes_is_what_the_engine_reads() -> None:
    assert load(dump([SUPPORT, LEGAL])) == (SUPPORT, LEGAL)


def test_an_empty_list_is_a_list() -> None:
    assert load(dump([])) == ()


def test_fields_of_a_later_version_are_ignored() -> None:
    assert load('[{"name": "a", "uri": "/a", "later": 1}]') == (Adapter("a", "/a"),)


def test_versions_of_an_adapter_have_different_sources() -> None:
    versions = [SUPPORT, Adapter("support", "org/support-lora"), Adapter("support", "org/support-lora", "v3"), Adapter("support", "/v2")]
    assert len({version.source for version in versions}) == len(versions)
    assert Adapter("other", SUPPORT.uri, SUPPORT.revision).source == SUPPORT.source


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="an empty file"),
        pytest.param("{}", id="an object"),
        pytest.param('["a"]', id="a text"),
        pytest.param('[{"name": "a"}]', id="no uri"),
        pytest.param('[{"name": "a", "uri": ""}]', id="an empty uri"),
        pytest.param('[{"name": 1, "uri": "/a"}]', id="a number for a name"),
        pytest.param('[{"name": "a", "uri": "/a"}, {"name": "a", "uri": "/b"}]', id="a name twice"),
        pytest.param(json.dumps([{"name": f"a{number}", "uri": "/a"} for number in range(MAX_ADAPTERS + 1)]), id="too many"),
    ],
)
def test_a_list_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        load(text)

"""The picker's smaller parts: questions, homes, replicas from EndpointSlices, reports, the command line."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MAX_LEVEL, MIN_LEVEL
from alise_contract.v1 import admission_pb2, lengths_pb2
from alise_engine.api import admission
from alise_engine.api.identity import Caller
from alise_engine.api.routes import Route, route_of
from alise_picker.__main__ import arguments
from alise_picker.affinity import Homes
from alise_picker.endpoints import fixed, targets_of
from alise_picker.question import GENERATING, MAX_DESCRIBED_BYTES, described, is_described, question_of
from alise_picker.replicas import Target, load_of, prediction_of

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 7, "min_tokens": 3, "temperature": 0.5, "n": 2}


def test_a_question_is_the_one_that_the_engine_asks_at_admission() -> None:
    description = described("/v1/chat/completions", json.dumps(CHAT).encode())
    asked = admission.request_message(admission.Ask("", description, Caller()))
    assert question_of(description) == asked
    assert (asked.max_tokens, asked.min_tokens) == (7, 3)


@pytest.mark.parametrize(
    ("method", "path", "is_one"),
    [
        pytest.param("POST", "/v1/chat/completions", True, id="a chat"),
        pytest.param("POST", "/v1/completions?x=1", True, id="with a query"),
        pytest.param("GET", "/v1/chat/completions", False, id="not sent"),
        pytest.param("POST", "/v1/embeddings", False, id="has no answer of tokens"),
    ],
)
def test_bodies_that_say_how_long_the_answer_is(method: str, path: str, is_one: bool) -> None:
    assert is_described(method, path) is is_one


def test_every_route_that_wakes_a_replica_is_one_that_puts_work_into_the_engine() -> None:
    assert {path for path in GENERATING if route_of("POST", path) is not Route.GENERATES} == set()


@given(st.binary(max_size=200) | st.just(b"[" * 100_000) | st.just(b"x" * (MAX_DESCRIBED_BYTES + 1)))
def test_a_body_that_is_not_understood_is_neutral(data: bytes) -> None:
    assert question_of(described("/v1/chat/completions", data)).endpoint == admission_pb2.ENDPOINT_OTHER


def test_the_oldest_conversation_is_forgotten_first() -> None:
    homes = Homes(most=2)
    for name in ("a", "b", "a", "c"):
        homes.remember(name, f"at {name}")
    assert [homes.home(name) for name in ("a", "b", "c", "")] == ["at a", "", "at c", ""]


def make_slice(*endpoints: dict[str, Any], port: str = "http") -> dict[str, Any]:
    return {"ports": [{"name": port, "port": 8000}], "endpoints": list(endpoints)}


@pytest.mark.parametrize(
    ("slices", "found"),
    [
        pytest.param([make_slice({"addresses": ["10.0.0.1"], "conditions": {"ready": True}})], ["10.0.0.1:8000"], id="ready"),
        pytest.param([make_slice({"addresses": ["10.0.0.1"]})], ["10.0.0.1:8000"], id="absent means ready"),
        pytest.param([make_slice({"addresses": ["10.0.0.1"], "conditions": {"ready": False}})], [], id="not ready"),
        pytest.param([make_slice({"addresses": ["fd00::1"]})], ["[fd00::1]:8000"], id="IPv6"),
        pytest.param([make_slice({"addresses": ["169.254.169.254"]}), make_slice({"addresses": ["127.0.0.1"]})], [], id="not a pod's"),
        pytest.param([make_slice({"addresses": ["10.0.0.1"]}, port="other")], [], id="another port"),
        pytest.param([{"endpoints": None}, make_slice()], [], id="empty"),
    ],
)
def test_replicas_are_the_ready_endpoints(slices: list[dict[str, Any]], found: list[str]) -> None:
    assert [target.address for target in targets_of(slices)] == found


def test_the_sidecar_of_a_replica_has_the_same_address_and_its_own_port() -> None:
    assert targets_of([make_slice({"addresses": ["10.0.0.1"]})]) == [Target("10.0.0.1:8000", "10.0.0.1:9401")]


@given(st.floats(width=32), st.floats(width=32))
def test_any_report_gives_numbers_that_can_be_compared(slots: float, work: float) -> None:
    report = lengths_pb2.LoadReport(levels=[lengths_pb2.LevelLoad(level=1, samples=work, work_seconds=work)], slots=slots)
    load = load_of(report, 0.0)
    assert 1.0 <= load.slots <= 1e9
    assert 0.0 <= load.levels[0].work_seconds <= 1e9


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.floats(width=32))
def test_any_prediction_has_a_level_that_there_is_and_work_that_can_be_added(level: int, work: float) -> None:
    found = prediction_of(lengths_pb2.PredictResponse(level=level, work_seconds=work))
    assert MIN_LEVEL <= found.level <= MAX_LEVEL
    assert 0.0 <= found.work_seconds <= 1e9


@given(st.integers(-(1 << 31), (1 << 31) - 1))
def test_any_level_of_a_report_is_one_that_there_is(level: int) -> None:
    (row,) = load_of(lengths_pb2.LoadReport(levels=[lengths_pb2.LevelLoad(level=level, samples=1)]), 0.0).levels
    assert MIN_LEVEL <= row.level <= MAX_LEVEL


def test_fixed_replicas_are_pairs_of_addresses() -> None:
    assert fixed("a:1=b:2, c:3=d:4") == [Target("a:1", "b:2"), Target("c:3", "d:4")]


@pytest.mark.parametrize("text", [pytest.param("a:1", id="no sidecar"), pytest.param("a=b", id="no ports"), pytest.param("", id="nothing")])
def test_a_replica_that_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not ENGINE_HOST:PORT=SIDECAR_HOST:PORT"):
        fixed(text)


def test_a_resource_has_a_namespace_and_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["--resource", "tiny"])
    assert "expected NAMESPACE/NAME" in capsys.readouterr().err

"""The middleware beside a sidecar that fails or rejects, and in an engine that drains."""

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from alise_contract.names import CONTRACT_VERSION, MAX_HINT_BYTES, pack_priority
from alise_contract.v1 import admission_pb2
from alise_contract.v1 import engine_control_pb2 as pb
from alise_contract.v1 import engine_control_pb2_grpc as pb_grpc
from alise_engine.api.breaker import FAILURES_TO_OPEN
from tests.engine.api_fakes import Exchange, FakeAdmission, admission_server, admit, eventually, fail, never, reject
from tests.engine.middleware_server import CHAT, EngineRequest, Server, chat, serving

# --- failing open -----------------------------------------------------------------------------------------------------------------


def neutral(seen: EngineRequest) -> bool:
    return seen.priority == 0 and seen.stamp is not None and (seen.stamp.priority, seen.stamp.hint) == (0, "")


async def test_without_a_sidecar_a_request_goes_in_at_the_neutral_level_with_its_job_id(server: Server) -> None:
    exchange = await server.post(chat(priority=-99))
    assert exchange.status == 200
    assert neutral(server.seen())
    assert server.metric("failed_open_total", reason="unavailable") == 1


async def test_a_sidecar_that_does_not_answer_in_time_costs_order_only(tmp_path: Path) -> None:
    async with admission_server(tmp_path / "admission.sock") as sidecar, serving(tmp_path, deadline_seconds=0.05) as server:
        sidecar.answer = never()
        await server.post(chat())
        assert neutral(server.seen())
        assert server.metric("failed_open_total", reason="deadline") == 1


BROKEN = [
    pytest.param(fail(grpc.StatusCode.FAILED_PRECONDITION), "version", id="an older contract"),
    pytest.param(fail(grpc.StatusCode.INTERNAL), "error", id="an error of its own"),
    pytest.param(fail(grpc.StatusCode.UNAVAILABLE), "unavailable", id="a sidecar that is shutting down"),
    pytest.param(admit(0, b"x" * (MAX_HINT_BYTES + 1)), "error", id="a hint over the limit"),
    pytest.param(admit(pack_priority(127, 0) * 2), "error", id="a priority outside the levels"),
]


@pytest.mark.parametrize(("answer", "reason"), BROKEN)
async def test_a_broken_answer_fails_open_and_is_counted(server: Server, sidecar: FakeAdmission, answer: Any, reason: str) -> None:
    sidecar.answer = answer
    await server.post(chat())
    assert neutral(server.seen())
    assert server.metric("failed_open_total", reason=reason) == 1
    assert server.api.report().admission.failed_open_by_reason[reason] == 1


@pytest.mark.parametrize(
    ("asked", "heard"),
    [
        pytest.param("gpt-3.5-turbo", "tiny", id="an alias (A17)"),
        pytest.param("tiny", "tiny", id="the first name"),
        pytest.param("an-adapter", "an-adapter", id="another model"),
    ],
)
async def test_the_sidecar_hears_one_name_of_a_model(tmp_path: Path, asked: str, heard: str) -> None:
    async with admission_server(tmp_path / "admission.sock") as sidecar, serving(tmp_path, names=["tiny", "gpt-3.5-turbo"]) as server:
        await server.post(chat(model=asked))
        assert [request.model for request in sidecar.requests] == [heard]


async def test_an_answer_without_a_decision_fails_open(server: Server, sidecar: FakeAdmission) -> None:
    async def empty(*_: Any) -> admission_pb2.AdmitResponse:
        return admission_pb2.AdmitResponse()

    sidecar.answer = empty
    await server.post(chat())
    assert server.metric("failed_open_total", reason="error") == 1


async def test_a_refused_version_shows_in_the_status_until_the_sidecar_answers(server: Server, sidecar: FakeAdmission) -> None:
    sidecar.answer = fail(grpc.StatusCode.FAILED_PRECONDITION)
    await server.post(chat())
    refused = server.api.report().sidecar
    sidecar.answer = admit(0)
    await server.post(chat())
    # Which version the sidecar speaks is not known: it refused ours.
    assert (refused.contract_refused, refused.refused_contract_version) == (True, 0)
    assert server.api.report().sidecar.contract_refused is False


async def test_after_failures_in_a_row_the_sidecar_is_left_alone(server: Server, sidecar: FakeAdmission) -> None:
    sidecar.answer = fail(grpc.StatusCode.INTERNAL)
    for _ in range(FAILURES_TO_OPEN + 1):
        await server.post(chat())
    assert len(sidecar.requests) == FAILURES_TO_OPEN
    assert server.metric("failed_open_total", reason="breaker_open") == 1
    assert server.metric("breaker_state", state="open") == 1
    assert server.api.report().sidecar.breaker == "open"


async def test_a_sidecar_that_comes_back_is_found(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await server.post(chat())
        async with admission_server(tmp_path / "admission.sock") as sidecar:
            sidecar.answer = admit(pack_priority(-1, 0))
            async with asyncio.timeout(10):
                while server.seen().priority == 0:
                    await server.post(chat())
                    await asyncio.sleep(0.05)
        assert server.api.report().admission.admitted == 1


# --- what is not the sidecar's fault (L2) -----------------------------------------------------------------------------------------


async def test_a_number_that_no_message_can_carry_is_not_the_sidecars_fault(server: Server, sidecar: FakeAdmission) -> None:
    """L2: `n` of 2^32 - 1 for two prompts."""
    for _ in range(FAILURES_TO_OPEN + 1):
        await server.post({"model": "tiny", "prompt": ["a", "b"], "n": 2**32 - 1}, "/v1/completions")
    assert server.metric("breaker_state", state="closed") == 1
    assert len(sidecar.requests) == FAILURES_TO_OPEN + 1


async def test_a_question_that_the_sidecar_cannot_read_is_not_its_fault(server: Server, sidecar: FakeAdmission) -> None:
    sidecar.answer = fail(grpc.StatusCode.INVALID_ARGUMENT)
    for _ in range(FAILURES_TO_OPEN + 1):
        await server.post(chat())
    assert server.metric("breaker_state", state="closed") == 1


# --- rejection --------------------------------------------------------------------------------------------------------------------

REJECTIONS = [
    pytest.param(admission_pb2.Rejected.REASON_OVERLOADED, 429, "overloaded", id="overloaded"),
    pytest.param(admission_pb2.Rejected.REASON_WAIT_TOO_LONG, 429, "wait_too_long", id="the wait is too long"),
    pytest.param(admission_pb2.Rejected.REASON_DRAINING, 503, "draining", id="draining"),
    pytest.param(admission_pb2.Rejected.REASON_UNSPECIFIED, 429, "overloaded", id="no reason"),
]


@pytest.mark.parametrize(("reason", "status", "label"), REJECTIONS)
async def test_a_rejection_is_an_openai_error_that_says_when_to_try_again(
    server: Server, sidecar: FakeAdmission, reason: admission_pb2.Rejected.Reason, status: int, label: str
) -> None:
    sidecar.answer = reject(reason, "the wait would be 90 s", retry_after_seconds=7)
    exchange = await server.post(chat())
    assert (exchange.status, exchange.response_headers["retry-after"]) == (status, "7")
    assert exchange.json()["error"]["message"] == "the wait would be 90 s"
    assert exchange.json()["error"]["code"] == status
    assert server.bodies == []
    assert server.metric("http_requests_total", **{"class": "default", "outcome": label}) == 1
    assert exchange.response_headers["x-alise-outcome"] == label


# --- draining ---------------------------------------------------------------------------------------------------------------------


async def drain(directory: Path, accept_seconds: float) -> None:
    request = pb.DrainRequest(contract_version=CONTRACT_VERSION, accept_seconds=accept_seconds, timeout_seconds=10)
    async with grpc.aio.insecure_channel(f"unix:{directory / 'control.sock'}") as channel:
        stub: Any = pb_grpc.EngineControlStub(channel)
        await stub.Drain(request, timeout=10)


async def test_while_it_still_accepts_a_connection_is_not_kept(server: Server, sidecar: FakeAdmission, tmp_path: Path) -> None:
    before = await server.post(chat())
    draining = asyncio.create_task(drain(tmp_path, accept_seconds=0.5))
    await eventually(lambda: server.api.draining, "the drain began")
    during = await server.post(chat())
    await draining
    assert (before.status, "connection" in before.response_headers) == (200, False)
    assert (during.status, during.response_headers["connection"]) == (200, "close")


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_then_it_refuses_and_says_when_to_try_again(server: Server, sidecar: FakeAdmission, tmp_path: Path, path: str) -> None:
    await drain(tmp_path, accept_seconds=0)
    exchange = await server.post(chat(), path)
    assert (exchange.status, exchange.response_headers["retry-after"], exchange.response_headers["connection"]) == (503, "1", "close")
    assert (server.bodies, sidecar.requests) == ([], [])
    assert server.metric("http_requests_total", **{"class": "default", "outcome": "draining"}) == 1


async def test_a_request_whose_body_is_on_its_way_when_the_drain_begins_goes_to_another_pod(server: Server, tmp_path: Path) -> None:
    exchange = Exchange(CHAT, json.dumps(chat()).encode())

    async def after_the_drain() -> Any:
        await drain(tmp_path, accept_seconds=0)
        return await exchange.receive()

    await server.app(exchange.scope, after_the_drain, exchange.send)
    assert (exchange.status, server.bodies) == (503, [])


async def test_what_does_not_generate_is_still_answered(server: Server, tmp_path: Path) -> None:
    await drain(tmp_path, accept_seconds=0)
    assert (await server.post(b"{}", "/health", method="GET")).status != 503
    assert server.bodies == [b"{}"]

"""The middleware before a small application, beside a real Admission server on a unix socket."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from alise_contract.names import CONTRACT_VERSION, MAX_HINT_BYTES, pack_priority
from alise_contract.v1 import admission_pb2
from alise_contract.v1 import engine_control_pb2 as pb
from alise_contract.v1 import engine_control_pb2_grpc as pb_grpc
from alise_engine.breaker import FAILURES_TO_OPEN
from alise_engine.middleware import OTHER_GENERATING
from tests.engine.api_fakes import Exchange, FakeAdmission, admission_server, admit, eventually, fail, never, reject
from tests.engine.middleware_server import CHAT, Server, serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as server:
        yield server


@pytest.fixture
async def sidecar(tmp_path: Path) -> AsyncIterator[FakeAdmission]:
    async with admission_server(tmp_path / "admission.sock") as sidecar:
        yield sidecar


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **more}


# --- stamping ---------------------------------------------------------------------------------------------------------------------


async def test_an_admitted_request_carries_the_sidecars_priority_and_hint(server: Server, sidecar: FakeAdmission) -> None:
    sidecar.answer = admit(pack_priority(-3, 17), b"\x00hint")
    await server.post(chat(temperature=0.5))
    seen = server.seen()
    assert seen["priority"] == pack_priority(-3, 17)
    assert base64.b64decode(seen["vllm_xargs"]["alise_hint"]) == b"\x00hint"
    assert seen["vllm_xargs"]["alise_job"] == sidecar.requests[0].job_id
    assert seen["temperature"] == 0.5


async def test_the_sidecar_learns_what_the_request_says(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat(max_tokens=9, stream=False), headers={"authorization": "Bearer k"})
    [asked] = sidecar.requests
    assert (asked.contract_version, asked.model, asked.prompt, asked.max_tokens) == (CONTRACT_VERSION, "tiny", "hi", 9)
    assert asked.tenant.startswith("key-")


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses"])
async def test_all_three_endpoints_are_asked_about(server: Server, sidecar: FakeAdmission, path: str) -> None:
    await server.post({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "input": "hi"}, path)
    assert [request.endpoint for request in sidecar.requests] == [
        {CHAT: admission_pb2.ENDPOINT_CHAT_COMPLETIONS, "/v1/completions": admission_pb2.ENDPOINT_COMPLETIONS}.get(
            path, admission_pb2.ENDPOINT_RESPONSES
        )
    ]


async def test_a_client_cannot_set_its_own_priority(server: Server, sidecar: FakeAdmission) -> None:
    body = chat(priority=-99, vllm_xargs={"alise_job": "mine", "alise_hint": "x", "other": 1})
    await server.post(body, headers={"X-Vllm-Priority": "-99"})
    seen = server.seen()
    assert seen["priority"] == 0
    assert seen["vllm_xargs"] == {"other": 1, "alise_job": sidecar.requests[0].job_id}
    assert "x-vllm-priority" not in server.headers[0]


async def test_the_rewritten_body_has_its_own_length(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat())
    assert int(server.headers[0]["content-length"]) == len(server.bodies[0])


async def test_two_requests_are_two_jobs(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat())
    await server.post(chat())
    assert len({request.job_id for request in sidecar.requests}) == 2


# --- what is not ours -------------------------------------------------------------------------------------------------------------

PASSED_THROUGH = [
    pytest.param(b'{"model": ', "not_json", id="malformed JSON"),
    pytest.param(b"[1, 2]", "not_json", id="a list"),
    pytest.param(b"[" * 100_000, "not_json", id="nested without end"),
    pytest.param(b'{"model": "tiny", "messages": "hi"}', "not_described", id="messages of the wrong type"),
    pytest.param(b'{"model":"tiny"}', "not_described", id="no messages"),
    pytest.param(b'{"model": "gpt-9", "messages": [{"role": "user", "content": "hi"}]}', "unknown_model", id="an unknown model"),
    pytest.param(b'{"model": "tiny", "messages": [{"role": "user"}], "vllm_xargs": 3}', "not_described", id="wrong extra arguments"),
]


@pytest.mark.parametrize(("body", "reason"), PASSED_THROUGH)
async def test_what_vllm_would_refuse_reaches_it_byte_for_byte(server: Server, sidecar: FakeAdmission, body: bytes, reason: str) -> None:
    await server.post(body)
    assert (server.bodies, sidecar.requests) == ([body], [])
    assert server.metric("passed_through_total", reason=reason) == 1


async def test_vllms_own_error_is_the_answer(server: Server, sidecar: FakeAdmission) -> None:
    exchange = await server.post(b'{"model": ')
    assert (exchange.status, exchange.json()["error"]["message"]) == (400, "vLLM's own")


async def test_a_body_over_the_limit_goes_on_whole_and_unasked(tmp_path: Path) -> None:
    async with admission_server(tmp_path / "admission.sock") as sidecar, serving(tmp_path, max_body_bytes=20) as server:
        body = json.dumps(chat()).encode()
        await server.post(body)
        assert (server.bodies, sidecar.requests) == ([body], [])
        assert server.metric("passed_through_total", reason="too_large") == 1


@pytest.mark.parametrize("path", sorted(OTHER_GENERATING))
async def test_other_generating_endpoints_cannot_jump_the_queue_either(server: Server, sidecar: FakeAdmission, path: str) -> None:
    await server.post(chat(priority=-99, vllm_xargs={"alise_job": "mine"}), path, {"X-Vllm-Priority": "-99"})
    assert (server.seen(), sidecar.requests) == (chat(), [])
    assert "x-vllm-priority" not in server.headers[0]


async def test_other_requests_are_not_touched(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(b"", "/v1/models", method="GET")
    await server.post(b'{"priority": 1}', "/tokenize")
    assert (server.bodies, sidecar.requests) == ([b"", b'{"priority": 1}'], [])


# --- failing open -----------------------------------------------------------------------------------------------------------------


def neutral(seen: dict[str, Any]) -> bool:
    return seen["priority"] == 0 and set(seen["vllm_xargs"]) == {"alise_job"}


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
    pytest.param(fail(grpc.StatusCode.UNIMPLEMENTED), "version", id="a sidecar without the method"),
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
                while server.seen()["priority"] == 0:
                    await server.post(chat())
                    await asyncio.sleep(0.05)
        assert server.api.report().admission.admitted == 1


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
    assert server.metric("refused_total", reason=label) == 1


# --- streams ----------------------------------------------------------------------------------------------------------------------


def stream(server: Server) -> tuple[Exchange, asyncio.Task[None]]:
    exchange = Exchange(CHAT, json.dumps(chat(stream=True)).encode())
    return exchange, asyncio.create_task(server.app(exchange.scope, exchange.receive, exchange.send))


async def test_a_stream_arrives_chunk_by_chunk_while_it_is_made(server: Server, sidecar: FakeAdmission) -> None:
    exchange, task = stream(server)
    await eventually(lambda: len(exchange.chunks) > 3, "several chunks")
    assert server.streams_open == 1
    exchange.disconnect()
    await task


async def test_a_client_that_goes_away_ends_its_stream(server: Server, sidecar: FakeAdmission) -> None:
    exchange, task = stream(server)
    await exchange.started.wait()
    exchange.disconnect()
    await asyncio.wait_for(task, 5)
    assert (server.streams_open, server.api.report().open_requests) == (0, 0)


async def test_a_client_that_goes_away_while_sending_reaches_nobody(server: Server, sidecar: FakeAdmission) -> None:
    exchange = Exchange(CHAT, b'{"model"')

    async def cut() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    await server.app(exchange.scope, cut, exchange.send)
    assert (exchange.sent, server.bodies, sidecar.requests) == ([], [], [])


async def test_open_requests_are_counted_until_their_stream_ends(server: Server, sidecar: FakeAdmission) -> None:
    exchange, task = stream(server)
    await exchange.started.wait()
    during = server.metric("open_requests")
    exchange.disconnect()
    await task
    assert (during, server.metric("open_requests")) == (1, 0)


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
    assert server.metric("refused_total", reason="draining") == 1


async def test_what_does_not_generate_is_still_answered(server: Server, tmp_path: Path) -> None:
    await drain(tmp_path, accept_seconds=0)
    assert (await server.post(b"", "/health", method="GET")).status != 503
    assert server.bodies == [b""]


# --- the tally --------------------------------------------------------------------------------------------------------------------


async def test_the_status_counts_what_was_decided(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat())
    sidecar.answer = reject(admission_pb2.Rejected.REASON_OVERLOADED)
    await server.post(chat())
    sidecar.answer = fail(grpc.StatusCode.INTERNAL)
    await server.post(chat())
    admission = server.api.report().admission
    assert (admission.requests, admission.admitted, admission.rejected, admission.failed_open) == (3, 1, 1, 1)
    assert (admission.recent_requests, admission.recent_failed_open) == (3, 1)
    assert [server.metric("admissions_total", outcome=outcome) for outcome in ("admitted", "rejected", "failed_open")] == [1, 1, 1]
    assert server.metric("admit_seconds_count") == 3

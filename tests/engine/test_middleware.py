"""The middleware before a small application, beside a real Admission server on a unix socket: what a request carries into the engine.

API keys are in test_middleware_auth.py, limits in test_middleware_limits.py, a sidecar that fails in test_middleware_sidecar.py.
"""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from alise_contract.names import CONTRACT_VERSION, pack_priority
from alise_contract.v1 import admission_pb2
from alise_engine.api.identity import Rules
from tests.engine.api_fakes import Exchange, FakeAdmission, admit, eventually, fail, reject
from tests.engine.middleware_server import CHAT, Server, chat, serving

# --- the stamp --------------------------------------------------------------------------------------------------------------------


async def test_an_admitted_request_carries_the_sidecars_priority_and_hint(server: Server, sidecar: FakeAdmission) -> None:
    sidecar.answer = admit(pack_priority(-3, 17), b"\x00hint")
    await server.post(chat())
    stamp = server.seen().stamp
    assert stamp is not None
    assert (stamp.priority, base64.b64decode(stamp.hint)) == (pack_priority(-3, 17), b"\x00hint")
    assert (stamp.job_id, server.seen().priority) == (sidecar.requests[0].job_id, stamp.priority)


async def test_the_sidecar_learns_what_the_request_says(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat(max_tokens=9, stream=False))
    [asked] = sidecar.requests
    assert (asked.contract_version, asked.model, asked.prompt, asked.max_tokens) == (CONTRACT_VERSION, "tiny", "hi", 9)


ASKED_ABOUT = [
    pytest.param(CHAT, admission_pb2.ENDPOINT_CHAT_COMPLETIONS, id="chat completions"),
    pytest.param("/v1/completions", admission_pb2.ENDPOINT_COMPLETIONS, id="completions"),
    pytest.param("/v1/responses", admission_pb2.ENDPOINT_RESPONSES, id="responses"),
    pytest.param("/v1/messages", admission_pb2.ENDPOINT_MESSAGES, id="Anthropic's messages (R4, A18)"),
    pytest.param("/v1/chat/completions/batch", admission_pb2.ENDPOINT_OTHER, id="a batch of chats (R4)"),
    pytest.param("/invocations", admission_pb2.ENDPOINT_OTHER, id="SageMaker's route (R4)"),
    pytest.param("/a/route/of/tomorrow", admission_pb2.ENDPOINT_OTHER, id="a route that this version does not know"),
]


@pytest.mark.parametrize(("path", "endpoint"), ASKED_ABOUT)
async def test_every_route_that_generates_is_asked_about(
    server: Server, sidecar: FakeAdmission, path: str, endpoint: admission_pb2.Endpoint
) -> None:
    await server.post({"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "prompt": "hi", "input": "hi"}, path)
    assert [request.endpoint for request in sidecar.requests] == [endpoint]
    assert server.seen().stamp is not None


async def test_the_body_reaches_vllm_byte_for_byte(server: Server, sidecar: FakeAdmission) -> None:
    body = b'{ "model":"tiny",  "messages":[{"role":"user","content":"\\u00e9"}], "n":1.0 }'
    await server.post(body)
    assert server.bodies == [body]


async def test_two_requests_are_two_jobs(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat())
    await server.post(chat())
    assert len({request.job_id for request in sidecar.requests}) == 2


# --- the id -----------------------------------------------------------------------------------------------------------------------


async def test_the_clients_id_is_returned_and_the_sidecar_learns_it(server: Server, sidecar: FakeAdmission) -> None:
    exchange = await server.post(chat(), headers={"X-Request-Id": "req-7"})
    assert (exchange.response_headers["x-request-id"], sidecar.requests[0].request_id) == ("req-7", "req-7")


@pytest.mark.parametrize("headers", [{}, {"X-Request-Id": "not one id"}], ids=["none", "one with spaces"])
async def test_without_a_usable_id_the_requests_own_one_is_returned(
    server: Server, sidecar: FakeAdmission, headers: dict[str, str]
) -> None:
    exchange = await server.post(chat(), headers=headers)
    assert (exchange.response_headers["x-request-id"], sidecar.requests[0].request_id) == (sidecar.requests[0].job_id, "")


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
@pytest.mark.parametrize("given", ["not one id", "x" * 129, "x" * 1_000_000], ids=["with spaces", "one too long", "of a megabyte"])
async def test_an_id_that_is_not_used_does_not_reach_vllm(server: Server, path: str, given: str) -> None:
    await server.post(chat(), path, headers={"X-Request-Id": given})
    assert [headers.get("x-request-id") for headers in server.headers] == [None]


async def test_two_requests_with_the_same_id_stay_two_jobs(server: Server, sidecar: FakeAdmission) -> None:
    for _ in range(2):
        await server.post(chat(), headers={"X-Request-Id": "req-7"})
    assert len({request.job_id for request in sidecar.requests}) == 2


async def test_a_refusal_has_the_id_too(server: Server, sidecar: FakeAdmission) -> None:
    sidecar.answer = reject(admission_pb2.Rejected.REASON_WAIT_TOO_LONG)
    exchange = await server.post(chat())
    assert (exchange.status, exchange.response_headers["x-request-id"]) == (429, sidecar.requests[0].job_id)


# --- rank is never the client's (R) -----------------------------------------------------------------------------------------------

MINE = {"alise_job": "mine", "alise_hint": "QUw=", "alise_stamp": "-99.00", "other": 1}
FORGED = [
    pytest.param(CHAT, chat(priority=-99, vllm_xargs=MINE), id="a chat"),
    pytest.param("/v1/completions", {"prompt": [72.0, 105.0], "priority": -99, "vllm_xargs": MINE}, id="token ids as floats (R1)"),
    pytest.param("/v1/completions", {"prompt": ["72", 105], "priority": -99, "vllm_xargs": MINE}, id="a mixed prompt (R1)"),
    pytest.param("/v1/responses", {"input": [], "instructions": "hi", "priority": -(2**62), "vllm_xargs": MINE}, id="an empty input (R1)"),
    pytest.param("/v1/messages", {"messages": "?", "priority": -99, "vllm_xargs": MINE}, id="messages that are none"),
    pytest.param("/v1/chat/completions/batch", {"messages": [[]], "priority": -99, "vllm_xargs": MINE}, id="a batch"),
    pytest.param("/invocations", chat(priority=-99, vllm_xargs=MINE), id="SageMaker's route"),
    pytest.param("/cohere/v2/chat", chat(priority=-99, vllm_xargs=MINE), id="Cohere's route"),
    pytest.param("/v1/chat/completions/", chat(priority=-99, vllm_xargs=MINE), id="an unknown route"),
    pytest.param("/tokenize", chat(priority=-99, vllm_xargs=MINE), id="a route that should not generate"),
]


@pytest.mark.parametrize(("path", "body"), FORGED)
async def test_a_client_cannot_set_its_own_rank(server: Server, sidecar: FakeAdmission, path: str, body: dict[str, Any]) -> None:
    sidecar.answer = admit(pack_priority(5, 0))
    await server.post(body, path, headers={"X-Vllm-Priority": "-99"})
    seen = server.seen()
    assert seen.extra_args.get("other") == 1
    assert seen.priority == (pack_priority(5, 0) if sidecar.requests else 0)
    assert [seen.stamp.job_id] == [request.job_id for request in sidecar.requests] if seen.stamp else sidecar.requests == []
    assert "mine" not in json.dumps(seen.extra_args)
    assert sidecar.requests == [] or "x-vllm-priority" not in server.headers[0]


# --- the prefix cache (L7) --------------------------------------------------------------------------------------------------------


async def test_each_tenant_has_a_prefix_cache_of_its_own_where_the_resource_asks_for_it(tmp_path: Path, sidecar: FakeAdmission) -> None:
    rules = Rules(trust_headers=True)
    async with serving(tmp_path, isolates_prefix_cache=True, rules=rules) as server:
        for tenant in ("a", "b", "a"):
            await server.post(chat(cache_salt="mine"), headers={"x-llm-d-inference-fairness-id": tenant})
        salts = [request.prompt["cache_salt"] for request in server.engine]
    assert salts[0] == salts[2] != salts[1]
    assert all(salt.endswith("mine") and len(salt) > 32 for salt in salts)


async def test_otherwise_the_prefix_cache_is_shared(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat())
    assert "cache_salt" not in server.seen().prompt


# --- what is not ours -------------------------------------------------------------------------------------------------------------

PASSED_THROUGH = [
    pytest.param(b'{"model": ', "not_json", id="malformed JSON"),
    pytest.param(b"[" * 100_000, "not_json", id="nested without end"),
]


@pytest.mark.parametrize(("body", "reason"), PASSED_THROUGH)
async def test_what_vllm_refuses_before_computing_anything_is_not_asked_about(
    server: Server, sidecar: FakeAdmission, body: bytes, reason: str
) -> None:
    await server.post(body)
    assert (server.bodies, sidecar.requests) == ([body], [])
    assert server.metric("passed_through_total", reason=reason) == 1


NOT_DESCRIBED = [
    pytest.param(b"[1, 2]", id="a list"),
    pytest.param(b'{"model": "tiny", "messages": "hi"}', id="messages of the wrong type"),
    pytest.param(b'{"model":"tiny"}', id="no messages"),
]


@pytest.mark.parametrize("body", NOT_DESCRIBED)
async def test_a_body_that_is_not_understood_is_counted_and_ranked_neutral(server: Server, sidecar: FakeAdmission, body: bytes) -> None:
    await server.post(body)
    assert server.bodies == [body]
    assert [request.endpoint for request in sidecar.requests] == [admission_pb2.ENDPOINT_OTHER]
    assert server.metric("passed_through_total", reason="not_described") == 1


async def test_vllms_own_error_is_the_answer(server: Server, sidecar: FakeAdmission) -> None:
    exchange = await server.post(b'{"model": ')
    assert (exchange.status, exchange.json()["error"]["message"]) == (400, "vLLM's own")


async def test_other_requests_are_not_touched(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(b"{}", "/v1/models", method="GET")
    await server.post(b'{"priority": 1}', "/tokenize")
    assert (server.bodies, sidecar.requests) == ([b"{}", b'{"priority": 1}'], [])


# --- streams ----------------------------------------------------------------------------------------------------------------------


def stream(server: Server) -> tuple[Exchange, asyncio.Task[None]]:
    exchange = Exchange(CHAT, json.dumps(chat(stream=True)).encode())
    return exchange, asyncio.create_task(server.app(exchange.scope, exchange.receive, exchange.send))


async def test_a_stream_arrives_chunk_by_chunk_while_it_is_generated(server: Server, sidecar: FakeAdmission) -> None:
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


async def test_a_request_whose_client_goes_away_while_sending_is_dropped(server: Server, sidecar: FakeAdmission) -> None:
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

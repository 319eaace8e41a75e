"""The middleware limits requests, each and all together: bodies, text, uploads, and how many may wait."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from alise_contract.names import pack_priority
from alise_contract.v1 import admission_pb2
from alise_engine.api.body import BodyLimits
from alise_engine.api.identity import Rules
from alise_engine.api.middleware import AliseMiddleware
from alise_engine.api.parsing import INLINE_BYTES
from alise_engine.wire.stamp import Stamp
from alise_engine.wire.terms import PHASE_RUNNING
from tests.engine.api_fakes import Exchange, FakeAdmission, admission_server, admit, eventually, make_row
from tests.engine.middleware_server import CHAT, Params, Server, chat, serving

# --- bodies and text (L4) ---------------------------------------------------------------------------------------------------------


async def test_a_form_is_looked_at_as_json_where_no_form_belongs(server: Server, sidecar: FakeAdmission) -> None:
    """vLLM reads the first content type of two, and some routes read JSON whatever it says."""
    body = b'{"prompt": [' + b"[]," * 200_000 + b"[]]}"
    exchange = await server.post(body, "/v1/completions", {"content-type": "multipart/form-data"})
    assert (exchange.status, server.bodies) == (413, [])


TEXT_LIMITED = [
    pytest.param("/tokenize", {}, 413, id="the tokenizer"),
    pytest.param("/v1/completions", {"truncate_prompt_tokens": 100}, 413, id="a prompt that is cut after it was tokenized"),
    pytest.param("/v1/completions", {}, 200, id="a prompt whose length vLLM looks at first"),
]


@pytest.mark.parametrize(("path", "more", "status"), TEXT_LIMITED)
async def test_text_that_would_be_tokenized_whatever_its_length_has_a_limit(
    server: Server, sidecar: FakeAdmission, path: str, more: dict[str, Any], status: int
) -> None:
    assert (await server.post({"model": "tiny", "prompt": "x" * 2_000_000, **more}, path)).status == status


async def test_json_for_a_model_that_takes_only_text_is_no_larger_than_its_context_needs(tmp_path: Path, sidecar: FakeAdmission) -> None:
    async with serving(tmp_path, text_only=True) as server:
        assert (await server.post({"prompt": "x" * 5_000_000}, "/v1/completions")).status == 413
        assert (await server.post({"prompt": "x" * 3_000_000}, "/v1/completions")).status == 200


async def test_text_that_is_tokenized_outside_of_the_queue_is_limited_together(server: Server) -> None:
    server.may_answer.clear()
    body = {"model": "tiny", "prompt": "x" * 60_000}
    tasks = [asyncio.create_task(server.post(body, "/tokenize")) for _ in range(4)]
    await eventually(lambda: sum(task.done() for task in tasks) == 1, "one was refused")
    server.may_answer.set()
    assert sorted([exchange.status for exchange in await asyncio.gather(*tasks)]) == [200, 200, 200, 429]


async def test_json_that_takes_long_to_parse_is_refused(server: Server, sidecar: FakeAdmission) -> None:
    """vLLM parses it again on the event loop. The time is CPU time, which a busy machine changes little."""
    body = b'{"prompt": "hi", "more": [' + b",".join([b"7" * 4_000] * 5_000) + b"]}"
    exchange = await server.post(body, "/v1/completions")
    assert (exchange.status, server.bodies) == (413, [])


async def test_one_tenants_bodies_take_memory_for_a_few_at_a_time_and_others_are_not_kept_out(tmp_path: Path) -> None:
    rules = Rules(trust_headers=True)
    async with serving(tmp_path, limits=BodyLimits(max_bytes=2_000_000), rules=rules) as server:
        forever = asyncio.Event()

        async def upload(tenant: str) -> int:
            exchange = Exchange(CHAT, b"", {"x-llm-d-inference-fairness-id": tenant, "transfer-encoding": "chunked"})
            parts = [{"type": "http.request", "body": b"x" * 1_900_000, "more_body": True}]

            async def receive() -> Any:
                if parts:
                    return parts.pop()
                await forever.wait()
                return {"type": "http.disconnect"}

            await server.app(exchange.scope, receive, exchange.send)
            return exchange.status if exchange.sent else 0

        held = [asyncio.create_task(upload("loud")) for _ in range(4)]
        await asyncio.sleep(0)
        assert await upload("loud") == 429
        quiet = asyncio.create_task(upload("quiet"))
        await asyncio.sleep(0)
        forever.set()
        assert await asyncio.gather(quiet, *held) == [0] * 5


@pytest.mark.parametrize(
    "headers", [{}, {"content-length": "9", "transfer-encoding": "chunked"}], ids=["declared in a header", "found while reading"]
)
async def test_a_body_over_the_limit_is_refused(tmp_path: Path, sidecar: FakeAdmission, headers: dict[str, str]) -> None:
    async with serving(tmp_path, limits=BodyLimits(max_bytes=20)) as server:
        exchange = await server.post(chat(), headers=headers)
        assert (exchange.status, exchange.response_headers["connection"]) == (413, "close")
        assert "20 bytes" in exchange.json()["error"]["message"]
        assert (server.bodies, sidecar.requests) == ([], [])
        assert server.metric("http_requests_total", **{"class": "default", "outcome": "body_too_large"}) == 1


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/a/route/of/tomorrow"])
async def test_json_that_is_all_brackets_is_refused_before_it_is_parsed(server: Server, sidecar: FakeAdmission, path: str) -> None:
    exchange = await server.post(b'{"prompt": [' + b"[]," * 200_000 + b"[]]}", path)
    assert (exchange.status, server.bodies, sidecar.requests) == (413, [], [])


async def test_a_body_that_does_not_come_is_refused_and_holds_nothing_up(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=BodyLimits(seconds=0.05)) as server:
        exchange = Exchange(CHAT, b"")
        open_meanwhile = []

        async def stuck() -> Any:
            open_meanwhile.append(server.metric("open_requests"))
            await asyncio.Event().wait()

        await server.app(exchange.scope, stuck, exchange.send)
        assert (exchange.status, open_meanwhile) == (408, [0])


async def test_a_large_body_is_parsed_elsewhere_and_described_all_the_same(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat(max_tokens=7, padding="x" * INLINE_BYTES))
    assert [(request.endpoint, request.max_tokens) for request in sidecar.requests] == [(admission_pb2.ENDPOINT_CHAT_COMPLETIONS, 7)]


# --- how many may wait (L) --------------------------------------------------------------------------------------------------------


async def test_a_request_for_an_unknown_model_counts_too(server: Server, sidecar: FakeAdmission) -> None:
    """Some routes put another model in later, so what the body says is no reason to let it pass."""
    await server.post({"model": "gpt-9", "prompt": "hi"}, "/invocations")
    assert len(sidecar.requests) == 1


async def test_what_vllm_refuses_stops_counting_at_once(tmp_path: Path, sidecar: FakeAdmission) -> None:
    """L1: ten requests that vLLM refuses do not lock the others out."""
    async with serving(tmp_path, max_pending=2) as server:
        refused = [(await server.post(chat(refused=True))).status for _ in range(10)]
        assert refused == [400] * 10
        assert (await server.post(chat())).status == 200
        admitted = [request.job_id for request in sidecar.requests if not request.withdrawn]
        await eventually(lambda: [r.job_id for r in sidecar.requests if r.withdrawn] == admitted[:10], "the withdrawals arrived")
        assert server.metric("pending_requests") == 0


@pytest.mark.parametrize("with_sidecar", [True, False], ids=["with a sidecar", "without one"])
async def test_the_limit_holds_for_requests_that_come_at_once(tmp_path: Path, with_sidecar: bool) -> None:
    """L5: of 200 with a limit of 10, 190 are turned away, whatever the sidecar does."""
    async with contextlib.AsyncExitStack() as stack:
        if with_sidecar:
            await stack.enter_async_context(admission_server(tmp_path / "admission.sock"))
        server = await stack.enter_async_context(serving(tmp_path, max_pending=10))
        server.may_answer.clear()
        tasks = [asyncio.create_task(server.post(chat())) for _ in range(200)]
        await eventually(lambda: sum(task.done() for task in tasks) == 190, "190 were answered")
        assert server.metric("pending_requests") == 10
        server.may_answer.set()
        answers = [exchange.status for exchange in await asyncio.gather(*tasks)]
        assert sorted(answers) == [200] * 10 + [429] * 190


async def test_a_request_that_runs_does_not_wait_any_more(tmp_path: Path, sidecar: FakeAdmission) -> None:
    async with serving(tmp_path, max_pending=1) as server:
        server.may_answer.clear()
        first = asyncio.create_task(server.post(chat()))
        await eventually(lambda: len(server.engine) == 1, "the first is in the engine")
        assert (await server.post(chat())).status == 429
        job = sidecar.requests[0].job_id
        server.core.put(make_row("r1", job_id=job, phase=PHASE_RUNNING))
        await eventually(lambda: server.metric("pending_requests") == 0, "it runs")
        second = asyncio.create_task(server.post(chat()))
        await eventually(lambda: len(server.engine) == 2, "the second is in the engine")
        server.may_answer.set()
        assert [exchange.status for exchange in await asyncio.gather(first, second)] == [200, 200]


async def test_a_full_queue_refuses_a_request_before_its_body_is_parsed(tmp_path: Path, sidecar: FakeAdmission) -> None:
    async with serving(tmp_path, max_pending=1) as server:
        server.may_answer.clear()
        first = asyncio.create_task(server.post(chat()))
        await eventually(lambda: len(server.engine) == 1, "the first is in the engine")
        assert (await server.post(b'{"model": ')).status == 429
        server.may_answer.set()
        await first


# --- WebSockets -------------------------------------------------------------------------------------------------------------------

REALTIME = {"type": "websocket", "path": "/v1/realtime", "headers": []}


async def nothing_received() -> Any:
    raise AssertionError("nothing is read")


async def nothing_sent(message: Any) -> None:
    raise AssertionError(f"nothing is sent here: {message}")


async def test_a_web_socket_counts_as_one_request_and_carries_the_pods_stamp(server: Server, sidecar: FakeAdmission) -> None:
    sidecar.answer = admit(pack_priority(3, 0))
    waiting = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await server.add_request("r", {"type": "token"}, Params(None), priority=-99)
        waiting.append(server.metric("pending_requests"))

    await AliseMiddleware(app, server.api)(dict(REALTIME), nothing_received, nothing_sent)
    assert [request.endpoint for request in sidecar.requests] == [admission_pb2.ENDPOINT_OTHER]
    assert server.seen().stamp == Stamp(sidecar.requests[0].job_id, pack_priority(3, 0))
    assert (waiting, server.metric("pending_requests")) == ([1], 0)


async def test_a_full_queue_closes_a_web_socket_and_says_to_try_again(tmp_path: Path, sidecar: FakeAdmission) -> None:
    async with serving(tmp_path, max_pending=1) as server:
        server.may_answer.clear()
        first = asyncio.create_task(server.post(chat()))
        await eventually(lambda: len(server.engine) == 1, "the first is in the engine")
        sent = []

        async def send(message: Any) -> None:
            sent.append(message)

        await server.app(dict(REALTIME), nothing_received, send)
        assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1013)]
        server.may_answer.set()
        await first

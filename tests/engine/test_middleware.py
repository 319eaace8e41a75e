"""The middleware before a small application, beside a real Admission server on a unix socket."""

import asyncio
import base64
import contextlib
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
from alise_engine.body import BodyLimits
from alise_engine.breaker import FAILURES_TO_OPEN
from alise_engine.core_protocol import PHASE_RUNNING
from alise_engine.identity import Rules
from alise_engine.parsing import INLINE_BYTES
from tests.engine.api_fakes import Exchange, FakeAdmission, admission_server, admit, eventually, fail, make_row, never, reject
from tests.engine.middleware_server import CHAT, EngineRequest, Server, serving


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


# --- rank is never the client's (R) -------------------------------------------------------------------------------------------------

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


async def test_the_headers_of_class_and_tenant_count_only_where_the_resource_says_so(tmp_path: Path) -> None:
    headers = {"x-llm-d-inference-objective": "gold", "x-llm-d-inference-fairness-id": "team-b"}
    seen = []
    for trusted in (False, True):
        folder = tmp_path / str(trusted)
        folder.mkdir()
        rules = Rules(classes=frozenset({"gold"}), trust_headers=trusted)
        async with admission_server(folder / "admission.sock") as sidecar, serving(folder, rules=rules) as server:
            exchange = await server.post(chat(), headers=headers)
            seen.append((sidecar.requests[0].objective, sidecar.requests[0].tenant, exchange.response_headers["x-alise-class"]))
    assert seen == [("", "", "default"), ("gold", "team-b", "gold")]


async def test_the_answer_says_which_class_and_outcome_the_request_had(server: Server, sidecar: FakeAdmission) -> None:
    exchange = await server.post(chat())
    assert (exchange.response_headers["x-alise-class"], exchange.response_headers["x-alise-outcome"]) == ("default", "admitted")
    assert server.metric("http_requests_total", **{"class": "default", "outcome": "admitted"}) == 1


# --- API keys (R5) ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def guarded(tmp_path: Path, sidecar: FakeAdmission) -> AsyncIterator[Server]:
    keys = tmp_path / "keys"
    keys.mkdir()
    (keys / "team-a").write_text("sk-a\n")
    rules = Rules(classes=frozenset({"gold"}), tenant_classes={"team-a": "gold"})
    async with serving(tmp_path, auth_dir=keys, rules=rules) as server:
        yield server


GUARDED = [
    pytest.param("POST", CHAT, id="chat"),
    pytest.param("POST", "/invocations", id="SageMaker's route"),
    pytest.param("POST", "/tokenize", id="the tokenizer"),
    pytest.param("POST", "/scale_elastic_ep", id="scaling"),
    pytest.param("POST", "/a/route/of/tomorrow", id="a route that this version does not know"),
    pytest.param("GET", "/v1/models", id="the models"),
    pytest.param("GET", "/version", id="the version"),
    pytest.param("GET", "/health/../v1/models", id="a path that begins like the probe's"),
    pytest.param("POST", "/health/", id="a path that ends otherwise than the probe's"),
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_without_a_key_nothing_is_answered(guarded: Server, sidecar: FakeAdmission, method: str, path: str) -> None:
    exchange = await guarded.post(chat(), path, {"authorization": "Bearer wrong"}, method)
    assert (exchange.status, exchange.json()["error"]["code"], exchange.response_headers["www-authenticate"]) == (401, 401, "Bearer")
    assert (guarded.bodies, sidecar.requests) == ([], [])


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("headers", [{"authorization": "Bearer sk-a"}, {"x-api-key": "sk-a"}], ids=["bearer", "as Anthropic's clients do"])
async def test_with_a_key_everything_is(guarded: Server, method: str, path: str, headers: dict[str, str]) -> None:
    assert (await guarded.post(chat(), path, headers, method)).status == 200


@pytest.mark.parametrize("path", ["/health", "/ping", "/metrics", "/alise/v1/status"])
async def test_probes_and_the_status_need_no_key(guarded: Server, path: str) -> None:
    assert (await guarded.post(b"{}", path, method="GET")).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metricsx", "/metrics/../x"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_metrics_are_guarded_by_choice(tmp_path: Path, path: str, method: str) -> None:
    """vLLM answers with them on all of these."""
    (tmp_path / "keys").mkdir()
    async with serving(tmp_path, auth_dir=tmp_path / "keys", guards_metrics=True) as server:
        assert (await server.post(b"{}", path, method=method)).status == 401


@pytest.mark.parametrize("path", ["/health", "/ping", "/alise/v1/status", "/metrics"])
async def test_what_needs_no_key_is_not_counted_as_a_request(guarded: Server, sidecar: FakeAdmission, path: str) -> None:
    exchange = await guarded.post(b"{}", path)
    assert (sidecar.requests, "x-alise-outcome" in exchange.response_headers) == ([], False)


async def test_the_key_says_whose_request_it_is_and_which_class_it_has(guarded: Server, sidecar: FakeAdmission) -> None:
    headers = {"authorization": "Bearer sk-a", "x-llm-d-inference-fairness-id": "team-b", "x-llm-d-inference-objective": "platinum"}
    exchange = await guarded.post(chat(), headers=headers)
    assert (sidecar.requests[0].tenant, sidecar.requests[0].objective) == ("team-a", "gold")
    assert exchange.response_headers["x-alise-class"] == "gold"


async def test_a_web_socket_needs_a_key_too(guarded: Server) -> None:
    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    await guarded.app({"type": "websocket", "path": "/v1/realtime", "headers": []}, never_received, send)
    assert [(message["type"], message["code"]) for message in sent] == [("websocket.close", 1008)]


async def never_received() -> Any:
    raise AssertionError("nothing is read")


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


# --- limits of a body (L4) --------------------------------------------------------------------------------------------------------


async def test_a_request_for_an_unknown_model_counts_too(server: Server, sidecar: FakeAdmission) -> None:
    """Some routes put another model in later, so what the body says is no reason to let it pass."""
    await server.post({"model": "gpt-9", "prompt": "hi"}, "/invocations")
    assert len(sidecar.requests) == 1


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
    "headers", [{}, {"content-length": "9", "transfer-encoding": "chunked"}], ids=["said before", "found while reading"]
)
async def test_a_body_over_the_limit_is_refused(tmp_path: Path, sidecar: FakeAdmission, headers: dict[str, str]) -> None:
    async with serving(tmp_path, limits=BodyLimits(max_bytes=20)) as server:
        exchange = await server.post(chat(), headers=headers)
        assert (exchange.status, exchange.response_headers["connection"]) == (413, "close")
        assert "20 bytes" in exchange.json()["error"]["message"]
        assert (server.bodies, sidecar.requests) == ([], [])
        assert server.metric("http_requests_total", **{"class": "default", "outcome": "body_too_large"}) == 1


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/a/route/of/tomorrow"])
async def test_json_that_is_all_brackets_is_refused_before_anybody_parses_it(server: Server, sidecar: FakeAdmission, path: str) -> None:
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


async def test_what_vllm_refuses_stops_counting_at_once(tmp_path: Path, sidecar: FakeAdmission) -> None:
    """L1: ten requests that vLLM refuses do not lock the others out."""
    async with serving(tmp_path, max_pending=2) as server:
        refused = [(await server.post(chat(refused=True))).status for _ in range(10)]
        assert refused == [400] * 10
        assert (await server.post(chat())).status == 200
        admitted = [request.job_id for request in sidecar.requests if not request.withdrawn]
        await eventually(lambda: [r.job_id for r in sidecar.requests if r.withdrawn] == admitted[:10], "the sidecar was told")
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


# --- the prefix cache (L7) ----------------------------------------------------------------------------------------------------------


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
                while server.seen().priority == 0:
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
    assert server.metric("http_requests_total", **{"class": "default", "outcome": label}) == 1
    assert exchange.response_headers["x-alise-outcome"] == label


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

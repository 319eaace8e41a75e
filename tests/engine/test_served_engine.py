"""The API half on a real engine: `alise-engine serve` on the tiny model, the `openai` client, a sidecar of the test's own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from alise_contract.names import CONTRACT_VERSION, pack_priority
from alise_contract.v1 import admission_pb2
from alise_contract.v1 import engine_control_pb2 as pb
from alise_engine.api.routes import Route, route_of
from alise_engine.serve import tiny_model
from tests.engine.api_fakes import FakeAdmission, admission_server, admit, eventually, reject
from tests.engine.served import API_KEY, MAX_MODEL_LEN, Observer, ServedEngine, serving
from tests.engine.served_streams import ENDLESS, ENDURING_TOKENS, MESSAGES, SLOTS, displaced, one_slot_taken, stream

pytestmark = pytest.mark.engine

ALIAS = "gpt-3.5-turbo"
# Tokens; a request that comes and goes between two polls is reported by its ending alone. Polls are up to half a second apart while a slot
# is free, and a twentieth of that while none is: see `one_slot_taken`.
LONG_ENOUGH = 100


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedEngine]:
    model = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model.write_model(model)
    flags = ["--served-model-name", "tiny", ALIAS, "--max-model-len", str(MAX_MODEL_LEN), "--max-num-seqs", str(SLOTS)]
    # Background responses want the store of responses; the route of token ids its flag.
    flags += ["--dtype", "float32", "--enable-scale-out", "--enable-prompt-tokens-details"]
    environment = {"VLLM_ENABLE_RESPONSES_API_STORE": "1", "ALISE_TRUST_HEADERS": "true", "ALISE_ISOLATE_PREFIX_CACHE": "true"}
    with serving(model, *flags, "--api-key", API_KEY, "--alise-host-memory", "256Mi", "--alise-kv-codec", "none", **environment) as engine:
        yield engine


@pytest.fixture
async def sidecar(engine: ServedEngine) -> AsyncIterator[FakeAdmission]:
    async with admission_server(engine.admission_socket) as sidecar:
        # The breaker may be open after tests without a sidecar; one answered request closes it.
        async with engine.openai() as client:
            async with asyncio.timeout(20):
                while not sidecar.requests:
                    await client.completions.create(model="tiny", prompt="a", max_tokens=1)
                    await asyncio.sleep(0.1)
        sidecar.requests.clear()
        yield sidecar


@pytest.fixture
async def observer(engine: ServedEngine) -> AsyncIterator[Observer]:
    async with engine.channel() as channel:
        observer = Observer(channel)
        following = asyncio.create_task(observer.follow())
        await eventually(lambda: bool(observer.session_id), "the snapshot")
        yield observer
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following


@pytest.fixture
async def client(engine: ServedEngine) -> AsyncIterator[openai.AsyncOpenAI]:
    async with engine.openai() as client:
        yield client


# --- without a sidecar ------------------------------------------------------------------------------------------------------------


async def test_without_a_sidecar_an_answer_streams_and_the_failing_open_is_counted(
    engine: ServedEngine, client: openai.AsyncOpenAI
) -> None:
    before = (await engine.status())["admission"]
    chunks = [chunk async for chunk in await stream(client, max_tokens=12, stream_options={"include_usage": True})]
    after = (await engine.status())["admission"]
    # By tokens, not by chunks: tokens that are ready together are sent in one.
    assert len(chunks) > 2
    assert chunks[-1].usage.completion_tokens == 12
    assert int(after["failed_open"]) == int(before["failed_open"]) + 1
    assert await engine.metric('alise_engine_admissions_total{outcome="failed_open"}') == int(after["failed_open"])


async def test_the_status_route_needs_no_api_key_and_knows_the_engine(engine: ServedEngine) -> None:
    report = await engine.status()
    assert report["contract_version"] == CONTRACT_VERSION
    # Cut into slabs, of which one per codec may be partly empty.
    assert 0.95 * 256 * 2**20 < int(report["host_memory"]["limit_bytes"]) <= 256 * 2**20
    assert report["vllm_version"].startswith("0.32.0")
    assert int(report["kv"]["limit_tokens"]) > int(report["kv"]["used_tokens"])
    assert report["kv"]["bits"] in (16, 32)


async def test_the_engines_metrics_are_on_vllms_own_route(engine: ServedEngine, client: openai.AsyncOpenAI) -> None:
    await client.completions.create(model="tiny", prompt="a", max_tokens=3)
    # They come with the next poll.
    async with asyncio.timeout(20):
        while not await engine.metric("alise_engine_steps_total"):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert await engine.metric("alise_engine_computed_tokens_total") > 0
    assert await engine.metric("alise_engine_kv_full_seconds_total") == 0
    assert 0.95 * 256 * 2**20 < await engine.metric("alise_engine_host_limit_bytes") <= 256 * 2**20
    async with engine.http() as http:
        assert "vllm:num_requests_running" in (await http.get("/metrics")).text


async def test_the_status_command_prints_the_report(engine: ServedEngine) -> None:
    done = await asyncio.to_thread(engine.command, "status")
    assert json.loads(done.stdout)["boot_id"] == (await engine.status())["boot_id"]


async def test_a_second_engine_is_not_needed_to_see_that_a_flag_conflicts(engine: ServedEngine) -> None:
    done = await asyncio.to_thread(engine.command, "serve", "tiny", "--scheduler_cls", "x.Y")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        2,
        "alise-engine: --scheduler-cls is set by alise-engine (got 'x.Y')",
    )


PASSED_THROUGH = [
    pytest.param(b'{"model": ', 400, "json_invalid", id="malformed JSON"),
    pytest.param({"model": "gpt-9", "messages": MESSAGES}, 404, "The model `gpt-9` does not exist", id="an unknown model"),
    pytest.param({"model": "tiny", "messages": "hello"}, 400, "valid list", id="messages of the wrong type"),
    pytest.param(
        {"model": "tiny", "messages": [{"role": "user", "content": "x" * 5_000}]}, 400, "maximum context length", id="a prompt too long"
    ),
]


@pytest.mark.parametrize(("body", "status", "message"), PASSED_THROUGH)
async def test_vllms_own_4xx_passes_through(engine: ServedEngine, body: Any, status: int, message: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with engine.http() as http:
        response = await http.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    assert response.status_code == status
    assert message in response.json()["error"]["message"]


# --- with one ---------------------------------------------------------------------------------------------------------------------


async def test_without_the_api_key_nobody_reaches_the_sidecar(engine: ServedEngine, sidecar: FakeAdmission) -> None:
    async with engine.http(api_key="wrong") as http:
        response = await http.post("/v1/chat/completions", json={"model": "tiny", "messages": MESSAGES})
    assert (response.status_code, sidecar.requests) == (401, [])


ENDPOINTS = [
    pytest.param("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": LONG_ENOUGH, **ENDLESS}, id="chat completions"),
    pytest.param("/v1/completions", {"prompt": "hello", "max_tokens": LONG_ENOUGH, **ENDLESS}, id="completions"),
    pytest.param("/v1/responses", {"input": "hello", "max_output_tokens": LONG_ENOUGH, **ENDLESS}, id="responses"),
    pytest.param("/v1/messages", {"messages": MESSAGES, "max_tokens": LONG_ENOUGH, **ENDLESS}, id="Anthropic's messages (A18)"),
    pytest.param("/v1/chat/completions/batch", {"messages": [MESSAGES], "max_tokens": LONG_ENOUGH, **ENDLESS}, id="a batch of chats (R4)"),
    pytest.param("/invocations", {"messages": MESSAGES, "max_tokens": LONG_ENOUGH, **ENDLESS}, id="SageMaker's route (R4)"),
    pytest.param("/inference/v1/generate", {"token_ids": [72, 105], "sampling_params": ENDLESS | {"max_tokens": LONG_ENOUGH}}, id="tokens"),
]
FORGED: dict[str, Any] = {"priority": -99, "vllm_xargs": {"alise_job": "mine", "alise_hint": "bWluZQ==", "alise_stamp": "-99.00"}}


@pytest.mark.parametrize(("path", "body"), ENDPOINTS)
async def test_the_stamped_priority_and_hint_are_the_engine_requests(
    engine: ServedEngine, client: openai.AsyncOpenAI, sidecar: FakeAdmission, observer: Observer, path: str, body: dict[str, Any]
) -> None:
    sidecar.answer = admit(pack_priority(-7, 42), b"hint")
    # Without a fresh plan all requests are equal.
    async with one_slot_taken(client, sidecar, observer), observer.planning(), engine.http() as http:
        # A request of the test before may be in the first report.
        before = set(observer.rows)
        # An answer that ends between two polls of EngineCore shows no row; vLLM's Anthropic route has no way to ask for an endless one.
        for _ in range(20):
            response = await http.post(path, json={"model": "tiny", **FORGED, **body}, headers={"X-Vllm-Priority": "-99"})
            assert response.status_code == 200, response.text
            job = sidecar.requests[-1].job_id
            await eventually(lambda job=job: job in observer.finished, "the job's ending")  # type: ignore[misc]
            if job in observer.rows:
                break
    row = observer.rows[job][0]
    assert (row.priority, row.hint) == (pack_priority(-7, 42), b"hint")
    assert observer.rows.keys() - before == {job}
    assert (response.headers["x-alise-class"], response.headers["x-alise-outcome"] in ("admitted", "neutral")) == ("default", True)


async def test_every_name_of_the_model_is_listed_answered_and_ranked(
    sidecar: FakeAdmission, observer: Observer, client: openai.AsyncOpenAI
) -> None:
    assert [model.id async for model in client.models.list()] == ["tiny", ALIAS]
    sidecar.answer = admit(pack_priority(-7, 42), b"hint")
    async with one_slot_taken(client, sidecar, observer), observer.planning():
        answer = await client.completions.create(model=ALIAS, prompt="hello", max_tokens=5 * LONG_ENOUGH, extra_body=ENDLESS)
    asked = sidecar.requests[-1]
    await eventually(lambda: asked.job_id in observer.finished, "the job's ending")
    assert (answer.model, asked.model, observer.rows[asked.job_id][0].priority) == ("tiny", "tiny", pack_priority(-7, 42))


async def test_a_background_response_keeps_its_rank_after_its_http_request_has_ended(
    engine: ServedEngine, sidecar: FakeAdmission, observer: Observer
) -> None:
    sidecar.answer = admit(pack_priority(-7, 42), b"hint")
    body = {"model": "tiny", "input": "hello", "max_output_tokens": LONG_ENOUGH, "background": True, "store": True, **ENDLESS, **FORGED}
    # EngineCore is polled soon after the last HTTP request has ended, which is at once.
    async with observer.planning(), engine.http() as http:
        response = await http.post("/v1/responses", json=body)
        assert response.status_code == 200, response.text
        job = sidecar.requests[-1].job_id
        await eventually(lambda: job in observer.finished, "the job's ending")
    assert observer.rows[job][0].priority == pack_priority(-7, 42)


# Every POST route of vLLM 0.32 on this engine that puts work into it. A route that a later version adds must be looked at: is it described,
# counted, or in `routes.NOT_GENERATING`?
GENERATING = {
    "/v1/chat/completions",
    "/v1/chat/completions/batch",
    "/v1/completions",
    "/v1/responses",
    "/v1/messages",
    "/invocations",
    "/inference/v1/generate",
    "/generative_scoring",
    "/v1/systemone",
}


async def test_every_route_that_puts_work_into_the_engine_is_known(engine: ServedEngine) -> None:
    async with engine.http() as http:
        paths = (await http.get("/openapi.json")).raise_for_status().json()["paths"]
    posts = [path.replace("{response_id}", "resp_1") for path, methods in paths.items() if "post" in methods]
    assert {path for path in posts if route_of("POST", path) is Route.GENERATES} == GENERATING


@pytest.mark.parametrize("path", ["/invocations", "/tokenize", "/v1/models", "/version"])
async def test_what_vllms_own_api_key_leaves_open_is_guarded_too(engine: ServedEngine, path: str) -> None:
    """R5."""
    async with engine.http(api_key=None) as http:
        without = await http.request("GET" if path in ("/v1/models", "/version") else "POST", path, json={"model": "tiny", "prompt": "a"})
    async with engine.http() as http:
        with_key = await http.request("GET" if path in ("/v1/models", "/version") else "POST", path, json={"model": "tiny", "prompt": "a"})
    assert (without.status_code, with_key.status_code) == (401, 200)


async def test_a_large_body_is_described_too(engine: ServedEngine, sidecar: FakeAdmission) -> None:
    """It is parsed in a process of its own, which the engine's API server starts."""
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 3, "metadata": {"x": "y" * (300 * 1024)}}
    async with engine.http() as http:
        response = await http.post("/v1/chat/completions", json=body)
    assert (response.status_code, sidecar.requests[0].max_tokens) == (200, 3)


async def test_a_tenant_does_not_see_which_prefixes_another_one_has_cached(engine: ServedEngine) -> None:
    """L7: the engine says how much of a prompt was cached; the time to the first token says it, too."""

    async def cached(tenant: str) -> int:
        body = {"model": "tiny", "prompt": "a long prompt " * 40, "max_tokens": 1}
        async with engine.http() as http:
            response = await http.post("/v1/completions", json=body, headers={"x-llm-d-inference-fairness-id": tenant})
        return int(response.raise_for_status().json()["usage"]["prompt_tokens_details"]["cached_tokens"])

    seen = [await cached(tenant) for tenant in ("one", "one", "another", "another")]
    assert [tokens > 0 for tokens in seen] == [False, True, False, True]


async def test_requests_that_vllm_refuses_do_not_count_as_waiting(engine: ServedEngine, sidecar: FakeAdmission) -> None:
    """L1."""
    async with engine.http() as http:
        for _ in range(10):
            assert (await http.post("/v1/completions", json={"model": "tiny", "prompt": [""]})).status_code == 400
    await eventually(lambda: sum(request.withdrawn for request in sidecar.requests) == 10, "the sidecar was told")
    assert await engine.metric("alise_engine_pending_requests") == 0


async def test_a_watch_shows_a_requests_phases_and_its_end(client: openai.AsyncOpenAI, sidecar: FakeAdmission, observer: Observer) -> None:
    # Both slots are taken, so that the third has to wait.
    holding = [await stream(client) for _ in range(SLOTS)]
    for each in holding:
        await anext(each)
    third = asyncio.create_task(stream(client, max_tokens=5))
    await eventually(lambda: len(sidecar.requests) == SLOTS + 1, "the third was admitted")
    job = sidecar.requests[-1].job_id
    await eventually(lambda: observer.phases(job) == [pb.PHASE_WAITING], "the third waits")
    for each in holding:
        await each.close()
    async for _ in await third:
        pass
    jobs = {request.job_id for request in sidecar.requests}
    await eventually(lambda: jobs <= observer.finished.keys(), "all three ended")
    assert observer.finished[job].reason == pb.FINISH_REASON_LENGTH
    assert observer.finished[job].ttft_ms > 0
    assert [observer.finished[request.job_id].reason for request in sidecar.requests[:SLOTS]] == [pb.FINISH_REASON_ABORT] * SLOTS


async def test_cancelling_a_stream_ends_it_in_the_engine_within_a_second(
    client: openai.AsyncOpenAI, sidecar: FakeAdmission, observer: Observer
) -> None:
    answer = await stream(client)
    await anext(answer)
    job = sidecar.requests[0].job_id
    await answer.close()
    await eventually(lambda: job in observer.finished, "the request ended in the engine", within_seconds=1.0)
    assert observer.finished[job].reason == pb.FINISH_REASON_ABORT


async def test_a_plan_of_the_sidecar_is_carried_out(
    engine: ServedEngine, client: openai.AsyncOpenAI, sidecar: FakeAdmission, observer: Observer
) -> None:
    """Preempted by rank, its KV goes to the host; when there is a slot again it goes on and ends whole."""
    answer = await stream(client, max_tokens=ENDURING_TOKENS)
    await anext(answer)
    job = sidecar.requests[0].job_id
    async with displaced(client, observer, job):
        fresh = (await engine.status())["sidecar"]["plan_fresh"]
    chunks = [chunk async for chunk in answer]
    assert fresh is True
    assert chunks[-1].choices[0].finish_reason == "length"
    await eventually(lambda: job in observer.finished, "the job's ending")
    assert (observer.finished[job].generated_tokens, observer.finished[job].preemptions) == (ENDURING_TOKENS, 1)
    assert await engine.metric('alise_engine_preemptions_total{cause="rank"}') == 1
    assert await engine.metric("alise_engine_exact_resumes_total") == 1
    assert await engine.metric("alise_engine_save_seconds_total") > 0
    assert await engine.metric("alise_engine_restore_seconds_total") > 0


async def test_a_rejection_reaches_the_client_as_openais_error(client: openai.AsyncOpenAI, sidecar: FakeAdmission) -> None:
    sidecar.answer = reject(admission_pb2.Rejected.REASON_WAIT_TOO_LONG, "the wait would be 90 s", retry_after_seconds=9)
    with pytest.raises(openai.RateLimitError, match="the wait would be 90 s") as caught:
        await client.chat.completions.create(model="tiny", messages=MESSAGES)
    assert caught.value.response.headers["retry-after"] == "9"


# --- the end of the engine: last, in this order -----------------------------------------------------------------------------------


async def test_a_drain_cuts_no_stream_and_refuses_new_work(engine: ServedEngine, client: openai.AsyncOpenAI, observer: Observer) -> None:
    """The stream is preempted when the drain begins, and ends whole."""
    answer = await stream(client, max_tokens=ENDURING_TOKENS)
    received = [await anext(answer)]
    await eventually(lambda: bool(observer.rows.keys() - observer.finished.keys()), "the stream's job")
    [job] = observer.rows.keys() - observer.finished.keys()
    async with displaced(client, observer, job):
        request = pb.DrainRequest(contract_version=CONTRACT_VERSION, accept_seconds=0, timeout_seconds=60)
        drain = observer.stub.Drain(request, timeout=90)
        await eventually(lambda: observer.draining, "new work is refused")
        async with engine.http() as http:
            refused = await http.post("/v1/chat/completions", json={"model": "tiny", "messages": MESSAGES})
        during = (drain.done(), (await engine.status())["draining"])
    received += [chunk async for chunk in answer]
    assert (refused.status_code, refused.headers["retry-after"], refused.headers["connection"]) == (503, "1", "close")
    assert during == (False, True)
    assert received[-1].choices[0].finish_reason == "length"
    assert (await drain).finished is True


def test_the_drain_command_returns_when_nothing_is_open(engine: ServedEngine) -> None:
    done = engine.command("drain", "--accept-seconds", "0", "--timeout-seconds", "50")
    assert (done.returncode, done.stdout[:7]) == (0, "drained")


def test_a_server_that_is_told_to_end_exits_with_0_and_its_control_socket_vanishes(engine: ServedEngine) -> None:
    engine.process.terminate()
    assert engine.process.wait(60) == 0
    assert "EngineCore has ended" not in engine.log.read_text(errors="replace")
    assert not (engine.socket_dir / "control.sock").exists()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{engine.url}/health", timeout=2)


def test_a_drain_without_an_engine_has_nothing_to_do(engine: ServedEngine, tmp_path: Path) -> None:
    done = engine.command("drain", "--alise-socket-dir", str(tmp_path))
    assert (done.returncode, "nothing to drain" in done.stdout) == (0, True)

"""Traces of a real engine: `alise-engine serve` on the tiny model, a real collector over OTLP, a sidecar of the test's own."""

import asyncio
import contextlib
import itertools
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from alise_contract.names import pack_priority
from alise_contract.v1 import admission_pb2
from alise_contract.v1 import engine_control_pb2 as pb
from alise_engine.serve import tiny_model
from tests.engine.api_fakes import FakeAdmission, admission_server, eventually
from tests.engine.otlp_collector import Collector, attributes, collecting
from tests.engine.served import HTTP_SECONDS, Observer, ServedEngine, held_port, serving

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"
SECRET = "xylophone"
# Longer than the batches and the settling of an export on a busy machine.
EXPORTED_SECONDS = 30.0
# Still running when a plan arrives, on a busy machine too.
ENDURING_TOKENS = 1200


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of the collector, which is there in some tests only."""
    with held_port() as port:
        yield port


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[ServedEngine]:
    """With one slot, so that two requests compete."""
    model = tiny_model.write_model(tmp_path_factory.mktemp("models") / "tiny")
    flags = ["--served-model-name", "tiny", "--max-model-len", "2048", "--max-num-seqs", "1", "--dtype", "float32"]
    flags += ["--alise-host-memory", "256Mi", "--alise-kv-codec", "none", "--otlp-traces-endpoint", f"http://127.0.0.1:{port}"]
    # A trace is exported at once, and only those that clients ask for are.
    environment = {"OTEL_BSP_SCHEDULE_DELAY": "100", "ALISE_TRACES_RATIO": "0", "OTEL_SERVICE_NAME": "qwen"}
    with serving(model, *flags, **environment) as engine:
        yield engine


@pytest.fixture
async def collector(port: int) -> AsyncIterator[Collector]:
    async with collecting(port) as collector:
        yield collector


@pytest.fixture
async def sidecar(engine: ServedEngine) -> AsyncIterator[FakeAdmission]:
    async def predict(_: admission_pb2.AdmitRequest) -> admission_pb2.AdmitResponse:
        prediction = admission_pb2.Prediction(median_tokens=321.0, encode_us=900, decide_us=100)
        return admission_pb2.AdmitResponse(admitted=admission_pb2.Admitted(priority=pack_priority(2, 0), prediction=prediction))

    async with admission_server(engine.admission_socket) as sidecar:
        sidecar.answer = predict
        async with engine.http() as http, asyncio.timeout(20):
            # The breaker may be open after tests without a sidecar; one answered request closes it.
            while not sidecar.requests:
                await http.post("/v1/completions", json={"model": "tiny", "prompt": "a", "max_tokens": 1})
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


def asked_for(flags: str = "01") -> tuple[str, dict[str, str]]:
    """A trace id of a client's, and the headers with which it asks for the trace."""
    trace_id = secrets.token_hex(16)
    return trace_id, {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-{flags}", "x-request-id": f"client-{trace_id[:8]}"}


async def chat(engine: ServedEngine, max_tokens: int, headers: dict[str, str] | None = None, **more: Any) -> int:
    body = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}], "max_tokens": max_tokens, "ignore_eos": True, **more}
    async with engine.http() as http:
        return (await http.post(CHAT, json=body, headers=headers, timeout=HTTP_SECONDS * 2)).status_code


async def preempted_and_restored(engine: ServedEngine, observer: Observer) -> str:
    """A request gives its slot to a better-ranked one, and goes on later. Returns its trace id."""
    before = set(observer.rows)
    trace_id, headers = asked_for()
    first = asyncio.create_task(chat(engine, ENDURING_TOKENS, headers))
    await eventually(lambda: len(observer.rows.keys() - before) == 1, "the first job")
    [job] = observer.rows.keys() - before
    second = asyncio.create_task(chat(engine, 300))
    await eventually(lambda: len(observer.rows.keys() - before) == 2, "the second job")
    [better] = observer.rows.keys() - before - {job}
    async with observer.planning(pb.Rank(job_id=job, level=100), pb.Rank(job_id=better, level=-100)):
        assert (await second, await first) == (200, 200)
    return trace_id


async def test_a_request_that_is_preempted_and_restored_is_one_trace_from_client_to_engine(
    engine: ServedEngine, collector: Collector, sidecar: FakeAdmission, observer: Observer
) -> None:
    # Preempted when its last block was full, it needs nothing from the host: the device still has its blocks. Then it is tried again.
    for _ in range(5):
        trace_id = await preempted_and_restored(engine, observer)
        await eventually(lambda wanted=trace_id: len(collector.of(wanted)) == 3, "the three spans", EXPORTED_SECONDS)  # type: ignore[misc]
        [ours] = collector.of(trace_id, "chat tiny")
        # What happened, in order; it may have been on its way back before its turn.
        names = [event.name for event in ours.events if event.name != "restoring"]
        if "resumed" not in names:
            break
    [admit], [vllms] = collector.of(trace_id, "admit"), collector.of(trace_id, "llm_request")
    # The client's context is the parent of our span, and ours of the others.
    assert (admit.parent_span_id, vllms.parent_span_id) == (ours.span_id, ours.span_id)
    assert names == ["queued", "admitted", "started", "first token", "preempted", "parked", "restored", "ended"]
    assert all(one.time_unix_nano <= other.time_unix_nano for one, other in itertools.pairwise(ours.events))
    assert ours.start_time_unix_nano <= ours.events[0].time_unix_nano
    assert ours.events[-1].time_unix_nano <= ours.end_time_unix_nano
    events = {event.name: attributes(event) for event in ours.events}
    assert events["admitted"] == {"alise.level": 2, "alise.predicted_tokens": 321}
    assert events["preempted"]["alise.cause"] == "rank"
    assert events["restored"]["alise.tokens"] > 0
    said = attributes(ours)
    assert (said["gen_ai.request.model"], said["gen_ai.usage.output_tokens"], said["alise.preemptions"]) == ("tiny", ENDURING_TOKENS, 1)
    assert said["alise.request_id"] == f"client-{trace_id[:8]}"
    assert collector.resources[-1]["service.name"] == "qwen"
    assert SECRET not in str(collector.spans)


async def test_samples_of_a_request_are_in_its_trace(engine: ServedEngine, collector: Collector, sidecar: FakeAdmission) -> None:
    # As of a trace that began in the API server: sampled, with a random id.
    trace_id, headers = asked_for("03")
    assert await chat(engine, 20, headers, n=2, temperature=1.0) == 200
    await eventually(lambda: len(collector.of(trace_id)) == 4, "ours, the admission's and one for each sample", EXPORTED_SECONDS)
    [ours] = collector.of(trace_id, "chat tiny")
    assert {span.parent_span_id for span in collector.of(trace_id, "llm_request")} == {ours.span_id}
    assert attributes(ours)["gen_ai.usage.output_tokens"] == 40
    assert [event.name for event in ours.events].count("ended") == 2


async def test_requests_that_are_not_sampled_leave_no_span_of_vllms_either(
    engine: ServedEngine, collector: Collector, sidecar: FakeAdmission
) -> None:
    unsampled = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"}
    assert [await chat(engine, 5), await chat(engine, 5, unsampled)] == [200, 200]
    trace_id, headers = asked_for()
    assert await chat(engine, 5, headers) == 200
    await eventually(lambda: len(collector.of(trace_id)) == 3, "the spans of the request that is sampled", EXPORTED_SECONDS)
    assert {span.trace_id.hex() for span in collector.spans} == {trace_id}


async def test_without_a_collector_requests_are_served_and_traces_begin_once_there_is_one(
    engine: ServedEngine, port: int, sidecar: FakeAdmission
) -> None:
    statuses = [await chat(engine, 5, asked_for()[1]) for _ in range(5)]
    assert statuses == [200] * 5
    async with collecting(port) as collector:
        trace_id, headers = asked_for()
        assert await chat(engine, 5, headers) == 200
        await eventually(lambda: bool(collector.of(trace_id, "llm_request")), "the spans", EXPORTED_SECONDS)


async def test_a_collector_that_never_answers_costs_no_request_and_does_not_hold_up_the_end_of_the_engine(
    engine: ServedEngine, port: int, sidecar: FakeAdmission
) -> None:
    """Last: the engine ends."""
    with socket.create_server(("127.0.0.1", port)):
        statuses = [await chat(engine, 5, asked_for()[1]) for _ in range(5)]
        assert statuses == [200] * 5
        engine.process.send_signal(signal.SIGTERM)
        # Less than a pod has after its drain.
        assert await asyncio.to_thread(engine.process.wait, 30) == 0

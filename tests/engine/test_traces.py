"""Traces of requests through the middleware, with the real SDK of OpenTelemetry and its exporter to memory.

The real exporter, collector and engine are in test_served_traces.py.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from alise_contract.v1 import admission_pb2
from alise_engine.api.traces import tracer as tracing
from alise_engine.compat import request_access
from alise_engine.wire.calls import Mark
from tests.engine.api_fakes import FakeAdmission, eventually, make_finished, make_row, reject
from tests.engine.middleware_server import Server, chat, serving

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "tracestate": "vendor=1"}
UNSAMPLED = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-00"}


class Spans:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = provider.get_tracer("tests")

    def __call__(self, name: str = "chat tiny") -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    async def only(self, name: str = "chat tiny") -> Any:
        await eventually(lambda: bool(self(name)), f"the span {name}")
        [span] = self(name)
        return span


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def answered(server: Server, sidecar: FakeAdmission, *marks: Mark, **headers: str) -> Any:
    """A chat that the engine answers at once."""
    server.may_answer.clear()
    asking = asyncio.create_task(server.post(chat(), headers=headers))
    await eventually(lambda: bool(server.engine), "the request is in the engine")
    stamp = server.seen().stamp
    assert stamp is not None
    server.core.put(make_row(job_id=stamp.job_id, phase="running"))
    await eventually(lambda: server.metric("requests", phase="running") == 1, "the poll has it")
    server.core.end(make_finished(job_id=stamp.job_id), *marks)
    server.may_answer.set()
    return await asking


async def test_the_clients_trace_goes_on_through_us_into_the_engine(spans: Spans, sidecar: FakeAdmission, tmp_path: Path) -> None:
    async with serving(tmp_path, tracer=spans.tracer) as server:
        await answered(server, sidecar, Mark("running", time.monotonic_ns() // 1000), **SAMPLED)
        span = await spans.only()
        inside = server.seen().trace_headers
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE_ID, PARENT_ID)
    assert inside == {"traceparent": f"00-{TRACE_ID}-{span.context.span_id:016x}-01", "tracestate": "vendor=1"}
    [admit] = spans("admit")
    assert admit.parent is not None
    assert admit.parent.span_id == span.context.span_id


async def test_a_span_has_the_events_of_the_request_at_their_times(spans: Spans, sidecar: FakeAdmission, tmp_path: Path) -> None:
    async with serving(tmp_path, tracer=spans.tracer) as server:
        began = time.time_ns()
        now_us = time.monotonic_ns() // 1000
        await answered(server, sidecar, Mark("running", now_us + 60_000_000), Mark("ended", now_us + 61_000_000))
        span = await spans.only()
    assert [event.name for event in span.events] == ["queued", "admitted", "started", "ended"]
    assert 59 < (span.events[2].timestamp - began) / 1e9 < 61
    assert span.end_time == span.events[3].timestamp


async def test_the_sidecar_is_asked_for_its_prediction_only_if_the_request_is_traced(
    spans: Spans, sidecar: FakeAdmission, tmp_path: Path
) -> None:
    async def predict(_: admission_pb2.AdmitRequest) -> admission_pb2.AdmitResponse:
        prediction = admission_pb2.Prediction(median_tokens=42.0, encode_us=1500, decide_us=250)
        return admission_pb2.AdmitResponse(admitted=admission_pb2.Admitted(prediction=prediction))

    sidecar.answer = predict
    async with serving(tmp_path, tracer=spans.tracer) as server:
        await answered(server, sidecar)
        span = await spans.only()
        await server.post(chat(), headers=UNSAMPLED)
    assert span.attributes["alise.predicted_tokens"] == 42
    assert (await spans.only("admit")).attributes["alise.encode_seconds"] == 0.0015
    assert [request.traced for request in sidecar.requests] == [True, False]


async def test_a_request_that_is_not_traced_hands_the_engine_a_context_that_is_not_sampled(
    spans: Spans, sidecar: FakeAdmission, tmp_path: Path
) -> None:
    async with serving(tmp_path, tracer=spans.tracer, traces_ratio=0.0) as server:
        await server.post(chat())
        await server.post(chat(), headers=UNSAMPLED)
        contexts = [request.trace_headers for request in server.engine]
    assert contexts == [tracing.NOT_TRACED, tracing.NOT_TRACED]
    assert spans.exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("headers", "traced"),
    [
        pytest.param({}, True, id="a trace that begins here"),
        pytest.param(SAMPLED, True, id="the client's trace"),
        pytest.param({"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-03"}, True, id="the client's trace, whose id is random"),
        pytest.param(UNSAMPLED, False, id="not sampled"),
        pytest.param({"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-02"}, False, id="not sampled, with a random id"),
    ],
)
async def test_the_engine_notes_what_happens_to_the_requests_that_are_traced(
    spans: Spans, sidecar: FakeAdmission, tmp_path: Path, headers: dict[str, str], traced: bool
) -> None:
    async with serving(tmp_path, tracer=spans.tracer) as server:
        await server.post(chat(), headers=headers)
        assert request_access.is_traced(server.seen()) is traced


async def test_without_traces_a_clients_context_is_left_alone(server: Server, sidecar: FakeAdmission) -> None:
    await server.post(chat(), headers=SAMPLED)
    assert server.seen().trace_headers is None
    assert [request.traced for request in sidecar.requests] == [False]


async def test_a_refused_request_has_a_trace_that_says_so(spans: Spans, sidecar: FakeAdmission, tmp_path: Path) -> None:
    sidecar.answer = reject(admission_pb2.Rejected.REASON_WAIT_TOO_LONG)
    async with serving(tmp_path, tracer=spans.tracer) as server:
        await server.post(chat())
    span = await spans.only()
    assert [event.name for event in span.events] == ["queued", "rejected"]
    assert (span.attributes["http.response.status_code"], span.status.status_code) == (429, StatusCode.UNSET)


async def test_a_client_without_a_key_begins_no_trace(spans: Spans, sidecar: FakeAdmission, tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "team").write_text("key")
    async with serving(tmp_path, tracer=spans.tracer, auth_dir=tmp_path / "keys") as server:
        exchange = await server.post(chat(), headers=SAMPLED)
    assert exchange.status == 401
    assert spans.exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"traceparent": "x" * 10_000}, id="no context"),
        pytest.param({"traceparent": f"00-{'0' * 32}-{PARENT_ID}-01"}, id="a trace id of zeros"),
        pytest.param({"traceparent": f"ff-{TRACE_ID}-{PARENT_ID}-01"}, id="a version that W3C forbids"),
        pytest.param({"traceparent": "", "tracestate": "a=b"}, id="state without a context"),
    ],
)
async def test_a_context_that_cannot_be_read_begins_a_new_trace(
    spans: Spans, sidecar: FakeAdmission, tmp_path: Path, headers: dict[str, str]
) -> None:
    async with serving(tmp_path, tracer=spans.tracer) as server:
        await answered(server, sidecar, **headers)
        span = await spans.only()
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE_ID


async def test_spans_that_the_engine_says_nothing_about_are_ended_with_the_server(
    spans: Spans, sidecar: FakeAdmission, tmp_path: Path
) -> None:
    async with serving(tmp_path, tracer=spans.tracer) as server:
        await server.post(chat())
        assert spans() == []
    assert len(spans()) == 1


async def test_more_requests_than_may_be_open_are_served_without_a_trace(
    spans: Spans, sidecar: FakeAdmission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "MAX_OPEN", 0)
    async with serving(tmp_path, tracer=spans.tracer) as server:
        exchange = await server.post(chat(), headers=SAMPLED)
    assert (exchange.status, spans.exporter.get_finished_spans()) == (200, ())


async def test_a_failure_of_the_tracer_costs_no_request(sidecar: FakeAdmission, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def start_span(self, *args: Any, **more: Any) -> Any:
            raise RuntimeError("no spans")

    async with serving(tmp_path, tracer=Broken()) as server:  # type: ignore[arg-type]
        statuses = [(await server.post(chat())).status for _ in range(2)]
    assert statuses == [200, 200]
    assert [record.message for record in caplog.records if "could not be traced" in record.message] != []

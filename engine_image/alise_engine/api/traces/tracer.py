"""Makes the spans of requests with vLLM's own tracer provider, so that both export in one thread and to one collector.

The span of a request is open from its arrival to the end of its answer, and is ended once the engine has reported what happened to the
request. The provider's queue is bounded: spans that a collector does not take in time are dropped. `record.py` knows what a span says, and
`sampling.py` decides which requests have one. A failure here costs the trace, never the request. `engine_api.py` creates it.
"""

import functools
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ...wire.calls import TraceRow
from ..admission import Ask, Decision
from ..identity import Caller, Headers
from .record import Record, Trace, admission, attributes, end_ns, events, is_error, span_name
from .sampling import Bucket, sampled

logger = logging.getLogger("vllm.alise.traces")

# Spans that are open at a time; requests beyond them are not traced.
MAX_OPEN: Final = 4096
# After the answer: until the engine has reported its end, or is asked again whether it still has the request.
SETTLE_SECONDS: Final = 10.0
# W3C asks to carry at least this much of other vendors' state.
_MAX_STATE_CHARS: Final = 512
_NS: Final = 1_000_000_000
# What the engine is handed for a request that is not traced: without a context vLLM would begin a trace of its own.
NOT_TRACED: Final[Mapping[str, str]] = {"traceparent": f"00-{1:032x}-{1:016x}-00"}

P = ParamSpec("P")
R = TypeVar("R")
Later = Callable[[float, Callable[[], None]], Any]


def _costs_no_request(method: Callable[Concatenate["Traces", P], R]) -> Callable[Concatenate["Traces", P], R | None]:
    """Logs what a method raises, once for all, and returns None."""

    @functools.wraps(method)
    def harmless(traces: "Traces", /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return method(traces, *args, **kwargs)
        except Exception:
            traces.failed()
            return None

    return harmless


class Traces:
    def __init__(
        self, tracer: Tracer, ratio: float, model: str, served: frozenset[str], is_live: Callable[[str], bool], later: Later
    ) -> None:
        """`served` has every name that clients may use for the model; `is_live` returns whether the engine has a request of a job."""
        self._tracer = tracer
        self._ratio = ratio
        self._model = model
        self._served = served
        self._is_live = is_live
        self._later = later
        self._bucket = Bucket()
        self._open: dict[str, tuple[Span, Record]] = {}
        # From the monotonic clock to the time of day.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        self._propagator = TraceContextTextMapPropagator()
        self._has_failed = False

    @_costs_no_request
    def begin(self, job_id: str, client_id: str, path: str, headers: Headers, caller: Caller) -> Trace:
        """Begins the trace of a request, or decides that it has none."""
        now_ns = time.monotonic_ns()
        parent, asked = self._parent(headers)
        wanted, self._bucket = sampled(asked, self._ratio, random.random(), self._bucket, now_ns / _NS)
        if not wanted or len(self._open) >= MAX_OPEN:
            return Trace(NOT_TRACED)
        span = self._tracer.start_span("request", parent, SpanKind.SERVER, start_time=self._epoch_ns + now_ns)
        if not span.is_recording():
            return Trace(NOT_TRACED)
        record = Record(job_id, client_id or job_id, path, caller.klass, caller.tenant, now_ns)
        self._open[job_id] = span, record
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span))
        return Trace(carrier, job_id)

    @_costs_no_request
    def decided(self, ask: Ask, asked_seconds: float, decided_seconds: float, decision: Decision) -> None:
        """Notes what the scheduler answered. Times are of the monotonic clock."""
        if (opened := self._open.get(ask.job_id)) is None:
            return
        span, record = opened
        record.describe(ask.description)
        record.asked_ns, record.decided_ns, record.decision = int(asked_seconds * _NS), int(decided_seconds * _NS), decision
        child = self._tracer.start_span(
            "admit",
            trace.set_span_in_context(span),
            SpanKind.CLIENT,
            admission(record),
            start_time=self._epoch_ns + record.asked_ns,
        )
        child.end(self._epoch_ns + record.decided_ns)

    @_costs_no_request
    def entered(self, job_id: str, engine_requests: int, adapter: str) -> None:
        """Notes how many engine requests were made of a request so far, and the LoRA adapter that serves them; empty: the model."""
        if (opened := self._open.get(job_id)) is not None:
            opened[1].entered, opened[1].adapter = engine_requests, adapter

    @_costs_no_request
    def told(self, stories: Sequence[TraceRow]) -> None:
        """Takes in what EngineCore noted of requests that have ended; `ended` follows."""
        for story in stories:
            if (opened := self._open.get(story.ending.job_id)) is not None:
                opened[1].tell(story)

    @_costs_no_request
    def ended(self, job_ids: Iterable[str]) -> None:
        """Takes in the job of each engine request that has ended."""
        for job_id in job_ids:
            if (opened := self._open.get(job_id)) is not None:
                opened[1].ended += 1
                if opened[1].is_complete:
                    self._end(job_id)

    @_costs_no_request
    def answered(self, job_id: str, outcome: str, status: int) -> None:
        """Notes that the answer to a request is complete, or that its client has gone."""
        if (opened := self._open.get(job_id)) is None:
            return
        record = opened[1]
        record.outcome, record.status, record.answered_ns = outcome, status, time.monotonic_ns()
        if record.is_complete:
            self._end(job_id)
        else:
            self._later(SETTLE_SECONDS, lambda: self._settle(job_id))

    def close(self) -> None:
        """Ends every open span."""
        for job_id in list(self._open):
            self._end(job_id)

    def failed(self) -> None:
        """Logs the exception that is being handled, the first time."""
        if not self._has_failed:
            self._has_failed = True
            logger.exception("a request could not be traced because of a bug in alise; further failures are not logged")

    @_costs_no_request
    def _settle(self, job_id: str) -> None:
        """Ends a span that the engine says nothing about any more, because its last report was lost."""
        if job_id not in self._open:
            return
        if self._is_live(job_id):
            self._later(SETTLE_SECONDS, lambda: self._settle(job_id))
        else:
            self._end(job_id)

    def _parent(self, headers: Headers) -> tuple[Context, bool | None]:
        """Returns the client's trace context and its sampled flag; None for the flag if it sent no context that can be read."""
        if "traceparent" not in headers:
            # Not the current context: vLLM may have a span of its own there.
            return Context(), None
        carrier = {
            name: headers[name] for name in ("traceparent", "tracestate") if len(headers.get(name, "")) in range(1, _MAX_STATE_CHARS)
        }
        context = self._propagator.extract(carrier, Context())
        given = trace.get_current_span(context).get_span_context()
        return context, bool(given.trace_flags.sampled) if given.is_valid else None

    @_costs_no_request
    def _end(self, job_id: str) -> None:
        span, record = self._open.pop(job_id)
        told, dropped = events(record)
        for event in told:
            span.add_event(event.name, event.attributes, self._epoch_ns + event.at_ns)
        span.update_name(span_name(record, self._served))
        span.set_attributes(attributes(record, self._model) | ({"alise.dropped_events": dropped} if dropped else {}))
        if is_error(record):
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._epoch_ns + end_ns(record))

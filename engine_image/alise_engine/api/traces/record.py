"""What is known of one traced request, and the attributes and events that its span gets from it; pure.

Attributes follow OpenTelemetry's conventions for generative AI where they have a name, and begin with `alise.` otherwise. There is no field
for the text of a prompt or an answer, so none can get into a trace. Times are nanoseconds of CLOCK_MONOTONIC. `tracer.py` keeps records.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from alise_contract.describe import Description, Endpoint
from alise_contract.names import DEFAULT_CLASS, owner_of, unpack_priority

from ...wire import terms
from ...wire.calls import Mark, TraceRow
from ..admission import Admitted, Decision, FailedOpen
from ..outcomes import OUTCOMES, Refusal

Value = str | bool | int | float | tuple[str, ...]
Attributes = dict[str, Value]

# A span of OpenTelemetry drops its oldest events beyond 128.
MAX_EVENTS: Final = 120
# Engine requests whose events are kept; a beam search makes thousands.
MAX_STORIES: Final = 64
# Of a text that the client chooses.
MAX_TEXT_CHARS: Final = 256
_OPERATIONS: Final[Mapping[str, str]] = {
    Endpoint.CHAT_COMPLETIONS.value: "chat",
    Endpoint.RESPONSES.value: "chat",
    Endpoint.MESSAGES.value: "chat",
    Endpoint.COMPLETIONS.value: "text_completion",
    "/v1/embeddings": "embeddings",
}
_OTHER_OPERATION: Final = "other"
_REFUSALS: Final = frozenset(one.name for one in OUTCOMES if isinstance(one, Refusal))
# A tenant that is named by a hash of its API key (`identity.caller`). The hash stays out of traces.
_HASHED_KEY: Final = re.compile(r"key-[0-9a-f]{16}")
_NS_PER_US: Final = 1_000


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of one request, for the middleware."""

    # W3C trace context for the engine request.
    headers: Mapping[str, str]
    # Empty: the request is not traced.
    job_id: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    at_ns: int
    attributes: Attributes = field(default_factory=dict)


@dataclass(slots=True)
class Record:
    """One request."""

    job_id: str
    # In the header of its answer: the client's id, else the job's.
    request_id: str
    path: str
    klass: str
    tenant: str
    began_ns: int
    model: str = ""
    # 0: the client set none.
    max_tokens: int = 0
    samples: int = 1
    temperature: float | None = None
    # Of the question to the scheduler; 0: it was not asked.
    asked_ns: int = 0
    decided_ns: int = 0
    decision: Decision | None = None
    # Name of the LoRA adapter that serves it; empty: the model itself.
    adapter: str = ""
    # Engine requests that were made of it, and those that have ended.
    entered: int = 0
    ended: int = 0
    stories: list[TraceRow] = field(default_factory=list)
    # Of the answer to the client. 0: it has none yet, or its connection broke before it.
    outcome: str = ""
    status: int = 0
    answered_ns: int = 0

    def tell(self, story: TraceRow) -> None:
        """Takes in what happened to one engine request."""
        if len(self.stories) >= MAX_STORIES:
            story = TraceRow(story.ending, (), len(story.marks) + story.dropped)
        self.stories.append(story)

    def describe(self, description: Description) -> None:
        """Takes over what the client asked for, without the prompt."""
        self.model, self.max_tokens = description.model[:MAX_TEXT_CHARS], description.max_tokens
        self.samples, self.temperature = description.n, description.temperature

    @property
    def is_complete(self) -> bool:
        """Whether the answer has ended and everything that the engine has to say about it is here."""
        if not self.answered_ns or self.ended < self.entered:
            return False
        # A background response enters the engine after its first answer.
        return self.entered > 0 or self.outcome in _REFUSALS or self.status >= 400


def span_name(record: Record, served: frozenset[str]) -> str:
    """Returns the name of the span. Clients cannot invent names: only a model that is served is a part of it."""
    operation = _operation(record)
    name = record.adapter or (record.model if record.model in served else "")
    return f"{operation} {name}" if name else operation


def is_error(record: Record) -> bool:
    """Returns whether the server failed. A refusal and a client that went away are no failures."""
    return record.status >= 500 or any(story.ending.reason == terms.FINISH_ERROR for story in record.stories)


def end_ns(record: Record) -> int:
    """Returns when the request ended: the answer's end, or that of the engine's work for a background response."""
    return max(record.answered_ns, record.began_ns, *(mark.at_us * _NS_PER_US for mark in _marks(record)), 0)


def attributes(record: Record, model: str) -> Attributes:
    """Returns the attributes of the span. `model` is the name of the model itself in answers."""
    found: Attributes = {
        "gen_ai.operation.name": _operation(record),
        "gen_ai.provider.name": "vllm",
        "url.path": record.path[:MAX_TEXT_CHARS],
        "alise.request_id": record.request_id,
        "alise.job": record.job_id,
        "alise.class": record.klass or DEFAULT_CLASS,
        "alise.outcome": record.outcome,
    }
    tenant = owner_of(record.tenant)
    optional: dict[str, Value | None] = {
        "gen_ai.request.model": record.model or None,
        "gen_ai.request.max_tokens": record.max_tokens or None,
        "gen_ai.request.choice.count": record.samples if record.samples > 1 else None,
        "gen_ai.request.temperature": record.temperature,
        "http.response.status_code": record.status or None,
        "error.type": _error_type(record),
        "alise.tenant": tenant if tenant and not _HASHED_KEY.fullmatch(tenant) else None,
        **_prediction(record),
    }
    found |= {name: value for name, value in optional.items() if value is not None}
    return found | (_usage(record, model) if record.stories else {})


def admission(record: Record) -> Attributes:
    """Returns the attributes of the span of the question to the scheduler."""
    found = _prediction(record)
    match record.decision:
        case Admitted(prediction=prediction) if prediction is not None:
            found |= {"alise.encode_seconds": prediction.encode_seconds, "alise.decide_seconds": prediction.decide_seconds}
        case FailedOpen(reason):
            found |= {"error.type": reason.value}
    return found


def events(record: Record) -> tuple[list[Event], int]:
    """Returns the events of the span in the order of time, and how many more there were."""
    found = list(_before_the_engine(record))
    told = sorted(
        (event for story in record.stories for event in _of_engine(story, len(record.stories) > 1)), key=lambda event: event.at_ns
    )
    # The last one says how the request ended.
    room = MAX_EVENTS - len(found)
    kept = told if len(told) <= room else [*told[: room - 1], told[-1]]
    return found + kept, len(told) - len(kept) + sum(story.dropped for story in record.stories)


def _operation(record: Record) -> str:
    return _OPERATIONS.get(record.path, _OTHER_OPERATION)


def _error_type(record: Record) -> str | None:
    if record.status >= 400:
        return str(record.status)
    return terms.FINISH_ERROR if is_error(record) else None


def _prediction(record: Record) -> Attributes:
    if not isinstance(record.decision, Admitted):
        return {}
    found: Attributes = {"alise.level": unpack_priority(record.decision.priority)[0]}
    if record.decision.prediction is not None:
        found["alise.predicted_tokens"] = round(record.decision.prediction.median_tokens)
    return found


def _usage(record: Record, model: str) -> Attributes:
    endings = [story.ending for story in record.stories]
    found: Attributes = {
        "gen_ai.response.model": record.adapter or model,
        "gen_ai.response.finish_reasons": tuple(ending.reason for ending in endings[:MAX_STORIES]),
        # Samples share their prompt.
        "gen_ai.usage.input_tokens": max(ending.prompt_tokens for ending in endings),
        "gen_ai.usage.output_tokens": sum(ending.generated_tokens for ending in endings),
        "alise.preemptions": sum(ending.preemptions for ending in endings),
        "alise.waited_seconds": max(ending.waited_ms for ending in endings) / 1e3,
        "alise.preempted_seconds": max(ending.preempted_ms for ending in endings) / 1e3,
    }
    if any(ending.ttft_ms for ending in endings):
        found["alise.ttft_seconds"] = max(ending.ttft_ms for ending in endings) / 1e3
    return found


def _before_the_engine(record: Record) -> Iterator[Event]:
    if record.asked_ns:
        yield Event("queued", record.asked_ns)
    match record.decision:
        case Admitted():
            yield Event("admitted", record.decided_ns, _prediction(record))
        case FailedOpen(reason):
            yield Event("failed open", record.decided_ns, {"alise.reason": reason.value})
    if record.outcome in _REFUSALS:
        yield Event("rejected", record.decided_ns or record.answered_ns, {"alise.reason": record.outcome})


def _of_engine(story: TraceRow, is_one_of_several: bool) -> Iterator[Event]:
    """Yields the events of one engine request."""
    whose: Attributes = {"alise.engine_request": story.ending.request_id} if is_one_of_several else {}
    before = terms.PHASE_WAITING
    for mark in story.marks:
        for name, more in _named(mark, before, story):
            yield Event(name, mark.at_us * _NS_PER_US, {**more, **whose})
        if mark.what not in (terms.MARK_FIRST_TOKEN, terms.MARK_ENDED):
            before = mark.what


def _named(mark: Mark, before: str, story: TraceRow) -> Iterable[tuple[str, Attributes]]:
    """Returns the events of one mark by name. `before` is the phase before it."""
    preempted: tuple[str, Attributes] = ("preempted", {"alise.cause": mark.cause, "alise.tokens": mark.tokens})
    match before, mark.what:
        case _, terms.MARK_FIRST_TOKEN:
            return [("first token", {})]
        case _, terms.MARK_ENDED:
            return [("ended", {"alise.reason": story.ending.reason, "alise.tokens": story.ending.generated_tokens})]
        case terms.PHASE_WAITING, terms.PHASE_RUNNING:
            return [("started", {})]
        case _, terms.PHASE_RUNNING if mark.tokens:
            return [("restored", {"alise.tokens": mark.tokens})]
        case _, terms.PHASE_RUNNING if mark.cause:
            return [("recomputed", {})]
        case _, terms.PHASE_RUNNING:
            # The device still had all of its KV.
            return [("resumed", {})]
        case terms.PHASE_RUNNING, terms.PHASE_OFFLOADED:
            return [preempted, ("parked", {})]
        case terms.PHASE_RUNNING, terms.PHASE_PREEMPTED:
            return [preempted]
        case _, terms.PHASE_OFFLOADED:
            return [("parked", {})]
        case _, terms.PHASE_PREEMPTED:
            return [("copy lost", {})]
        case _, terms.PHASE_RESTORING:
            return [("restoring", {})]
        case _:
            return []


def _marks(record: Record) -> Iterator[Mark]:
    return (mark for story in record.stories for mark in story.marks)

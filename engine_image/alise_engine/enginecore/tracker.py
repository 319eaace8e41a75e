"""Collects what the control server polls: rows of requests, endings, steps and counters. No vLLM, no clock, no decisions.

The scheduler mixin (`scheduler.py`) reports events; `poll` returns what changed since the last poll. Every buffer is bounded: without polls
the oldest endings and steps are dropped, and rows of active requests are built when they are polled.
"""

from collections import deque
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass
from typing import Any, Final

from ..wire.calls import (
    MAX_STEPS_PER_POLL,
    Counters,
    EngineShape,
    FinishedRow,
    Mark,
    PollAnswer,
    RequestRow,
    SnapshotAnswer,
    StepRow,
    TraceRow,
)
from ..wire.terms import MARK_ENDED, MARK_FIRST_TOKEN, PHASE_RESTORING, PHASE_RUNNING, PHASE_WAITING

# About a minute of short answers at 70 per second.
FINISHED_KEPT: Final = 4096
# Marks of one traced request; a span of OpenTelemetry has room for 128 events.
MAX_MARKS: Final = 64
# How often progress is reported. To check and to report a thousand requests takes milliseconds of the engine's time, and a rank changes
# once in many tokens. An arrival, an ending, a change of phase and a first token are in the next poll.
PROGRESS_SECONDS: Final = 0.2
# Progress that is worth reporting: this many tokens, or this share of the last report. A level is a fifth of a job's work.
PROGRESS_TOKENS: Final = 8
PROGRESS_SHARE: Final = 1 / 16
# The step model is fitted on a sample of the steps: this many a poll.
STEPS_TOLD: Final = 8

Request = Any
_Columns = tuple[str, int, int, int, int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class HostCopy:
    """What the host store has of a request."""

    tokens: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Tracked:
    """A live request and what vLLM does not remember about it. Clock readings are the engine's monotonic clock."""

    request: Request
    job_id: str
    hint: str
    stamped_priority: int
    arrived_seconds: float
    phase: str = PHASE_WAITING
    phase_seconds: float = 0.0
    # Time in its earlier phases: before its first step, and between preemptions and returns.
    waited_seconds: float = 0.0
    preempted_seconds: float = 0.0
    # The scheduler's step at its last admission.
    admitted_step: int = 0
    # Tokens whose KV was on the device when it was last preempted.
    preempted_tokens: int = 0
    ttft_seconds: float | None = None
    # Its columns in the last report, as `_columns` returns them; None: not reported yet.
    reported: _Columns | None = None
    # What happened to it so far, and what found no room there; None: it is not traced.
    marks: list[Mark] | None = None
    marks_dropped: int = 0

    def leave_phase(self, now_seconds: float) -> None:
        """Adds the time in the present phase to the total that it belongs to."""
        spent = now_seconds - self.phase_seconds
        if self.phase == PHASE_WAITING:
            self.waited_seconds += spent
        elif self.phase != PHASE_RUNNING:
            self.preempted_seconds += spent

    def mark(self, mark: Mark) -> None:
        """Notes what happened, for the trace of the request."""
        if self.marks is None:
            return
        # The last place is that of the ending.
        if len(self.marks) < MAX_MARKS - (mark.what != MARK_ENDED):
            self.marks.append(mark)
        else:
            self.marks_dropped += 1


class Tracker:
    def __init__(self) -> None:
        self.requests: dict[str, Tracked] = {}
        self.jobs: dict[str, set[str]] = {}
        self._finished: deque[FinishedRow] = deque(maxlen=FINISHED_KEPT)
        self._traces: deque[TraceRow] = deque(maxlen=FINISHED_KEPT)
        self._steps: deque[StepRow] = deque(maxlen=MAX_STEPS_PER_POLL)
        self._without_token: set[str] = set()
        # Requests whose next row must not wait, in the order of what happened.
        self._news: dict[str, None] = {}
        self._progress_seconds = float("-inf")

    # --- what happened --------------------------------------------------------------------------------------------------------------
    def add(self, request: Request, job_id: str, hint: str, now_seconds: float, traced: bool = False) -> Tracked:
        tracked = Tracked(request, job_id, hint, request.priority, now_seconds, phase_seconds=now_seconds)
        if traced:
            tracked.marks = []
        self.requests[request.request_id] = tracked
        self._without_token.add(request.request_id)
        self._news[request.request_id] = None
        if job_id:
            self.jobs.setdefault(job_id, set()).add(request.request_id)
        return tracked

    def enter(self, request_id: str, phase: str, now_seconds: float, tokens: int = 0, cause: str = "") -> None:
        """`tokens` and `cause` are those of a `Mark`."""
        tracked = self.requests[request_id]
        tracked.leave_phase(now_seconds)
        tracked.phase, tracked.phase_seconds = phase, now_seconds
        if tracked.marks is not None:
            tracked.mark(Mark(phase, _us(now_seconds), tokens, cause))
        self._news[request_id] = None

    def see_tokens(self, request_ids: Set[str], now_seconds: float) -> None:
        """After a step: which of its requests have their first token."""
        for request_id in self.without_token(request_ids):
            tracked = self.requests[request_id]
            if tracked.request.num_output_tokens:
                tracked.ttft_seconds = now_seconds - tracked.arrived_seconds
                self._without_token.discard(request_id)
                self._news[request_id] = None
                if tracked.marks is not None:
                    tracked.mark(Mark(MARK_FIRST_TOKEN, _us(now_seconds)))

    def without_token(self, request_ids: Set[str]) -> Set[str]:
        """Returns which of these had no output token at the last `see_tokens`. Its cost is that of the smaller set."""
        return request_ids & self._without_token

    def step(self, row: StepRow) -> None:
        self._steps.append(row)

    def finish(self, request_id: str, reason: str, now_seconds: float) -> str | None:
        """Forgets a request. Returns its job's id when that was the job's last one."""
        self.see_tokens({request_id}, now_seconds)
        tracked = self.requests.pop(request_id)
        self._without_token.discard(request_id)
        self._news.pop(request_id, None)
        tracked.leave_phase(now_seconds)
        request = tracked.request
        ending = FinishedRow(
            request_id=request_id,
            job_id=tracked.job_id,
            reason=reason,
            prompt_tokens=request.num_prompt_tokens,
            generated_tokens=request.num_output_tokens,
            preemptions=request.num_preemptions,
            age_ms=_ms(now_seconds - tracked.arrived_seconds),
            ttft_ms=0 if tracked.ttft_seconds is None else max(1, _ms(tracked.ttft_seconds)),
            waited_ms=_ms(tracked.waited_seconds),
            preempted_ms=_ms(tracked.preempted_seconds),
        )
        self._finished.append(ending)
        if tracked.marks is not None:
            tracked.mark(Mark(MARK_ENDED, _us(now_seconds)))
            self._traces.append(TraceRow(ending, tuple(tracked.marks), tracked.marks_dropped))
        siblings = self.jobs.get(tracked.job_id, set())
        siblings.discard(request_id)
        if tracked.job_id and not siblings:
            del self.jobs[tracked.job_id]
            return tracked.job_id
        return None

    # --- reports ----------------------------------------------------------------------------------------------------------------------
    def snapshot(self, shape: EngineShape, counters: Counters, host: Callable[[str], HostCopy], now_seconds: float) -> SnapshotAnswer:
        """Returns every request, and starts the next changes from here."""
        self._forget_told()
        self._progress_seconds = now_seconds
        rows = []
        for tracked in self.requests.values():
            tracked.reported = _columns(tracked, host(tracked.request.request_id))
            rows.append(_row(tracked, tracked.reported, tracked.hint, now_seconds))
        return SnapshotAnswer(shape, tuple(rows), counters)

    def poll(self, counters: Counters, host: Callable[[str], HostCopy], now_seconds: float) -> PollAnswer:
        """Returns what changed since the last poll or snapshot, mere progress every PROGRESS_SECONDS; ages alone are no change."""
        looked_at: Iterable[Tracked] = [self.requests[request_id] for request_id in self._news]
        if now_seconds - self._progress_seconds >= PROGRESS_SECONDS:
            self._progress_seconds = now_seconds
            looked_at = self.requests.values()
        rows = []
        for tracked in looked_at:
            columns, before = _columns(tracked, host(tracked.request.request_id)), tracked.reported
            if before is None or _differs(columns, before):
                rows.append(_row(tracked, columns, tracked.hint if before is None else "", now_seconds))
                tracked.reported = columns
        answer = PollAnswer(tuple(rows), tuple(self._finished), _sample(tuple(self._steps)), counters, tuple(self._traces))
        self._forget_told()
        self._traces.clear()
        return answer

    def _forget_told(self) -> None:
        self._finished.clear()
        self._steps.clear()
        self._news.clear()


def _columns(tracked: Tracked, copy: HostCopy) -> _Columns:
    """Returns a row's columns from `phase` to `priority`: those whose change is reported."""
    request, phase = tracked.request, tracked.phase
    return (
        phase,
        request.num_prompt_tokens,
        request.num_output_tokens,
        request.num_computed_tokens if phase in (PHASE_RUNNING, PHASE_RESTORING) else 0,
        copy.tokens,
        copy.bytes,
        request.max_tokens,
        request.num_preemptions,
        request.priority,
    )


def _differs(columns: _Columns, before: _Columns) -> bool:
    """Returns whether a request has changed enough to be reported again: in any column, or by enough tokens if it only progressed."""
    if columns == before:
        return False
    (phase, prompt, generated, computed, *rest), (phase_before, prompt_before, told, computed_before, *rest_before) = columns, before
    if (phase, prompt, rest) != (phase_before, prompt_before, rest_before) or not told <= generated or not computed_before <= computed:
        return True
    # Before the first token, progress of the prompt is always reported.
    return not told or generated - told >= max(PROGRESS_TOKENS, PROGRESS_SHARE * told)


def _sample(steps: tuple[StepRow, ...]) -> tuple[StepRow, ...]:
    """Returns at most STEPS_TOLD steps: from each stretch the one with the longest prefill, because few steps have any."""
    stretch = -(-len(steps) // STEPS_TOLD)
    if stretch <= 1:
        return steps
    return tuple(max(steps[start : start + stretch], key=lambda step: step.prefill_tokens) for start in range(0, len(steps), stretch))


def _row(tracked: Tracked, columns: _Columns, hint: str, now_seconds: float) -> RequestRow:
    age, in_phase = _ms(now_seconds - tracked.arrived_seconds), _ms(now_seconds - tracked.phase_seconds)
    return RequestRow(tracked.request.request_id, tracked.job_id, *columns, age, in_phase, hint)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))

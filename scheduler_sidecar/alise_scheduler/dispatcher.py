"""The single writer: one task owns all scheduling state, and everything else posts into its inbox.

`admit()` posts a question and awaits its answer. The engine's events and the results of Apply calls are posted the same way. The task takes
in the whole inbox and then makes a plan if one is due. At most one Apply is in flight. A plan is due
    within PLAN_SECONDS      if the engine cannot help itself: a job waits without a rank, or tenants compete for a full engine
    within CHANGE_SECONDS    after any other change while jobs wait: the engine orders arrivals by their priority and fills slots by itself
    every REFRESH_SECONDS    while connected, even if it is empty, because the engine forgets a plan after 2 s
An unexpected exception ends the process on purpose: the supervisor starts a new one, which rebuilds its state from the engine. `run.py`
starts the task, and `rpc/admission.py` asks it.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from .admissions import Admitted, Ask
from .core.admit import Rejected
from .core.estimate import Estimate
from .core.lengths import Lengths
from .core.load_report import LoadReport
from .core.plan import Plan
from .core.reports import EngineEvent, EngineLost, EngineSnapshot, EngineUpdate
from .engine.interface import Engine
from .errors import EngineError, EngineUnavailableError, InboxFullError, SessionLostError
from .explain import explain, list_requests
from .state import State

log = logging.getLogger(__name__)

PLAN_SECONDS: Final = 0.020
CHANGE_SECONDS: Final = 0.2
# At most one part in this many of the time is spent on deciding, at any number of jobs.
PLAN_SHARE: Final = 10
# The next plan waits this long after an admission, once, so that a burst is answered before it is planned for.
ANSWER_FIRST_SECONDS: Final = 0.010
REFRESH_SECONDS: Final = 0.7
RETRY_SECONDS: Final = 0.25
FAILURES_BEFORE_RECONNECT: Final = 3
MAX_INBOX: Final = 4096


class Timer(Protocol):
    def cancel(self) -> None:
        """Cancels the call."""


class Clock(Protocol):
    """Monotonic time and timers."""

    def now(self) -> float:
        """Seconds since a fixed moment."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Calls the callback once, in the event loop."""


class LoopClock:
    """The running event loop's clock."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


@dataclass(frozen=True, slots=True)
class _Asked:
    ask: Ask
    answer: "asyncio.Future[Admitted | Rejected]"


@dataclass(frozen=True, slots=True)
class _Withdrawn:
    job_id: str


@dataclass(frozen=True, slots=True)
class _Applied:
    session_id: str
    plan: Plan
    unknown: tuple[str, ...]
    error: EngineError | None


class Dispatcher:
    """Owns the state. `run()` is the task; other tasks of the same event loop may call the other methods."""

    def __init__(self, state: State, engine: Engine, clock: Clock, on_turn: Callable[[], None] = lambda: None) -> None:
        self._state = state
        self._engine = engine
        self._clock = clock
        self._on_turn = on_turn
        self._inbox: deque[_Asked | _Withdrawn | _Applied | EngineEvent] = deque()
        self._wake = asyncio.Event()
        self._timer: Timer | None = None
        self._at = 0.0
        # Something has changed since the last plan, and something that cannot wait for CHANGE_SECONDS.
        self._dirty = self._urgent = False
        self._answered_first = False
        self._apply: asyncio.Task[None] | None = None
        self._sequence = 0
        self._failures = 0
        self._planned_at = 0.0
        self._next_plan_at = 0.0
        self._refresh_at = 0.0
        self.turned_at = 0.0

    async def admit(self, ask: Ask) -> Admitted | Rejected:
        """Answers an admission request. Raises InboxFullError if the dispatcher cannot keep up."""
        if len(self._inbox) >= MAX_INBOX:
            raise InboxFullError(f"{len(self._inbox)} events wait for the dispatcher and the limit is {MAX_INBOX}; try again later")
        answer: asyncio.Future[Admitted | Rejected] = asyncio.get_running_loop().create_future()
        self._post(_Asked(ask, answer))
        return await answer

    def withdraw(self, job_id: str) -> None:
        """Withdraws an admitted job that will not reach the engine. It stops counting before the next admission is decided."""
        if len(self._inbox) < 2 * MAX_INBOX:
            # With a fuller inbox it is not posted. The job then stops counting after ADMITTED_EXPIRES_SECONDS.
            self._post(_Withdrawn(job_id))

    def forecast(self, ask: Ask) -> tuple[Lengths, Estimate]:
        """Returns the length, level and work that this request would be given now. Changes nothing."""
        return self._state.forecast(ask, self._clock.now())

    def load_report(self) -> LoadReport:
        """Returns the present load."""
        return self._state.load_report()

    async def run(self) -> None:
        """Runs until cancelled."""
        pump = asyncio.create_task(self._pump(), name="engine events")
        try:
            while not pump.done():
                self._turn()
                await self._wake.wait()
                self._wake.clear()
            pump.result()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for task in (pump, self._apply):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
            while self._inbox:
                item = self._inbox.popleft()
                if isinstance(item, _Asked):
                    item.answer.cancel()

    def status(self) -> dict[str, Any]:
        """The state as shown at /statusz."""
        state = self._state
        return {
            "connected": state.session is not None,
            "boot_id": state.session.boot_id if state.session else None,
            "session_id": state.session.session_id if state.session else None,
            "policy": state.policy.name,
            "model": state.shape.model,
            "draining": state.load.draining,
            "jobs": {phase.name.lower(): count for phase, count in state.book.counts().items()},
            "slots": state.load.slots,
            "backlog_seconds": round(state.load.backlog_seconds(), 3),
            "neutral_seconds": round(state.neutral_seconds, 4),
            "plans_sent": self._sequence,
            "apply_failures_in_a_row": self._failures,
            "seconds_since_turn": round(self._clock.now() - self.turned_at, 3),
        }

    def requests(self, limit: int) -> dict[str, Any]:
        """The active requests by rank, at most `limit`, as JSON values."""
        return list_requests(self._state, self._clock.now(), limit)

    def explain(self, request_id: str) -> dict[str, Any]:
        """Why requests with this id wait or have waited, as JSON values."""
        return explain(self._state, request_id, self._clock.now())

    # --- the task ---------------------------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Takes in the whole inbox and makes a plan if one is due."""
        # If the clock goes backwards, time stands still here.
        self._at = max(self._at, self._clock.now())
        self.turned_at = self._at
        self._on_turn()
        while self._inbox:
            self._take(self._inbox.popleft())
        self._state.expire(self._at)
        if self._apply is None and self._at >= self._due_at():
            self._plan()
        self._set_timer()

    def _take(self, item: "_Asked | _Withdrawn | _Applied | EngineEvent") -> None:
        match item:
            case _Withdrawn():
                self._dirty |= self._state.withdraw(item.job_id)
            case _Asked():
                # A caller that has given up failed open. Its request may still come, at the neutral level.
                if not item.answer.done():
                    # No plan can name the job before the engine reports it.
                    item.answer.set_result(self._state.admit(item.ask, self._at))
                    self._urgent |= self._state.is_contested(item.ask.question.tenant)
                    if not self._answered_first:
                        self._answered_first = True
                        self._next_plan_at = max(self._next_plan_at, self._at + ANSWER_FIRST_SECONDS)
            case EngineSnapshot():
                self._state.snapshot(item, self._at)
                self._sequence = self._failures = 0
                self._dirty = self._urgent = True
                self._next_plan_at = self._at
            case EngineUpdate():
                refused = self._state.update(item, self._at)
                # Steps arrive all the time and alone do not make a plan due.
                self._dirty |= bool(item.requests or item.finished)
                self._urgent |= self._state.lacks_rank(item)
                if refused:
                    log.warning("the engine reported an impossible change; asking for a snapshot", extra={"refused": refused[:5]})
                    self._engine.reconnect()
            case EngineLost():
                self._state.lost(item)
            case _Applied():
                self._applied(item)

    def _due_at(self) -> float:
        if self._urgent:
            return min(self._next_plan_at, self._refresh_at)
        soon = self._dirty and self._state.is_pressed
        wanted_at = min(self._planned_at + CHANGE_SECONDS, self._refresh_at) if soon else self._refresh_at
        # Even after a slow plan, the next one follows before the engine forgets it.
        return min(max(wanted_at, self._next_plan_at), self._refresh_at)

    def _plan(self) -> None:
        began = self._clock.now()
        decision = self._state.decide(self._at)
        self._planned_at = self._at
        self._next_plan_at = self._at + max(PLAN_SECONDS, PLAN_SHARE * (self._clock.now() - began))
        self._dirty = self._urgent = self._answered_first = False
        session = self._state.session
        if session is None:
            self._refresh_at = self._at + REFRESH_SECONDS
            return
        plan = decision.plan
        if plan.ranks or plan.limits is not None or self._at >= self._refresh_at:
            self._refresh_at = self._at + REFRESH_SECONDS
            self._sequence += 1
            self._state.metrics.plan_ranks.observe(len(plan.ranks))
            self._apply = asyncio.create_task(self._send(session.session_id, self._sequence, plan), name="apply")

    async def _send(self, session_id: str, sequence: int, plan: Plan) -> None:
        try:
            unknown = await self._engine.apply(session_id, sequence, plan)
        except EngineError as error:
            self._post(_Applied(session_id, plan, (), error))
        except Exception as error:
            # The result must be posted, or no plan would ever be sent again.
            log.exception("plan could not be sent", extra={"sequence": sequence})
            self._state.metrics.background_failures.labels("apply").inc()
            self._post(_Applied(session_id, plan, (), EngineUnavailableError(f"Apply {sequence}: {type(error).__name__}")))
        else:
            self._post(_Applied(session_id, plan, unknown, None))

    def _applied(self, item: _Applied) -> None:
        self._apply = None
        session = self._state.session
        current = session is not None and session.session_id == item.session_id
        if item.error is None:
            self._failures = 0
            self._state.applied(item.session_id, item.plan, item.unknown)
            return
        reason = "session" if isinstance(item.error, SessionLostError) else "unavailable"
        self._state.metrics.apply_failures.labels(reason).inc()
        log.warning("plan not applied", extra={"detail": str(item.error), "current_session": current})
        if not current:
            return
        self._failures += 1
        # Ranks are absolute, so a plan that may or may not have arrived is simply sent again.
        self._dirty = self._urgent = True
        self._next_plan_at = self._refresh_at = self._at + RETRY_SECONDS
        if isinstance(item.error, SessionLostError) or self._failures >= FAILURES_BEFORE_RECONNECT:
            self._failures = 0
            self._engine.reconnect()

    # --- around it --------------------------------------------------------------------------------------------------------------------

    async def _pump(self) -> None:
        try:
            async for event in self._engine.events():
                self._post(event)
        finally:
            self._wake.set()

    def _post(self, item: "_Asked | _Withdrawn | _Applied | EngineEvent") -> None:
        self._inbox.append(item)
        self._wake.set()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # While an Apply is in flight, its result wakes the task, and the timer only keeps the heartbeat going.
        delay = REFRESH_SECONDS if self._apply is not None else min(max(self._due_at() - self._at, 0.001), REFRESH_SECONDS)
        self._timer = self._clock.call_later(delay, self._wake.set)

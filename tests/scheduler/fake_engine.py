"""An engine in memory: its events come from the test, and plans are kept and answered.

No time passes in it: a test reports every change itself. `running_dispatcher.py` creates it.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from alise_scheduler.core.plan import Plan
from alise_scheduler.core.reports import (
    EngineEvent,
    EngineLost,
    EngineRequest,
    EngineShape,
    EngineSnapshot,
    EngineUpdate,
    Finished,
    FinishReason,
    Step,
)
from alise_scheduler.errors import EngineError


class FakeEngine:
    """Implements `alise_scheduler.engine.interface.Engine`. `boot()` first, then let requests arrive, change and finish."""

    def __init__(self, shape: EngineShape | None = None) -> None:
        self.shape = shape or EngineShape(max_num_seqs=2)
        self.requests: dict[str, EngineRequest] = {}
        # (session id, sequence, plan) of each Apply that was answered.
        self.applied: list[tuple[str, int, Plan]] = []
        # What the next Applies raise, one each.
        self.failures: list[EngineError] = []
        # While set, Apply waits for it.
        self.apply_gate: asyncio.Event | None = None
        self.reconnects = 0
        self.draining = False
        self._boots = self._sessions = 0
        self._events: asyncio.Queue[EngineEvent | None] = asyncio.Queue()

    @property
    def booted(self) -> bool:
        return self._boots > 0

    def boot(self) -> None:
        """A fresh engine process: new boot id, no requests."""
        self._boots += 1
        self.requests.clear()
        self.open_session()

    def open_session(self) -> None:
        """A new Watch session of the same boot."""
        self._sessions += 1
        self._events.put_nowait(
            EngineSnapshot(
                boot_id=f"boot-{self._boots}",
                session_id=f"session-{self._sessions}",
                shape=self.shape,
                requests=tuple(self.requests.values()),
                draining=self.draining,
            )
        )

    def lose_session(self) -> None:
        """The stream breaks; the requests live on."""
        self._events.put_nowait(EngineLost("the test cut the stream"))

    def report(self, request: EngineRequest) -> None:
        """A request is new or changed. The hint travels once, as in the contract."""
        known = request.request_id in self.requests
        self.requests[request.request_id] = request
        self._update(EngineUpdate(requests=(replace(request, hint=b"") if known else request,), draining=self.draining))

    def finish(self, request_id: str, reason: FinishReason = FinishReason.STOP, **measured: float) -> None:
        """A request ends with the tokens it had. `measured` are further fields of Finished, such as `ttft_seconds`."""
        request = self.requests.pop(request_id)
        done = Finished(request_id, request.job_id, reason, request.generated_tokens, **measured)  # type: ignore[arg-type]
        self._update(EngineUpdate(finished=(done,), draining=self.draining))

    def steps(self, *steps: Step) -> None:
        """Steps were run."""
        self._update(EngineUpdate(steps=steps, draining=self.draining))

    def drain(self) -> None:
        """The engine begins to refuse."""
        self.draining = True
        self._update(EngineUpdate(draining=True))

    def _update(self, update: EngineUpdate) -> None:
        self._events.put_nowait(update)

    async def events(self) -> AsyncIterator[EngineEvent]:
        while (event := await self._events.get()) is not None:
            yield event

    async def apply(self, session_id: str, sequence: int, plan: Plan) -> tuple[str, ...]:
        if self.apply_gate is not None:
            await self.apply_gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.applied.append((session_id, sequence, plan))
        jobs = {request.job_id for request in self.requests.values()}
        return tuple(job for job in plan.ranks if job not in jobs)

    def reconnect(self) -> None:
        self.reconnects += 1
        self.lose_session()
        self.open_session()

    async def close(self) -> None:
        self._events.put_nowait(None)

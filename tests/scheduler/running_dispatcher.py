"""A dispatcher that runs against the engine in memory, in fake time. `conftest.py` and tests of this folder start it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from alise_scheduler.admissions import Admitted
from alise_scheduler.core.plan import Plan
from alise_scheduler.core.reports import Phase
from alise_scheduler.dispatcher import Dispatcher
from alise_scheduler.state import State
from tests.scheduler.builders import FakeClock, make_ask, make_request
from tests.scheduler.fake_engine import FakeEngine


@dataclass
class Bench:
    """The parts of a test, and what it does with them."""

    state: State
    engine: FakeEngine
    clock: FakeClock
    dispatcher: Dispatcher
    task: "asyncio.Task[None]"

    async def admit(self, job_id: str, **fields: object) -> Admitted:
        answer = await self.dispatcher.admit(make_ask(job_id, **fields))
        assert isinstance(answer, Admitted)
        return answer

    async def enter(self, job_id: str, phase: Phase = Phase.WAITING, **fields: object) -> Admitted:
        """Admits a job and lets it show up in the engine. `fields` are those of the admission request, as in `make_ask`."""
        assert self.engine.booted, "no report arrives before a session: call bench.engine.boot() and await bench.clock.advance(0.1)"
        answer = await self.admit(job_id, **fields)
        self.engine.report(make_request(job_id, phase, hint=answer.hint))
        await self.clock.advance(0.05)
        return answer

    def plans(self) -> list[Plan]:
        return [plan for _, _, plan in self.engine.applied]

    def ranked(self, job_id: str) -> list[int]:
        return [plan.ranks[job_id].level for plan in self.plans() if job_id in plan.ranks]

    def metric(self, name: str, **labels: str) -> float:
        """Returns a metric's value. Raises AssertionError where no series has this name and these labels."""
        value = self.state.metrics.registry.get_sample_value(name, labels)
        assert value is not None, f"there is no series {name}{labels or ''}"
        return value


@contextlib.asynccontextmanager
async def running(state: State, engine: FakeEngine | None = None) -> AsyncIterator[Bench]:
    """Runs a dispatcher with this state until the block ends."""
    engine, clock = engine or FakeEngine(), FakeClock()
    dispatcher = Dispatcher(state, engine, clock)
    task = asyncio.create_task(dispatcher.run())
    try:
        yield Bench(state, engine, clock, dispatcher, task)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

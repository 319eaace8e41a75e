"""The simulator's driver keeps the columns of production's JobBook up to date instead of building them anew for every plan.

Here both take in the same events, of a simulation with preemptions and a full host store. At every plan the book's jobs have the columns
that the driver decides on, and the decision about them is the same.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from alise_scheduler.core.book import JobBook, Prior
from alise_scheduler.core.decide import decide
from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.job import Snapshot, columns
from alise_scheduler.core.lengths import Lengths
from alise_scheduler.core.rank import Policy
from alise_scheduler.core.reports import EngineRequest, EngineUpdate, Finished, FinishReason, Phase
from alise_simulator.driver import CoreDriver, PolicyDriver
from alise_simulator.model import EngineModel
from alise_simulator.predictions import noisy
from alise_simulator.request import Request
from alise_simulator.run import simulate
from alise_simulator.systems import Setup, core_driver
from alise_simulator.trace import Trace, at_load, heavy_tail
from tests.simulation.builders import make_model

SMALL = make_model(Coefficients(), max_num_seqs=8, max_num_batched_tokens=512, num_device_blocks=400, host_limit_bytes=800)
# All that a plan depends on, but for the caps: the simulator's are those of the context alone, without the prompt.
SAME = (
    "order",
    "phase",
    "weight",
    "tenant",
    "lengths",
    "samples",
    "prompt_tokens",
    "generated_tokens",
    "device_tokens",
    "host_tokens",
    "host_bytes",
)
CLOSE = ("waiting_seconds", "age_seconds")


class BookDriver(CoreDriver):
    """Reports every event to a JobBook, too, as the engine does, and compares at every plan."""

    book: JobBook
    live: dict[int, Request]
    seen: Counter[Phase]

    def arrived(self, request: Request, now: float) -> None:
        super().arrived(request, now)
        if request.index == 0:
            self.book, self.live, self.seen = JobBook(), {}, Counter()
        lengths = Lengths(tuple(self._lengths[request.index].tolist()))
        tenant = f"t{self._tenants[request.index]:.0f}"
        self.book.admit(str(request.index), Prior(lengths, tenant=tenant), 0, 1, request.prompt_tokens, request.arrived_at)
        self.live[request.index] = request

    def moved(self, request: Request, step: int) -> None:
        super().moved(request, step)
        assert self.book.update(EngineUpdate(requests=(report(request, request.phase_at, step),)), request.phase_at, unknown).refused == ()

    def left(self, request: Request) -> None:
        super().left(request)
        del self.live[request.index]
        finished = Finished(f"r{request.index}", str(request.index), FinishReason.STOP, request.output_tokens)
        assert self.book.update(EngineUpdate(finished=(finished,)), request.ended_at, unknown).refused == ()

    def plan(self, now: float, step: int) -> None:
        reports = tuple(report(request, now, step) for request in self.live.values())
        assert self.book.update(EngineUpdate(requests=reports), now, unknown).refused == ()
        snapshot, jobs = self._snapshot(now, step), self.book.in_order()
        beside = columns(jobs, now, self._shape, self._cost, self._neutral_seconds, {})
        mine = snapshot.order.argsort()
        for name in SAME:
            assert np.array_equal(column(beside, name), column(snapshot, name)[mine]), name
        for name in CLOSE:
            np.testing.assert_allclose(column(beside, name), column(snapshot, name)[mine], atol=1e-6)
        caps = replace(beside, limit_tokens=snapshot.limit_tokens[mine])
        levels = decide(caps, self._policy, self.limits).ranks.level
        assert np.array_equal(levels, decide(snapshot, self._policy, self.limits).ranks.level[mine])
        self.seen.update(Phase(phase) for phase in beside.phase.tolist())
        super().plan(now, step)


def unknown(request: EngineRequest) -> Prior:
    raise AssertionError(f"the book does not know {request.job_id}")


def column(snapshot: Snapshot, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """One column. The book numbers its jobs from 1, and the simulator its requests from 0."""
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = getattr(snapshot, name)
    return values - values.min() if name == "order" else values


def report(request: Request, now: float, step: int) -> EngineRequest:
    generated = request.tokens(step)
    return EngineRequest(
        request_id=f"r{request.index}",
        job_id=str(request.index),
        phase=request.phase,
        prompt_tokens=request.prompt_tokens,
        generated_tokens=generated,
        device_tokens=request.prompt_tokens + generated if request.decoding else 0,
        host_tokens=request.host_tokens,
        host_bytes=request.host_bytes,
        age_seconds=now - request.arrived_at,
        phase_seconds=now - request.phase_at,
    )


@pytest.fixture(scope="module")
def trace() -> Trace:
    whole = heavy_tail(300, 7)
    whole = whole.rows((whole.input_tokens + whole.output_tokens < 1500).nonzero()[0])
    return at_load(replace(whole, tenant=np.zeros(len(whole), dtype=np.int64)), 1.6, SMALL)


def driven(trace: Trace, model: EngineModel) -> tuple[Counter[Phase], int]:
    """Simulates the trace; returns the phases of the jobs at all plans, and the number of plans."""
    made: list[CoreDriver] = []
    make = core_driver(Setup(trace, model, noisy(trace.output_tokens, 0.5, 7)), Policy(), kind=BookDriver)

    def keep() -> PolicyDriver:
        driver = make()
        assert isinstance(driver, BookDriver)
        made.append(driver)
        return driver

    simulate(trace, model, keep)
    (driver,) = made
    assert isinstance(driver, BookDriver)
    return driver.seen, driver.plans


def test_the_jobs_of_the_book_have_the_columns_that_the_simulator_decides_on(trace: Trace) -> None:
    phases, plans = driven(trace, SMALL)
    assert plans > 100
    assert {Phase.WAITING, Phase.RUNNING, Phase.OFFLOADED, Phase.PREEMPTED} <= set(phases)

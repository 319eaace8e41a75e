"""Better-ranked requests that take the slots of others, as short requests take those of long ones in production.

An engine of these tests has a few slots and, beside the requests under test, nothing to do. To preempt a job at an exact token, a test has
the crowd `displace` it: takers of the best rank fill every free slot and the job's own. Behind them stands a line of prompts that together
need more blocks than the device has, ranked between the takers and the job. The line never runs. It keeps the job's KV on the host, because
blocks of a better-ranked request are not given to a prefetch. `harness.py` keeps one.
"""

from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from alise_engine.compat import scheduler_access
from alise_engine.wire.calls import LimitsRow, RankRow

if TYPE_CHECKING:
    from tests.engine.harness import Engine

TAKER_LEVEL: Final = -100
# Worse than every rank that a test gives, and better than a displaced job.
LINE_LEVEL: Final = 50
DISPLACED_LEVEL: Final = 100
_LINE: Final = "line"


class Crowd:
    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self._takers: list[str] = []
        self._line: list[str] = []
        # In force before the first job was displaced.
        self._limits = LimitsRow()

    def displace(self, *jobs: str, ewt_ms: int = 0) -> None:
        """Has the next step preempt these jobs, whose requests all run."""
        engine = self._engine
        if not self._line:
            self._limits = engine.scheduler.plan.limits
            self._line = self._ask_in_line()
        count = scheduler_access.free_slots(engine.scheduler) + sum(engine.running_jobs().count(job) for job in jobs)
        takers = [f"taker{len(self._takers) + number}" for number in range(count)]
        self._takers += [engine.ask([256], engine.options.max_model_len - 2, job=taker) for taker in takers]
        ranks = [RankRow(job, DISPLACED_LEVEL, 0, ewt_ms) for job in jobs]
        ranks += [RankRow(taker, TAKER_LEVEL, 0, 0) for taker in takers]
        engine.apply(*ranks, RankRow(_LINE, LINE_LEVEL, 0, 0), limits=replace(self._limits, preempt_levels=1, min_quantum_steps=0))

    def park(self, *jobs: str) -> None:
        """Displaces these jobs and ends the takers. Nothing runs and nothing is in flight until the jobs are readmitted."""
        self.displace(*jobs)
        self._engine.step(2)
        self._engine.scheduler.max_num_active_reqs = 0
        self.free_the_slots()
        self._engine.step(3)

    def free_the_slots(self) -> None:
        """Ends the takers. The line stays: what waits behind it is not admitted while better-ranked requests wait or run."""
        self._end(self._takers)

    def leave(self) -> None:
        """Ends takers and line, and restores the slots and the limits that were in force before."""
        self._end(self._takers)
        self._end(self._line)
        self._engine.scheduler.max_num_active_reqs = self._engine.options.max_num_seqs
        self._engine.apply(limits=self._limits)

    def readmit(self, *jobs: str) -> None:
        """Leaves, and ranks these jobs neutral: the next step readmits them."""
        self.leave()
        self._engine.apply(*(RankRow(job, 0, 0, 0) for job in jobs))

    def _ask_in_line(self) -> list[str]:
        options = self._engine.options
        tokens = options.max_model_len - 2
        count = options.blocks // (tokens // options.block_size) + 1
        return [self._engine.ask([256] * tokens, 1, job=_LINE) for _ in range(count)]

    def _end(self, names: list[str]) -> None:
        for name in names:
            if not self._engine.answers[name].finished:
                self._engine.abort(name)
        names.clear()

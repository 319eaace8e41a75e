"""Predict how long an arriving request will wait: all the time from its arrival to its end in which it does not run.

    queue     it waits for the work at its own level and better ones, on the slots that serve it
    inflow    meanwhile more work arrives at better levels; what remains for the queue is the rest of the engine, at least a tenth of it
    late      if it can no longer be in time when its turn comes, it falls behind most jobs that can (core/rank.py) and waits for them too
    overdue   once it is older than `overdue_seconds` it goes first, so it waits at most for what arrived before it

The inflow is the work admitted in the last minute, not the work asked for, because rejected requests bring no work. One minute with more
arrivals than the engine can serve says little about the next minutes, and every rejection makes room. So the remaining share never counts
as less than a tenth, and a wait that the queue alone does not explain is bounded by four times the longest wait so far at that level.

`admission_queue.py` calls it with the queue from `backlog.py`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from alise_contract.names import owner_of

from .backlog import Queue
from .estimate import Estimate
from .rank import Policy, lateness_of

# Measured with tests/bench/shedding.py: with less than a tenth, requests are refused that would wait for seconds; with twice as much, one
# in twenty admitted requests waits until it is overdue.
LEAST_LEFT: Final = 0.1
# Without this bound, the first requests of an overload are refused because of a queue that does not exist yet.
MOST_TIMES_WAITED: Final = 4.0
INFLOW_SECONDS: Final = 60.0
_INFLOW_ROWS: Final = 1024


class Inflow:
    """Work admitted in the last minute by level, tenant and part, from the newest 1,024 jobs. Mutable; time is an argument."""

    def __init__(self) -> None:
        self._at = np.full(_INFLOW_ROWS, -math.inf)
        self._level = np.zeros(_INFLOW_ROWS, dtype=np.int64)
        self._work = np.zeros(_INFLOW_ROWS)
        self._owner = np.zeros(_INFLOW_ROWS, dtype=np.int64)
        self._part = np.zeros(_INFLOW_ROWS, dtype=np.int64)
        self._next = 0

    def add(self, at: float, level: int, work_seconds: float, tenant: str) -> None:
        """Counts an admitted job of a tenant or of `tenant/part`. A withdrawn job is added again with negative work."""
        row = self._next
        self._at[row], self._level[row], self._work[row] = at, level, work_seconds
        self._owner[row], self._part[row] = hash(owner_of(tenant)), hash(tenant)
        self._next = (row + 1) % _INFLOW_ROWS

    def per_second(
        self, at: float, level: int, *, owner: str | None = None, part: str | None = None, counted_seconds: float = INFLOW_SECONDS
    ) -> float:
        """Seconds of work arriving per second at better levels than this one: from one tenant, from one part of it, or from all.

        `counted_seconds`: for how long work has been counted, if that is less than a minute.
        """
        oldest = at - INFLOW_SECONDS
        counts = (self._at > oldest) & (self._level < level)
        if part is not None:
            counts &= self._part == hash(part)
        elif owner is not None:
            counts &= self._owner == hash(owner)
        span = min(INFLOW_SECONDS, counted_seconds, max(at - float(self._at[self._next]), 1.0))
        return max(0.0, float(self._work[counts].sum())) / span


@dataclass(frozen=True, slots=True)
class Wait:
    """The predicted wait of one arriving request."""

    seconds: float = 0.0
    # Until it first runs, if it is still in time by then.
    first_turn_seconds: float = 0.0
    # The number of requests that go before it.
    ahead: int = 0
    # Whether requests of other tenants are among them.
    shared: bool = True
    # Whether a shorter answer would get a turn sooner.
    by_length: bool = True
    # The latest turn with which it is still in time.
    patience_seconds: float = math.inf
    # How long it waits in all if it is late.
    late_seconds: float = math.inf

    @property
    def turn_seconds(self) -> float:
        """When it gets its turn. A request whose turn would come too late to be in time gets it later still."""
        return self.first_turn_seconds if self.first_turn_seconds <= self.patience_seconds else self.seconds

    def seconds_until(self, allowed_seconds: float) -> float:
        """After how many seconds the same request would wait no longer than allowed, if the queue shrinks as predicted."""
        sooner = self.first_turn_seconds - min(allowed_seconds, self.patience_seconds)
        return max(0.0, min(sooner, self.late_seconds - allowed_seconds))


NO_WAIT: Final = Wait()


def predicted_wait(estimate: Estimate, queue: Queue | None, inflow: Callable[[int], float], policy: Policy) -> Wait:
    """The wait of an arriving request. `inflow(level)` is the work per second that arrives at better levels for the same slots."""
    if queue is None:
        return NO_WAIT
    rule, by_length = lateness_of(policy), policy.name != "fcfs"
    first, ahead = _turn(estimate.level, queue, inflow)
    if rule is None:
        return Wait(first, first, ahead, queue.shared, by_length)
    patience = max(rule.slowdown * estimate.alone_seconds, rule.busy_slowdown * estimate.work_seconds) - estimate.alone_seconds
    overdue = max(rule.overdue_seconds, queue.total_seconds() / rule.overdue_share)
    late, ahead_of_late = _turn(estimate.level + rule.levels, queue, inflow)
    late = min(late, overdue)
    if first <= patience:
        return Wait(min(first, overdue), first, ahead, queue.shared, by_length, patience, late)
    return Wait(late, first, ahead_of_late, queue.shared, by_length, patience, late)


def _turn(level: int, queue: Queue, inflow: Callable[[int], float]) -> tuple[float, int]:
    """Seconds until a job of this level gets a slot, and the number of jobs ahead of it. The last jobs that fill the slots need not end."""
    samples, work, waited = queue.ahead(level)
    waiting = samples - queue.slots + 1.0
    if waiting <= 0 or work <= 0:
        return 0.0, round(samples)
    queued = work * (waiting / samples) / queue.slots
    left = max(LEAST_LEFT, 1.0 - inflow(level) / queue.slots)
    return max(queued, min(queued / left, MOST_TIMES_WAITED * waited)), round(samples)

"""How long a newcomer will wait: for all the time from its arrival to its end in which it does not run.

    queue     it waits for the work of its own rank and better ones, on the slots that serve it
    inflow    meanwhile more work of better ranks arrives: what is left for the queue is the rest of the engine, at least a tenth of it
    late      it can no longer be in time before its turn has come: then it falls behind most jobs that can (core/rank.py), and waits for
              them as well
    overdue   it goes first when it is older than `overdue_seconds`, and then waits at most for what arrived before it

The inflow is what was admitted in the last minute, not what was asked for: requests that are refused bring no work. A minute in which more
arrived than can be done says little of how the next ones will be, and every refusal makes room. So what is left never counts as less than a
tenth, and a wait that the queue itself does not explain is believed up to four times what a request of that rank has already waited.
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

# Measured with tests/bench/shedding.py: with less than a tenth requests are refused that would wait for seconds; with twice as much, one
# in twenty that are admitted waits until it is overdue.
LEAST_LEFT: Final = 0.1
# Without this bound the first requests of an overload are refused for a queue that is yet to come.
MOST_TIMES_WAITED: Final = 4.0
INFLOW_SECONDS: Final = 60.0
_INFLOW_ROWS: Final = 1024


class Inflow:
    """Work that was admitted in the last minute, by level, tenant and part; of the newest 1,024 jobs. Mutable; time is an argument."""

    def __init__(self) -> None:
        self._at = np.full(_INFLOW_ROWS, -math.inf)
        self._level = np.zeros(_INFLOW_ROWS, dtype=np.int64)
        self._work = np.zeros(_INFLOW_ROWS)
        self._owner = np.zeros(_INFLOW_ROWS, dtype=np.int64)
        self._part = np.zeros(_INFLOW_ROWS, dtype=np.int64)
        self._next = 0

    def add(self, at: float, level: int, work_seconds: float, tenant: str) -> None:
        """A job of a tenant, or of `tenant/part`, was admitted; one that was taken back is added once more, with negative work."""
        row = self._next
        self._at[row], self._level[row], self._work[row] = at, level, work_seconds
        self._owner[row], self._part[row] = hash(owner_of(tenant)), hash(tenant)
        self._next = (row + 1) % _INFLOW_ROWS

    def per_second(self, at: float, level: int, *, owner: str | None = None, part: str | None = None) -> float:
        """Seconds of work that arrive in a second at better levels than this one: of one tenant, of one part of it, or of all."""
        oldest = at - INFLOW_SECONDS
        counts = (self._at > oldest) & (self._level < level)
        if part is not None:
            counts &= self._part == hash(part)
        elif owner is not None:
            counts &= self._owner == hash(owner)
        span = min(INFLOW_SECONDS, max(at - float(self._at[self._next]), 1.0))
        return max(0.0, float(self._work[counts].sum())) / span


@dataclass(frozen=True, slots=True)
class Wait:
    """A prediction for one newcomer."""

    seconds: float = 0.0
    # Until it first runs, if it is in time by then.
    first_turn_seconds: float = 0.0
    # Requests that go before it.
    ahead: int = 0
    # Requests of other tenants are among them.
    shared: bool = True
    # A shorter answer would go sooner.
    by_length: bool = True
    # It has to have its turn by then to be in time.
    patience_seconds: float = math.inf
    # From then on it is in time no more, and waits until here.
    late_seconds: float = math.inf

    @property
    def turn_seconds(self) -> float:
        """When it has its turn: one that would have it too late to be in time has it later."""
        return self.first_turn_seconds if self.first_turn_seconds <= self.patience_seconds else self.seconds

    def seconds_until(self, allowed_seconds: float) -> float:
        """When the same request would wait for no longer than is allowed, if the queue gets shorter as predicted."""
        sooner = self.first_turn_seconds - min(allowed_seconds, self.patience_seconds)
        return max(0.0, min(sooner, self.late_seconds - allowed_seconds))


NO_WAIT: Final = Wait()


def predicted_wait(new: Estimate, queue: Queue | None, inflow: Callable[[int], float], policy: Policy) -> Wait:
    """The wait of a newcomer. `inflow(level)` is the work in a second that arrives at better levels for the same slots."""
    if queue is None:
        return NO_WAIT
    rule, by_length = lateness_of(policy), policy.name != "fcfs"
    first, ahead = _turn(new.level, queue, inflow)
    if rule is None:
        return Wait(first, first, ahead, queue.shared, by_length)
    patience = max(rule.slowdown * new.alone_seconds, rule.busy_slowdown * new.work_seconds) - new.alone_seconds
    overdue = max(rule.overdue_seconds, queue.total_seconds() / rule.overdue_share)
    late, ahead_of_late = _turn(new.level + rule.levels, queue, inflow)
    late = min(late, overdue)
    if first <= patience:
        return Wait(min(first, overdue), first, ahead, queue.shared, by_length, patience, late)
    return Wait(late, first, ahead_of_late, queue.shared, by_length, patience, late)


def _turn(level: int, queue: Queue, inflow: Callable[[int], float]) -> tuple[float, int]:
    """Seconds until a job of this level has a slot, and how many jobs are ahead of it. Those that fill the slots need not end first."""
    samples, work, waited = queue.ahead(level)
    waiting = samples - queue.slots + 1.0
    if waiting <= 0 or work <= 0:
        return 0.0, round(samples)
    queued = work * (waiting / samples) / queue.slots
    left = max(LEAST_LEFT, 1.0 - inflow(level) / queue.slots)
    return max(queued, min(queued / left, MOST_TIMES_WAITED * waited)), round(samples)

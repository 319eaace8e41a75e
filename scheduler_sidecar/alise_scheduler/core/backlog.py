"""The queued work that an arriving request waits for, and the slots that serve it.

A job within its tenant's share gives way to no other tenant (core/fairness.py). So where several tenants compete for a full engine, an
arriving request queues with its own tenant's jobs, on the slots of that tenant's share, and within that share with the jobs of its own
part. A request that fits into the share does not queue at all. `admission_queue.py` calls it.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from .fairness import fill_level, lent_slots
from .job import Ints, Snapshot
from .lengths import Floats
from .reports import Phase

# Share of the device's blocks in use from which KV memory, not the slots, limits how many jobs run.
_FULL: Final = 0.9


@dataclass(frozen=True, slots=True)
class Backlog:
    """Active jobs in columns of J rows, and the slots that they share."""

    # The policy's level, before shares are allotted.
    level: Ints
    # For all samples of a job.
    work_seconds: Floats
    samples: Floats
    weight: Floats
    # How long jobs that are not running have waited so far; 0 for running jobs.
    waited_seconds: Floats
    # Numbers of the tenant and of its part, from 0.
    tenant: Ints
    part: Ints
    slots: float


@dataclass(frozen=True, slots=True)
class Row:
    """A job admitted since the last decision. A withdrawn job is one more row with negative samples and work."""

    level: int
    work_seconds: float
    samples: float
    weight: float
    tenant: int
    part: int


@dataclass(frozen=True, slots=True)
class Queue:
    """The jobs that an arriving request queues with, and the slots that serve them."""

    level: Ints
    work_seconds: Floats
    samples: Floats
    waited_seconds: Floats
    slots: float
    # Whether jobs of other tenants are among them.
    shared: bool
    # Whether they all belong to one part of a tenant with several parts.
    of_part: bool = False

    def ahead(self, level: int) -> tuple[float, float, float]:
        """At this level and better ones: samples, seconds of work, and the longest wait so far."""
        rows = self.level <= level
        samples, work = float(self.samples[rows].sum()), float(self.work_seconds[rows].sum())
        return max(0.0, samples), max(0.0, work), float(self.waited_seconds[rows].max(initial=0.0))

    def total_seconds(self) -> float:
        """Seconds until all of it is done."""
        return max(0.0, float(self.work_seconds.sum())) / self.slots


_NONE, _NO_SECONDS = np.zeros(0, dtype=np.int64), np.zeros(0)
EMPTY: Final = Backlog(_NONE, _NO_SECONDS, _NO_SECONDS, _NO_SECONDS, _NO_SECONDS, _NONE, _NONE, 1.0)


def backlog_of(snapshot: Snapshot, level: Ints, work_seconds: Floats, slots: float) -> Backlog:
    """The backlog of a snapshot's jobs."""
    waited = np.where(snapshot.phase == Phase.RUNNING, 0.0, snapshot.waiting_seconds)
    part = snapshot.tenant if snapshot.part is None else snapshot.part
    in_use = slots_in_use(snapshot, slots)
    return Backlog(level, work_seconds, snapshot.samples, snapshot.weight, waited, snapshot.tenant, part, in_use)


def slots_in_use(snapshot: Snapshot, slots: float) -> float:
    """How many sequences run at once: as many as now if the device's KV memory is full, else `slots`."""
    engine = snapshot.engine
    blocks = float(np.ceil(snapshot.device_tokens / max(1, engine.block_size)).sum())
    if not engine.num_device_blocks or blocks < _FULL * engine.num_device_blocks:
        return slots
    return float(min(slots, max(1.0, snapshot.samples[snapshot.phase == Phase.RUNNING].sum())))


def with_rows(backlog: Backlog, rows: list[Row]) -> Backlog:
    """The backlog with these rows added."""
    if not rows:
        return backlog
    return Backlog(
        np.append(backlog.level, [row.level for row in rows]),
        np.append(backlog.work_seconds, [row.work_seconds for row in rows]),
        np.append(backlog.samples, [row.samples for row in rows]),
        np.append(backlog.weight, [row.weight for row in rows]),
        np.append(backlog.waited_seconds, np.zeros(len(rows))),
        np.append(backlog.tenant, [row.tenant for row in rows]),
        np.append(backlog.part, [row.part for row in rows]),
        backlog.slots,
    )


def queue_for(backlog: Backlog, samples: float, weight: float, tenant: int, part: int) -> Queue | None:
    """The queue of an arriving request. None if it does not queue, because a slot is free or its tenant may take one."""
    if float(backlog.samples.sum()) + samples <= backlog.slots:
        return None
    whole = Queue(backlog.level, backlog.work_seconds, backlog.samples, backlog.waited_seconds, backlog.slots, shared=True)
    mine = _share(whole, backlog.tenant, backlog.weight, tenant, samples, weight, lent_slots(backlog.slots))
    if mine is None or mine is whole:
        return mine
    parts = backlog.part[backlog.tenant == tenant]
    own = _share(mine, parts, np.ones(len(parts)), part, samples, 1.0, 0.0)
    return own if own is None or own is mine else replace(own, of_part=True)


def _share(queue: Queue, group: Ints, weights: Floats, number: int, samples: float, weight: float, lent: float) -> Queue | None:
    """One group's jobs of a queue, with its max-min fair share of the slots. None if the arriving request fits into the share."""
    rows = group == number
    if rows.all():
        return queue
    if not rows.any():
        # The first job of a group always fits.
        return None
    demand = np.maximum(np.bincount(group, weights=queue.samples), 0.0)
    jobs = np.maximum(np.bincount(group), 1)
    weigh = np.maximum(np.bincount(group, weights=weights) / jobs, 1e-9)
    weigh[number] += (weight - weigh[number]) / (jobs[number] + 1)
    demand[number] += samples
    if demand[number] <= fill_level(demand, weigh, max(queue.slots - lent, 1.0)) * weigh[number]:
        return None
    slots = min(queue.slots, max(1.0, fill_level(demand, weigh, queue.slots) * float(weigh[number])))
    return Queue(queue.level[rows], queue.work_seconds[rows], queue.samples[rows], queue.waited_seconds[rows], slots, shared=False)

"""Share the slots between tenants: jobs beyond their tenant's share wait behind all jobs within one. `decide.py` calls it for every plan.

Shares are max-min fair. The slots are allotted evenly (by weight) until each tenant has what it asks for, and what a tenant leaves goes to
the others. Within a tenant the policy's order decides: its first jobs are within its share and the later ones over it. Every job over a
share ranks behind every job within one, by a difference that preempts. So a tenant's burst delays only that tenant's own jobs. With one
tenant, or with slots for all jobs, nothing changes. Shares depend on the present jobs alone, so a restarted sidecar computes the same ones.

One slot in sixteen, and at least one, is in no tenant's share. Jobs over their share run there, because no slot should idle, and they are
known to be over it. A job of another tenant that arrives takes such a slot at the next step, by the level from its admission, without
waiting for a plan. For the same reason no quantum protects a job while a tenant is over its share. Steps full of prompts still take longer
for all tenants.

Parts of a tenant (`team-a/part`) take turns within its share.

No job starves: each tenant always has a share, and within a tenant the proofs of core/rank.py hold.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from alise_contract.names import MAX_LEVEL, MIN_LEVEL

from .job import Ints, Snapshot
from .lengths import Floats

# Jobs over their tenant's share have this level or a higher one, all others a lower one. The levels left empty between them are a
# difference that preempts, at any `preempt_levels` up to EMPTY_LEVELS.
OVER_SHARE_LEVEL: Final = 47
EMPTY_LEVELS: Final = 8
_LENT_SHARE: Final = 1 / 16
_OVER_SPAN: Final = (MAX_LEVEL - OVER_SHARE_LEVEL) // 2


def fill_level(demand: Floats, weight: Floats, slots: float) -> float:
    """Slots per unit of weight in a max-min fair allotment of `slots`: tenant t gets min(demand[t], level · weight[t]).

    Infinite if the slots suffice for all. Shapes [T].
    """
    if float(demand.sum()) <= slots:
        return float("inf")
    wish = demand / weight
    by_wish = np.argsort(wish, kind="stable")
    satisfied = np.concatenate([[0.0], np.cumsum(demand[by_wish])[:-1]])
    others = np.cumsum(weight[by_wish][::-1])[::-1]
    levels = (slots - satisfied) / others
    # The first tenant that gets less than it asks for sets the level.
    return float(levels[np.argmax(levels < wish[by_wish])])


def lent_slots(slots: float) -> float:
    """Slots in no tenant's share, so that there is always a job that gives way at once."""
    return max(1.0, np.floor(slots * _LENT_SHARE)) if slots > 1 else 0.0


def over_share(levels: Ints, snapshot: Snapshot, slots: float) -> NDArray[np.bool_] | None:
    """Marks the jobs that do not fit into their tenant's share. None if all fit. Shape [J]."""
    tenant, samples = snapshot.tenant, snapshot.samples
    if not len(snapshot) or not tenant.any():
        return None
    tenants = int(tenant.max()) + 1
    demand = np.bincount(tenant, weights=samples, minlength=tenants).astype(np.float64)
    jobs = np.maximum(np.bincount(tenant, minlength=tenants), 1)
    weight = np.maximum(np.bincount(tenant, weights=snapshot.weight, minlength=tenants).astype(np.float64) / jobs, 1e-9)
    if float(demand.sum()) <= slots or np.count_nonzero(demand) < 2:
        return None
    fill = fill_level(demand, weight, slots - lent_slots(slots))
    # How many slots do the tenant's jobs before each job take?
    rows = np.lexsort((snapshot.order, levels, _turns(levels, snapshot), tenant))
    total = np.cumsum(samples[rows]) - samples[rows]
    first = np.searchsorted(tenant[rows], np.arange(tenants))
    before = np.empty(len(snapshot))
    before[rows] = total - total[np.minimum(first, len(snapshot) - 1)][tenant[rows]]
    # The first job of a tenant always fits.
    over: NDArray[np.bool_] = (before > 0) & (before + samples > (fill * weight)[tenant] + 1e-9)
    return over if over.any() else None


def _turns(levels: Ints, snapshot: Snapshot) -> Ints:
    """The number of jobs of its own part before each job. Parts of a tenant take turns, so that none fills the tenant's share."""
    if snapshot.part is None:
        return np.zeros(len(snapshot), dtype=np.int64)
    rows = np.lexsort((snapshot.order, levels, snapshot.part))
    first = np.searchsorted(snapshot.part[rows], snapshot.part[rows])
    turns = np.empty(len(snapshot), dtype=np.int64)
    turns[rows] = np.arange(len(snapshot)) - first
    return turns


def within(levels: Ints) -> Ints:
    """Levels of jobs within their share, [MIN_LEVEL, OVER_SHARE_LEVEL - EMPTY_LEVELS)."""
    return np.clip(levels, MIN_LEVEL, OVER_SHARE_LEVEL - EMPTY_LEVELS - 1)


def behind(levels: Ints) -> Ints:
    """Levels of jobs over their share, [OVER_SHARE_LEVEL, MAX_LEVEL]."""
    result: Ints = np.clip(levels, -_OVER_SPAN, _OVER_SPAN) + (OVER_SHARE_LEVEL + _OVER_SPAN)
    return result

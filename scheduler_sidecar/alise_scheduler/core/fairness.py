"""Tenants share the slots: who asks for more than its share waits behind those who do not.

Shares are max-min fair: the slots are dealt out evenly (by weight) until each tenant has what it asks for, and what a quiet tenant
leaves is dealt to the others. Within a tenant the policy's order counts: its first jobs are within its share, the later ones over it,
and every job over a share ranks behind every job within one, far enough for it to be preempted. So a tenant pays for its own burst,
and with one tenant, or slots for everybody, nothing changes at all. Nothing is remembered: shares are of now, and a restarted sidecar
deals them out just the same.

One slot in sixteen, and at least one, belongs to nobody's share. Jobs over their share run there, because a slot must not idle, but they
are known to be over it beforehand: a quiet tenant's job that arrives takes such a slot at the next step, by the level it was stamped with
at admission, and does not wait for the plan that would have found out who must go. For the same reason a quantum protects nobody while a
tenant is over its share. What a flood still costs the quiet ones is that steps full of prompts take longer.

Parts of a tenant (`team-a/part`) take turns within its share.

Nobody starves by this: each tenant always has a share, and its longest-waiting job comes first in its own order (core/rank.py).
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from alise_contract.names import MAX_LEVEL, MIN_LEVEL

from .job import Ints, Snapshot
from .lengths import Floats

# Jobs over their tenant's share take the levels from here on, the others those below, and some between are left empty: a difference that
# preempts (at any `preempt_levels` up to it).
OVER_SHARE_LEVEL: Final = 47
EMPTY_LEVELS: Final = 8
_LENT_SHARE: Final = 1 / 16
_OVER_SPAN: Final = (MAX_LEVEL - OVER_SHARE_LEVEL) // 2


def fill_level(demand: Floats, weight: Floats, slots: float) -> float:
    """Slots per unit of weight when `slots` are dealt out max-min fairly: tenant t gets min(demand[t], level · weight[t]).

    Infinite when there is enough for all. Shapes [T].
    """
    if float(demand.sum()) <= slots:
        return float("inf")
    wish = demand / weight
    by_wish = np.argsort(wish, kind="stable")
    satisfied = np.concatenate([[0.0], np.cumsum(demand[by_wish])[:-1]])
    others = np.cumsum(weight[by_wish][::-1])[::-1]
    levels = (slots - satisfied) / others
    # The first tenant that gets less than it wishes for sets the level.
    return float(levels[np.argmax(levels < wish[by_wish])])


def lent_slots(slots: float) -> float:
    """Slots in nobody's share, so that there is always somebody who gives way at once."""
    return max(1.0, np.floor(slots * _LENT_SHARE)) if slots > 1 else 0.0


def over_share(levels: Ints, snapshot: Snapshot, slots: float) -> NDArray[np.bool_] | None:
    """Which jobs do not fit into their tenant's share; None when all do. Shape [J]."""
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
    # How many slots of its own tenant are asked for before each job?
    rows = np.lexsort((snapshot.order, levels, _turns(levels, snapshot), tenant))
    total = np.cumsum(samples[rows]) - samples[rows]
    first = np.searchsorted(tenant[rows], np.arange(tenants))
    before = np.empty(len(snapshot))
    before[rows] = total - total[np.minimum(first, len(snapshot) - 1)][tenant[rows]]
    # Everybody's first job fits.
    over: NDArray[np.bool_] = (before > 0) & (before + samples > (fill * weight)[tenant] + 1e-9)
    return over if over.any() else None


def _turns(levels: Ints, snapshot: Snapshot) -> Ints:
    """How many jobs of its own part come before each job. Parts of a tenant take turns, so that none of them fills the tenant's share."""
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

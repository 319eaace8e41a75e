"""Decide which running jobs keep their slot, by how soon a slot comes free by itself. `decide.py` calls it for every plan.

On an engine that runs a hundred requests at once, one of them ends every few steps, and the request that is next in rank takes its place.
Preempting a running one instead gains that request almost nothing, and costs a save, a restore and, where the host store is full, a
recomputation. On an engine that runs ten, the next end is far away. ADR 67 has the measurements.
"""

from typing import Final

from alise_contract.names import MAX_LEVEL, MIN_LEVEL

from .fairness import OVER_SHARE_LEVEL
from .job import Snapshot
from .lengths import Floats
from .rank import PreemptionRule
from .reports import Phase

ALL_LEVELS: Final = MAX_LEVEL - MIN_LEVEL + 1


def spared_levels(snapshot: Snapshot, remaining_seconds: Floats, slots: float, rule: PreemptionRule, tenant_over_share: bool) -> int:
    """Returns how many of the best levels keep their slot: where one comes free soon all, or all within their tenant's share; else none.

    `remaining_seconds` is the expected work of each job, [J]; `slots` is how many jobs run at once.
    """
    if not frees_soon(snapshot, remaining_seconds, slots, rule):
        return 0
    return OVER_SHARE_LEVEL - MIN_LEVEL if tenant_over_share else ALL_LEVELS


def frees_soon(snapshot: Snapshot, remaining_seconds: Floats, slots: float, rule: PreemptionRule) -> bool:
    """Returns whether the next running job ends within a small share of a typical job's time. False while no job runs."""
    running = remaining_seconds[snapshot.phase == Phase.RUNNING]
    return len(running) > 0 and float(running.mean()) / slots < rule.turn_share * snapshot.neutral_seconds

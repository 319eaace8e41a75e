"""Decide which running jobs keep their slot, by how soon a slot comes free by itself. `decide.py` calls it for every plan.

On an engine that runs a hundred requests at once, one of them ends every few steps, and the request that is next in rank takes its place.
Preempting a running one instead gains that request almost nothing, and costs a save, a restore and, where the host store is full, a
recomputation. On an engine that runs ten, the next end is far away. ADR 67 has the measurements.

The prediction must say so, and a job must have ended as recently: of a hundred equal jobs that began together none ends for a long time.
"""

from typing import Final

import numpy as np

from alise_contract.names import MAX_LEVEL, MIN_LEVEL

from .fairness import OVER_SHARE_LEVEL
from .job import Ints, Snapshot
from .lengths import Floats
from .rank import PreemptionRule
from .reports import Phase

ALL_LEVELS: Final = MAX_LEVEL - MIN_LEVEL + 1


def frees_soon(snapshot: Snapshot, remaining_seconds: Floats, rule: PreemptionRule) -> bool:
    """Returns whether slots come free within a small share of a typical job's time. False while no job runs.

    `remaining_seconds` is the expected work of each job, [J].
    """
    runs = snapshot.phase == Phase.RUNNING
    if not runs.any():
        return False
    soon = rule.turn_share * snapshot.neutral_seconds
    turn_seconds = float(remaining_seconds[runs].mean() / snapshot.samples[runs].sum())
    return turn_seconds < soon and snapshot.ended_seconds < soon


def spared_levels(soon: bool, tenant_over_share: bool) -> int:
    """Returns how many of the best levels keep their slot: where slots come free soon all, or those within a tenant's share; else none."""
    if not soon:
        return 0
    return OVER_SHARE_LEVEL - MIN_LEVEL if tenant_over_share else ALL_LEVELS


def running_first(levels: Ints, snapshot: Snapshot) -> Ints:
    """Returns the levels by which a tenant's share is given out where jobs keep their slot: running jobs before those that wait."""
    result: Ints = np.where(snapshot.phase == Phase.RUNNING, levels - ALL_LEVELS, levels)
    return result

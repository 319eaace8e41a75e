"""Decide whether ranks preempt, by how soon a slot comes free without it. `decide.py` calls it for every plan.

On an engine that runs a hundred requests at once, one of them ends every few steps, and the request that is next in rank takes its place.
Preempting a running one instead gains that request almost nothing, and costs a save, a restore and, where the host store is full, a
recomputation. On an engine that runs ten, the next end is far away. ADR 67 has the measurements.
"""

from .job import Snapshot
from .lengths import Floats
from .rank import PreemptionRule
from .reports import Phase


def frees_soon(snapshot: Snapshot, remaining_seconds: Floats, slots: float, rule: PreemptionRule) -> bool:
    """Returns whether the next running job ends within a small share of a typical job's time, so that preempting for a slot gains little.

    `remaining_seconds` is the expected work of each job, [J]; `slots` is how many jobs run at once. False while no job runs.
    """
    running = remaining_seconds[snapshot.phase == Phase.RUNNING]
    return len(running) > 0 and float(running.mean()) / slots < rule.turn_share * snapshot.neutral_seconds

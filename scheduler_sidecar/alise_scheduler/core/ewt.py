"""Expected waiting time (EWT) of each job in a plan: how long until it gets its turn. `decide.py` calls it.

The EWT is the remaining work of the jobs ranked ahead, divided by the number of slots. It is bounded by the time until ageing has promoted
the job past everything that may still arrive, and by the time until the job is overdue. The first `slots` jobs in rank order do not wait.
The wait of a request that has not been admitted yet is predicted in `admission_wait.py`.
"""

import numpy as np
from numpy.typing import NDArray

from .job import Ints, Snapshot
from .lengths import Floats
from .level import BASE_SPAN, LEVELS_PER_DOUBLING
from .rank import Policy, lateness_of, promote_seconds
from .reports import EngineShape


def effective_slots(engine: EngineShape, tokens: Floats) -> float:
    """How many sequences run at once: `max_num_seqs`, or fewer if their KV does not fit the device. At least 1."""
    if not len(tokens) or engine.num_device_blocks <= 0:
        return float(max(1, engine.max_num_seqs))
    blocks = float(np.ceil(np.maximum(tokens, 1.0) / max(1, engine.block_size)).mean())
    return float(max(1.0, min(engine.max_num_seqs, engine.num_device_blocks / blocks)))


def ranked(levels: Ints, order: Ints) -> Ints:
    """Row numbers sorted by level, then by order."""
    result: Ints = np.lexsort((order, levels))
    return result


def expected_waits(
    rows: Ints,
    levels: Ints,
    snapshot: Snapshot,
    work_seconds: Floats,
    slots: float,
    policy: Policy,
    backlog: float,
    is_late: NDArray[np.bool_],
) -> Floats:
    """Seconds until each job's turn, in the snapshot's order of rows. Shape [J]. `work_seconds` covers all samples of a job."""
    rule = lateness_of(policy)
    work, samples = work_seconds[rows], snapshot.samples[rows]
    waits = np.empty(len(snapshot))
    waits[rows] = np.where(np.cumsum(samples) - samples + 1 <= slots, 0.0, (np.cumsum(work) - work) / slots)
    if rule is not None:
        waits = np.minimum(waits, np.maximum(rule.overdue_seconds - snapshot.age_seconds, 0.0))
    if policy.ageing is None:
        return waits
    to_promotion = np.maximum(levels + BASE_SPAN, 0) * (
        promote_seconds(policy.ageing, backlog, snapshot.neutral_seconds) / LEVELS_PER_DOUBLING
    )
    # Jobs promoted that far are served in order, with only better-ranked work ahead. The age of late jobs does not count.
    return np.where((to_promotion > 0) & ~is_late, np.minimum(waits, to_promotion), waits)

"""Choose who runs, who waits and how much KV cache leaves the device. This is the decision, in six numbered steps.

`state.py` calls it for every plan, and the simulator calls the same function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from .admit import Load, work_by_level
from .backlog import Backlog, backlog_of
from .ewt import effective_slots, expected_waits, ranked
from .fairness import behind, over_share, within
from .job import Ints, Snapshot
from .lengths import Floats
from .memory import HostMemoryPlan, plan_host_memory
from .plan import Limits, Plan, Ranks, coarse_ms, diff
from .predicted_work import pod_seconds
from .rank import Policy, late, lateness_of, levels, order_of, prefill_tokens, view_of
from .reports import Phase
from .turnover import frees_soon, running_first, spared_levels


@dataclass(frozen=True, slots=True)
class Decision:
    plan: Plan
    # Everything that the engine should know; the plan holds the part that has changed.
    ranks: Ranks
    limits: Limits
    load: Load
    # Rows of the snapshot, best first.
    rows: Ints
    waits_seconds: Floats
    host_memory: HostMemoryPlan
    # The queue that arriving requests meet. Built only when a wait has to be predicted.
    backlog: Callable[[], Backlog]
    # Marks jobs over their tenant's share; None when the slots suffice for all tenants.
    over_share: NDArray[np.bool_] | None = None
    # Marks jobs that can no longer be in time (`rank.late`).
    is_late: NDArray[np.bool_] | None = None
    # Time that the pod needs for all jobs while it is full (core/predicted_work.py).
    pod_seconds: float = 0.0


def decide(snapshot: Snapshot, policy: Policy, sent_limits: Limits | None = None, draining: bool = False) -> Decision:
    """Make the plan for this snapshot. Pure: the same arguments give the same decision. It takes about 1 ms for 1,000 jobs."""
    # 1. How much work is left in each job?
    view = view_of(snapshot)
    work = view.remaining_seconds * snapshot.samples
    # 2. How loaded is the engine?
    slots = effective_slots(snapshot.engine, snapshot.prompt_tokens + snapshot.generated_tokens)
    backlog = float(work.sum()) / slots
    context = snapshot.prompt_tokens + snapshot.generated_tokens
    pod = pod_seconds(snapshot.cost.coefficients, snapshot.engine, prefill_tokens(snapshot), view.left_tokens, context)
    # 3. Order them, so that no job starves and no tenant takes another's share.
    is_late = late(view, lateness_of(policy))
    level = levels(view, policy, backlog, slots, is_late)
    backlog_of_all = partial(backlog_of, snapshot, level, work, slots)
    soon = frees_soon(snapshot, view.remaining_seconds, policy.preemption)
    over = over_share(running_first(level, snapshot) if soon else level, snapshot, slots)
    if over is not None:
        level = np.where(over, behind(level), within(level))
    rows = ranked(level, snapshot.order)
    # 4. How long until each gets its turn?
    waits = expected_waits(rows, level, snapshot, work, slots, policy, backlog, is_late)
    # 5. How much host memory do the jobs need that leave the device?
    host_memory = plan_host_memory(rows, waits, snapshot, slots, policy.memory)
    # 6. Tell the engine what changed.
    limits = Limits(
        preempt_levels=policy.preemption.levels,
        min_quantum_steps=policy.preemption.min_quantum_steps if over is None else 0,
        int8_ewt_ms=host_memory.int8_ewt_ms,
        int8_host_fraction=host_memory.int8_host_fraction,
        host_budget_bytes=host_memory.host_budget_bytes,
        spared_levels=spared_levels(soon, over is not None),
    )
    arrived = snapshot.phase != Phase.ADMITTED
    ranks = Ranks(snapshot.jobs, level, order_of(snapshot.order), coarse_ms(waits), snapshot.rankable & arrived)
    load = Load(len(snapshot), work_by_level(level, work), slots, draining)
    plan = diff(ranks, limits, snapshot.sent, sent_limits)
    return Decision(
        plan, ranks, limits, load, rows, waits, host_memory, backlog_of_all, over, is_late, float((pod * snapshot.samples).sum())
    )

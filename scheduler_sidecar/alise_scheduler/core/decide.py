"""Choose who runs, who waits and whose KV cache leaves the device. The same function serves production and simulation."""

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
from .memory import Placement, place
from .plan import Limits, Plan, Ranks, coarse_ms, diff
from .rank import Policy, late, lateness_of, levels, look, order_of
from .reports import Phase


@dataclass(frozen=True, slots=True)
class Decision:
    plan: Plan
    # All that is wanted; the plan holds what of it is new.
    ranks: Ranks
    limits: Limits
    load: Load
    # Rows of the snapshot, best first.
    rows: Ints
    waits_seconds: Floats
    placement: Placement
    # The jobs as newcomers find them; made when a wait has to be predicted.
    backlog: Callable[[], Backlog]
    # Rows of jobs over their tenant's share; None when there is enough for all.
    over_share: NDArray[np.bool_] | None = None


def decide(snapshot: Snapshot, policy: Policy, sent_limits: Limits | None = None, draining: bool = False) -> Decision:
    """The plan for this snapshot. Pure: the same arguments give the same decision. Fast: columns, 1,000 jobs in under 1 ms."""
    # 1. How much work is left in each job?
    view = look(snapshot)
    work = view.remaining_seconds * snapshot.samples
    # 2. How loaded is the engine?
    slots = effective_slots(snapshot.engine, snapshot.prompt_tokens + snapshot.generated_tokens)
    backlog = float(work.sum()) / slots
    # 3. Order them; nobody starves, and no tenant takes another's share.
    is_late = late(view, lateness_of(policy))
    level = levels(view, policy, backlog, slots, is_late)
    backlog_of_all = partial(backlog_of, snapshot, level, work, slots)
    over = over_share(level, snapshot, slots)
    if over is not None:
        level = np.where(over, behind(level), within(level))
    rows = ranked(level, snapshot.order)
    # 4. How long until each gets its turn?
    waits = expected_waits(rows, level, snapshot, work, slots, policy, backlog, is_late)
    # 5. Keep on the device what runs soonest; the host takes the rest.
    placement = place(rows, waits, snapshot, slots, policy.memory)
    # 6. Tell the engine what changed.
    limits = Limits(
        preempt_levels=policy.preemption.levels,
        min_quantum_steps=policy.preemption.min_quantum_steps if over is None else 0,
        int8_ewt_ms=placement.int8_ewt_ms,
        int8_host_fraction=placement.int8_host_fraction,
        host_budget_bytes=placement.host_budget_bytes,
    )
    arrived = snapshot.phase != Phase.ADMITTED
    ranks = Ranks(snapshot.jobs, level, order_of(snapshot.order), coarse_ms(waits), snapshot.rankable & arrived)
    load = Load(len(snapshot), work_by_level(level, work), slots, draining)
    return Decision(diff(ranks, limits, snapshot.sent, sent_limits), ranks, limits, load, rows, waits, placement, backlog_of_all, over)

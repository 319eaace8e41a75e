"""Choose who runs, who waits and whose KV cache leaves the device. The same function serves production and simulation."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .admit import Load, work_by_level
from .ewt import effective_slots, expected_waits, ranked
from .job import Snapshot
from .lengths import Floats, remaining_mean
from .memory import Placement, place
from .plan import Limits, Plan, Rank, coarse_ms, diff
from .rank import Policy, View, levels, order_of, prefill_tokens
from .reports import Phase


@dataclass(frozen=True, slots=True)
class Decision:
    plan: Plan
    # All that is wanted, by job; the plan holds what of it is new.
    wanted: Mapping[str, Rank]
    limits: Limits
    load: Load
    waits_seconds: Floats
    placement: Placement


def decide(snapshot: Snapshot, policy: Policy, sent_limits: Limits | None = None, draining: bool = False) -> Decision:
    """The plan for this snapshot. Pure: the same arguments give the same decision. Fast: columns, 1,000 jobs in about 2 ms."""
    # 1. How much work is left in each job?
    tokens_left = remaining_mean(snapshot.lengths, snapshot.generated_tokens, snapshot.limit_tokens)
    context = snapshot.prompt_tokens + snapshot.generated_tokens
    remaining = snapshot.cost.seconds_left(prefill_tokens(snapshot), tokens_left, context)
    work = remaining * snapshot.samples
    # 2. How loaded is the engine?
    slots = effective_slots(snapshot.engine, context)
    backlog = float(work.sum()) / slots
    # 3. Order them; nobody starves.
    level = levels(View(snapshot, remaining), policy, backlog)
    rows = ranked(level, snapshot.order)
    # 4. How long until each gets its turn?
    waits = expected_waits(rows, level, snapshot, remaining, slots, policy, backlog)
    # 5. Keep on the device what runs soonest; the host takes the rest.
    placement = place(rows, waits, snapshot, slots, policy.memory)
    # 6. Tell the engine what changed.
    limits = Limits(
        preempt_levels=policy.preemption.levels,
        min_quantum_steps=policy.preemption.min_quantum_steps,
        int8_ewt_ms=placement.int8_ewt_ms,
        int8_host_fraction=placement.int8_host_fraction,
        host_budget_bytes=placement.host_budget_bytes,
    )
    known = snapshot.rankable & (snapshot.phase != Phase.ADMITTED)
    columns = (level.tolist(), snapshot.order.tolist(), coarse_ms(waits).tolist(), known.tolist())
    wanted = {
        job: Rank(lv, order_of(order), False, ewt_ms) for job, lv, order, ewt_ms, ok in zip(snapshot.jobs, *columns, strict=True) if ok
    }
    pending = int(np.isin(snapshot.phase, (Phase.ADMITTED, Phase.WAITING)).sum())
    load = Load(pending, len(snapshot), work_by_level(level, work), slots, draining)
    return Decision(diff(wanted, limits, snapshot.sent, sent_limits), wanted, limits, load, waits, placement)

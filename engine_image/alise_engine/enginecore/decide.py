"""Decides how the engine carries out the plan: pure functions over frozen data.

The scheduler mixin (`scheduler.py`) passes the queues as they are between two steps and carries out the answers. Lower priority runs first;
priority is `level * 2^32 + order` as in `alise_contract.names`, and ties go to the earlier arrival. `alise_simulator/preemption.py` decides
what `choose_preemptions()` does; a test compares the two.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

import msgspec

from alise_contract.names import MIN_LEVEL, NEUTRAL_LEVEL, PLAN_EXPIRES_SECONDS, pack_priority, unpack_priority

from ..wire.calls import LimitsRow, RankRow
from ..wire.terms import CODEC_AUTO, CODEC_INT8, CODEC_RAW

NEUTRAL_PRIORITY: Final = pack_priority(NEUTRAL_LEVEL, 0)
# Added to the time that a transfer takes: plans are renewed every few tens of milliseconds and estimates are coarse.
PREFETCH_MARGIN_MS: Final = 500


class Cause(Enum):
    """Why a running request was preempted."""

    RANK = "rank"
    MEMORY = "memory"
    # Its KV turned out not to be what it should be: a copy could not be read, or the weights have changed.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Plan:
    """The ranks and limits that the sidecar applied last. Clock readings are of the engine's monotonic clock."""

    ranks: Mapping[str, RankRow]
    limits: LimitsRow
    # None: nothing was ever applied.
    applied_seconds: float | None = None


EMPTY_PLAN: Final = Plan({}, LimitsRow())


def is_fresh(plan: Plan, now_seconds: float) -> bool:
    """Returns whether the plan is recent enough to be carried out."""
    return plan.applied_seconds is not None and now_seconds - plan.applied_seconds < PLAN_EXPIRES_SECONDS


def apply(plan: Plan, ranks: Sequence[RankRow], limits: LimitsRow | None, known_jobs: frozenset[str], now_seconds: float) -> Plan:
    """Returns the plan with the changes; ranks of jobs that the engine does not have are left out."""
    changed = {rank.job_id: rank for rank in ranks if rank.job_id in known_jobs}
    if limits is not None and limits.host_budget_bytes == 0:
        limits = msgspec.structs.replace(limits, host_budget_bytes=plan.limits.host_budget_bytes)
    return Plan({**plan.ranks, **changed}, limits or plan.limits, now_seconds)


def forget(plan: Plan, job_id: str) -> Plan:
    """Returns the plan without a job that has left the engine."""
    if job_id not in plan.ranks:
        return plan
    return replace(plan, ranks={known: rank for known, rank in plan.ranks.items() if known != job_id})


def priority_of(rank: RankRow | None, stamped_priority: int, fresh: bool) -> int:
    """Returns a request's priority: its job's rank, else its stamp. Without a fresh plan it is neutral, so that requests run by arrival."""
    if not fresh:
        return NEUTRAL_PRIORITY
    return stamped_priority if rank is None else pack_priority(rank.level, rank.order)


@dataclass(frozen=True, slots=True)
class Running:
    request_id: str
    priority: int
    arrival_seconds: float
    # Device blocks that only this request uses.
    own_blocks: int
    # Since it was (re)admitted.
    steps: int
    # Number of its LoRA adapter; 0: none.
    adapter: int = 0

    def worst_first(self) -> tuple[int, float]:
        return (-self.priority, -self.arrival_seconds)


@dataclass(frozen=True, slots=True)
class Waiting:
    request_id: str
    priority: int
    arrival_seconds: float
    # Device blocks it takes from the free ones to be admitted.
    needs_blocks: int
    # Number of its LoRA adapter; 0: none.
    adapter: int = 0


def choose_preemptions(
    running: Sequence[Running], waiting: Sequence[Waiting], free_slots: int, free_blocks: int, limits: LimitsRow, max_adapters: int = 0
) -> tuple[str, ...]:
    """Returns the ids of requests to preempt, worst first, so that better-ranked waiting requests can run.

    `waiting` is in the order of admission. Like the scheduler, this stops at the first request that does not fit. No request is preempted
    for one that would not fit even then. `max_adapters` LoRA adapters run at the same time; a request of another one is skipped, unless all
    requests of one that runs can make room for it. Requests of the spared levels are preempted for nothing else.
    """
    if limits.preempt_levels == 0:
        return ()
    victims = sorted((r for r in running if r.steps >= limits.min_quantum_steps), key=Running.worst_first)
    adapters = Counter(r.adapter for r in running if r.adapter)
    chosen: list[str] = []
    for candidate in waiting:
        # 1. Is there a place for its adapter? If not, all requests of another adapter go first.
        leaving = _adapter_to_leave(candidate, victims, adapters, max_adapters, limits)
        if leaving is None:
            continue
        victims = [*leaving, *(victim for victim in victims if victim not in leaving)]
        # 2. The worst victims go until it fits.
        taken, slots, blocks = 0, free_slots, free_blocks
        while taken < len(leaving) or slots < 1 or blocks < candidate.needs_blocks:
            if taken == len(victims) or not outranks(candidate.priority, victims[taken].priority, limits):
                return tuple(chosen)
            if taken >= len(leaving) and is_spared(victims[taken].priority, limits):
                return tuple(chosen)
            slots += 1
            blocks += victims[taken].own_blocks
            taken += 1
        # 3. It fits: they do go, and it takes its place.
        chosen += [victim.request_id for victim in victims[:taken]]
        adapters.subtract(victim.adapter for victim in victims[:taken] if victim.adapter)
        adapters = +(adapters + Counter([candidate.adapter] if candidate.adapter else []))
        victims = victims[taken:]
        free_slots, free_blocks = slots - 1, blocks - candidate.needs_blocks
    return tuple(chosen)


def _adapter_to_leave(
    candidate: Waiting, victims: Sequence[Running], adapters: Counter[int], max_adapters: int, limits: LimitsRow
) -> tuple[Running, ...] | None:
    """Returns the requests that have to go so that there is a place for the candidate's adapter; None if there is no way.

    `adapters` counts the running requests of each adapter. Only an adapter all of whose requests may go can leave; among several, it is the
    one whose best request ranks lowest.
    """
    if not candidate.adapter or candidate.adapter in adapters or len(adapters) < max_adapters:
        return ()
    outranked: dict[int, list[Running]] = {}
    for victim in victims:
        if victim.adapter and outranks(candidate.priority, victim.priority, limits):
            outranked.setdefault(victim.adapter, []).append(victim)
    whole = [tuple(members) for adapter, members in outranked.items() if len(members) == adapters[adapter]]
    return min(whole, key=lambda members: members[-1].worst_first(), default=None)


@dataclass(frozen=True, slots=True)
class Parked:
    """A waiting request as the prefetch sees it. One that never ran has nothing to restore."""

    request_id: str
    priority: int
    # Device blocks that it takes from the free ones to be admitted.
    needs_blocks: int
    # Of its copy on the host; 0: there is none.
    host_blocks: int
    ewt_ms: int
    # Its blocks are reserved already, and restored or on their way.
    prefetched: bool = False


@dataclass(frozen=True, slots=True)
class Pace:
    """The speed of a prefetch: blocks per step, and the duration of a step."""

    blocks_per_step: int
    step_seconds: float

    def is_near(self, parked: Parked) -> bool:
        """Returns whether the request's turn comes before the transfer would end, with a margin."""
        transfer_seconds = -(-parked.host_blocks // self.blocks_per_step) * self.step_seconds
        return parked.ewt_ms <= transfer_seconds * 1000 + PREFETCH_MARGIN_MS


def choose_prefetches(waiting: Sequence[Parked], spare_blocks: int, pace: Pace, limits: LimitsRow) -> tuple[str, ...]:
    """Returns the ids of requests whose KV to restore before there is a slot for them, best first.

    `waiting` is in the order of admission; `spare_blocks` are free blocks that running requests do not need next. A better-ranked arrival
    is never overtaken: blocks of all requests before a candidate are left to them, and the first one that does not fit ends the search.
    Blocks reserved for requests that are enough levels worse count as spare, because they are taken back when they are needed.
    """
    chosen = []
    reserved = [other for other in waiting if other.prefetched] if limits.preempt_levels else []
    promised_blocks = 0
    for place, candidate in enumerate(waiting):
        if candidate.prefetched:
            continue
        promised_blocks += candidate.needs_blocks
        revocable_blocks = sum(other.needs_blocks for other in reserved if outranks(candidate.priority, other.priority, limits))
        if promised_blocks > spare_blocks + revocable_blocks:
            break
        if candidate.host_blocks and (place == 0 or pace.is_near(candidate)):
            chosen.append(candidate.request_id)
    return tuple(chosen)


def outranks(priority: int, other: int, limits: LimitsRow) -> bool:
    """Returns whether the first priority is enough levels better to take the other's place."""
    return unpack_priority(other)[0] - unpack_priority(priority)[0] >= limits.preempt_levels


def is_spared(priority: int, limits: LimitsRow) -> bool:
    """Returns whether a running request of this priority keeps its slot and KV memory whatever waits."""
    return unpack_priority(priority)[0] - MIN_LEVEL < limits.spared_levels


def choose_codec(codec: str, ewt_ms: int, host_used_bytes: int, host_budget_bytes: int, limits: LimitsRow) -> str:
    """Returns the codec of the next save: as set, or with `auto` raw while the expected wait is short and the store has room."""
    if codec != CODEC_AUTO:
        return codec
    roomy = host_used_bytes < limits.int8_host_fraction * host_budget_bytes
    return CODEC_RAW if ewt_ms < limits.int8_ewt_ms and roomy else CODEC_INT8

"""Restores KV before its request's turn: reserves blocks for waiting requests, and takes them back.

A prefetched request keeps its place in the waiting queue, so it overtakes no other; it only gets blocks. They are filled from the host in
slices, in steps of running requests (`kv.connector`), whether or not there is a slot. The copy on the host stays until the request ends,
so the blocks can be taken back at any time:

    running requests are short of blocks        the worst-ranked prefetch is revoked, before any running request is preempted
    a waiting request is short of blocks        prefetches ranked behind it are revoked, worst first
    its copy is dropped                         it is revoked
    the prefix cache is reset                   all are revoked

vLLM's own asynchronous loads have none of this: they need a free slot to start, cannot be revoked, and overtake all that wait.
`scheduler.py` creates it and calls it.
"""

from collections.abc import Iterable
from typing import Any

from ..compat import kv_blocks, request_access, scheduler_access
from ..wire.terms import PHASE_OFFLOADED, PHASE_PREEMPTED, PHASE_RESTORING
from . import decide
from .decide import Pace, Parked, Plan

Request = Any
Scheduler = Any


class Prefetcher:
    """Acts on a scheduler that has our connector. Has no state of its own: the connector's books list what is prefetched."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._connector = scheduler.connector
        kv_blocks.ask_when_full(scheduler, self._make_room)

    def start(self, candidates: Iterable[Request], plan: Plan, step_seconds: float, now_seconds: float) -> None:
        """Reserves blocks for the next waiting requests, after a step was scheduled. `candidates` are in the order of admission."""
        scheduler = self._scheduler
        parked = [self._view(request, plan) for request in candidates if request_access.can_be_admitted(request)]
        if not any(row.host_blocks and not row.prefetched for row in parked):
            return
        pace = Pace(self._connector.prefetch_blocks_per_step, step_seconds)
        for request_id in decide.choose_prefetches(parked, kv_blocks.spare_blocks(scheduler), pace, plan.limits):
            tokens = kv_blocks.reserve_blocks(scheduler, scheduler.requests[request_id])
            if tokens is not None:
                self._connector.prefetch(request_id, tokens, kv_blocks.block_ids(scheduler, request_id))
                scheduler.tracker.enter(request_id, PHASE_RESTORING, now_seconds)
                scheduler.tally["prefetches"] += 1

    def keep_in_rank(self) -> None:
        """Moves prefetched requests back to the ranked queue, after a step was scheduled: vLLM would serve them before the others."""
        if self._connector.prefetched:
            scheduler_access.keep_in_rank(self._scheduler, self._connector.prefetched)

    def revoke(self, request_ids: Iterable[str]) -> None:
        """Takes the reserved blocks of these requests back; their copies on the host stay."""
        for request_id in [request_id for request_id in request_ids if request_id in self._connector.prefetched]:
            self._connector.revoke(request_id)
            kv_blocks.release_blocks(self._scheduler, self._scheduler.requests[request_id])
            phase = PHASE_OFFLOADED if self._connector.copy(request_id).tokens else PHASE_PREEMPTED
            self._scheduler.tracker.enter(request_id, phase, self._scheduler.clock())
            self._scheduler.tally["prefetches_revoked"] += 1

    def revoke_all(self) -> None:
        self.revoke(tuple(self._connector.prefetched))

    def prefetched(self) -> list[Request]:
        return [self._scheduler.requests[request_id] for request_id in self._connector.prefetched]

    def _make_room(self, request: Request) -> bool:
        """Revokes the worst prefetch that a request without blocks may take from. Returns whether there was one."""
        may_take = [
            other for other in self.prefetched() if other is not request and (request_access.is_running(request) or request < other)
        ]
        if may_take:
            self.revoke((max(may_take).request_id,))
        return bool(may_take)

    def _view(self, request: Request, plan: Plan) -> Parked:
        rank = plan.ranks.get(self._scheduler.tracker.requests[request.request_id].job_id)
        return Parked(
            request.request_id,
            request.priority,
            kv_blocks.needed_blocks(self._scheduler, request),
            self._connector.copy(request.request_id).blocks if request_access.may_be_saved(request) else 0,
            rank.ewt_ms if rank is not None else 0,
            request.request_id in self._connector.prefetched,
        )

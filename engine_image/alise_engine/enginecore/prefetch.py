"""KV that comes back before its request's turn: who gets blocks reserved, and who has to give them back.

A prefetched request stays where it is in the waiting queue, so it never overtakes; all it has is blocks. They are filled from the host in
slices, in steps of requests that run (`kv.connector`), whether or not there is a slot. The copy on the host stays until the request
ends, so the blocks can be given to somebody else at any time, and are:

    running requests are short of blocks        the worst-ranked prefetch is revoked, before any running request is preempted
    a waiting request is short of blocks        prefetches ranked behind it are revoked, worst first
    its job is held, its copy is dropped        it is revoked
    the prefix cache is reset                   all are revoked

vLLM's own asynchronous loads have none of this: they need a free slot to start, cannot be revoked, and overtake all that wait.
"""

from collections.abc import Iterable
from typing import Any

from ..compat import kv_blocks, request_access, scheduler_access
from ..wire.calls import PHASE_OFFLOADED, PHASE_PREEMPTED, PHASE_RESTORING
from . import decide
from .decide import Pace, Parked, Plan

Request = Any
Scheduler = Any


class Prefetcher:
    """Acts on a scheduler that has our connector. Nothing is kept here: what is prefetched is in the connector's books."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._connector = scheduler.connector
        kv_blocks.ask_when_full(scheduler, self._make_room)

    def start(self, candidates: Iterable[Request], plan: Plan, step_seconds: float, now_seconds: float) -> None:
        """After a step was scheduled: reserves blocks for waiting requests that are next. `candidates` in the order of admission."""
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
        """After a step was scheduled: nobody who has blocks reserved stands in a queue that is served before the others."""
        if self._connector.prefetched:
            scheduler_access.keep_in_rank(self._scheduler, self._connector.prefetched)

    def revoke(self, request_ids: Iterable[str]) -> None:
        """Takes the blocks back of those that have some reserved; their copies on the host, if there are any, stay."""
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
        """Blocks are short for this request: revokes the worst prefetch that it may take from. False: there is none."""
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

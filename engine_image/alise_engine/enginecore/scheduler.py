"""Extends vLLM's scheduler to carry out the plan: worse-ranked requests are preempted before a step, then the base class schedules.

A mixin over `Scheduler` and `AsyncScheduler`; `serve/plugin.py` has the name of `make_scheduler` for `--scheduler-cls`; it picks one by
`async_scheduling`. Decisions are made in `decide` and `kv.ledger`; this module passes them the queues, acts, and reports to the `Tracker`.
EngineCore is single-threaded: utility calls arrive in `__call__` between two steps, so there are no locks.

One step:
    1. Is the plan still fresh? Without one, requests run in order of arrival.
    2. Preempt running requests that are enough levels worse than waiting ones.
    3. The base class admits, restores through the connector, preempts for memory, and schedules.
    4. Note which requests were admitted, and how their KV was brought back.
    5. Start to bring KV back whose request's turn is near.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.version import __version__ as vllm_version

from ..compat import kv_blocks, patches, refusals, request_access, scheduler_access
from ..kv.ledger import Holder
from ..wire.calls import ApplyAnswer, ApplyCall, PollCall, SnapshotCall, decode_call, encode
from ..wire.stamp import NEUTRAL_PRIORITY, Stamp, read_stamp
from ..wire.terms import CODEC_RAW, PHASE_OFFLOADED, PHASE_PREEMPTED, PHASE_RUNNING
from . import decide, report
from .decide import Cause
from .prefetch import Prefetcher
from .ranked_queue import RankedQueue
from .settings import check_codec, check_connector, configured_codec, stamp_key
from .steps import Steps
from .tracker import HostCopy, Tracker

logger = init_logger("vllm.alise.scheduler")

# Waiting requests that are considered per step, for preemption by rank and for prefetches.
CANDIDATES: Final = 8

Request = Any

_PRIORITY: Final = attrgetter("priority")
UNSTAMPED: Final = Stamp("", NEUTRAL_PRIORITY)


# To the type checker the base is vLLM's (which it does not read); at run time the scheduler comes in behind the mixin.
if TYPE_CHECKING:
    Base = Any
else:
    Base = object


class AliseMixin(Base):
    """Needs a vLLM scheduler behind it in the MRO."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        refusals.check_version(vllm_version)
        refusals.check_config(kwargs["vllm_config"])
        super().__init__(*args, **kwargs)
        check_connector(self.connector)
        kv_blocks.free_at_once(self)
        if self.connector is not None:
            refusals.check_kv_cache(self.kv_cache_config)
        self.clock: Callable[[], float] = time.monotonic
        self.plan = decide.EMPTY_PLAN
        self.codec = configured_codec(self.vllm_config.additional_config)
        check_codec(self.codec, self.connector)
        self._stamp_key = stamp_key(self.vllm_config.additional_config)
        self.tracker = Tracker()
        self.tally: Counter[str] = Counter()
        self.steps = Steps(self.tracker, self.tally)
        self._fresh = False
        self._queues_stale = False
        self._cause = Cause.MEMORY
        self._ranked = RankedQueue()
        scheduler_access.use_priorities(self, self._ranked)
        self._prefetcher = Prefetcher(self) if self.connector is not None else None
        # KV blocks were short in the step that is being scheduled.
        self._kv_full = False
        kv_blocks.notice_when_full(self, self._note_kv_full)

    # --- one step -------------------------------------------------------------------------------------------------------------------
    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        now = self.clock()
        self._refresh(now)
        if scheduler_access.admits(self):
            self._preempt_by_rank()
        self._kv_full = False
        output = super().schedule(*args, **kwargs)
        # A prefetch that finds no blocks, below, keeps no request waiting.
        kv_full = self._kv_full
        if self.connector is not None and output.kv_connector_metadata.feeds_this_step():
            output.has_sync_kv_loads = True
        self._note_admissions(output, now)
        self._prefetch(now)
        self.steps.scheduled(
            output.num_scheduled_tokens,
            output.total_num_scheduled_tokens,
            self.requests,
            scheduler_access.context_tokens(output),
            now,
            kv_full=kv_full,
        )
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        self._start_over_where_loads_failed(scheduler_output, model_runner_output)
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self.steps.over(scheduler_output.num_scheduled_tokens, self.clock())
        if self.connector is not None:
            self.connector.take_spent(self.tally)
        return outputs

    def _refresh(self, now: float) -> None:
        fresh = decide.is_fresh(self.plan, now)
        if fresh != self._fresh:
            self._fresh, self._queues_stale = fresh, True
            if not fresh:
                logger.info("alise: the plan has expired; requests run in order of arrival")
        if self._queues_stale:
            self._queues_stale = False
            with scheduler_access.reordered_heaps(self):
                for tracked in self.tracker.requests.values():
                    tracked.request.priority = self._priority(tracked.job_id, tracked.stamped_priority)

    def _prefetch(self, now: float) -> None:
        if self._prefetcher is None:
            return
        self._prefetcher.keep_in_rank()
        if self._fresh and self._ranked and self.connector.ledger.used_bytes() and scheduler_access.admits(self):
            self._prefetcher.start(self._ranked.best(CANDIDATES), self.plan, self.steps.step_seconds, now)

    def _preempt_by_rank(self) -> None:
        limits, max_adapters = self.plan.limits, scheduler_access.max_adapters(self)
        if not self._fresh or not self._ranked or not self.running or limits.preempt_levels == 0:
            return
        # Cheap, and true in most steps: the worst that runs is not bad enough for the best that waits.
        worst = max(map(_PRIORITY, self.running))
        if not decide.outranks(self._ranked.peek_request().priority, worst, limits):
            return
        spared = decide.is_spared(worst, limits)
        if spared and not max_adapters:
            return
        waiting = [request for request in self._ranked.best(CANDIDATES) if request_access.can_be_admitted(request)]
        if not waiting or not decide.outranks(waiting[0].priority, worst, limits):
            return
        if spared and not any(request_access.adapter(request) for request in waiting):
            return
        chosen = decide.choose_preemptions(
            [self._running_view(request) for request in self.running],
            [self._waiting_view(request) for request in waiting],
            scheduler_access.free_slots(self),
            kv_blocks.free_blocks(self),
            limits,
            max_adapters,
        )
        for request_id in chosen:
            self._evict(self.requests[request_id], Cause.RANK)

    def _note_kv_full(self) -> None:
        self._kv_full = True

    def _running_view(self, request: Request) -> decide.Running:
        # The base class counts the step that it is about to make when it makes it.
        steps = self.current_step - self.tracker.requests[request.request_id].admitted_step + 1
        own_blocks = kv_blocks.own_blocks(self, request.request_id)
        adapter = request_access.adapter(request)
        return decide.Running(request.request_id, request.priority, request.arrival_time, own_blocks, steps, adapter)

    def _waiting_view(self, request: Request) -> decide.Waiting:
        blocks, adapter = kv_blocks.needed_blocks(self, request), request_access.adapter(request)
        return decide.Waiting(request.request_id, request.priority, request.arrival_time, blocks, adapter)

    def _evict(self, request: Request, cause: Cause) -> None:
        self.running.remove(request)
        self._cause = cause
        try:
            self._preempt_request(request, time.monotonic(), drop_stale_output=self.requires_kv_delivery or cause is Cause.LOST)
        finally:
            self._cause = Cause.MEMORY

    def _start_over_where_loads_failed(self, scheduler_output: Any, model_runner_output: Any) -> None:
        """Preempts the requests that computed with blocks which could not be loaded, and drops their tokens since.

        vLLM's own recovery goes on with a token that was never sampled when the next step is in flight already.
        """
        blocks = scheduler_access.take_load_errors(model_runner_output)
        if not blocks or self._prefetcher is None:
            return
        loads = scheduler_output.kv_connector_metadata.loads
        failed = {load.request_id for load in loads if blocks.intersection(load.block_ids)}
        sharing = {r.request_id for r in self.running if blocks.intersection(kv_blocks.block_ids(self, r.request_id))}
        logger.warning("alise: KV of %d requests could not be restored from the host store; it is recomputed", len(failed | sharing))
        for request in [self.requests[request_id] for request_id in sorted(failed | sharing) if request_id in self.requests]:
            kv_blocks.forget_cached_blocks(self, request.request_id)
            if request_access.is_running(request):
                self._evict(request, Cause.LOST)
            else:
                # Preempted since: its KV is on the host, and its last token is still to come.
                request.drop_stale_output = True
            self._prefetcher.revoke((request.request_id,))
            self.connector.drop(request.request_id)
            self.tracker.enter(request.request_id, PHASE_PREEMPTED, self.clock())

    def _note_admissions(self, output: Any, now: float) -> None:
        for request_id in scheduler_access.admitted_in(output):
            request, tracked = self.requests[request_id], self.tracker.requests[request_id]
            if tracked.phase == PHASE_RUNNING:
                continue
            tracked.admitted_step = self.current_step
            restored = lost = 0
            if request.num_preemptions:
                restored = self.connector.take_loaded(request_id) if self.connector is not None else 0
                lost = self.steps.resumed(tracked, restored, output.num_scheduled_tokens[request_id])
            self.tracker.enter(request.request_id, PHASE_RUNNING, now, restored, Cause.LOST.value if lost and not restored else "")

    # --- the life of a request ------------------------------------------------------------------------------------------------------
    def add_request(self, request: Request) -> None:
        if request.request_id not in self.tracker.requests:
            # What this pod's API server did not sign counts as nothing: no job, no hint, and the neutral rank.
            stamp = read_stamp(request_access.extra_args(request), self._stamp_key) or UNSTAMPED
            request.priority = stamp.priority
            tracked = self.tracker.add(request, stamp.job_id, stamp.hint, self.clock(), request_access.is_traced(request))
            request.priority = self._priority(stamp.job_id, tracked.stamped_priority)
        super().add_request(request)

    def _preempt_request(self, request: Request, timestamp: float, *args: Any, **kwargs: Any) -> None:
        tracked = self.tracker.requests[request.request_id]
        tracked.preempted_tokens = request.num_computed_tokens
        if request.num_preemptions and self.current_step - tracked.admitted_step <= 1:
            # What was loaded for its last step may still turn out to be missing, when its blocks are its own no more.
            kv_blocks.forget_cached_blocks(self, request.request_id)
        if self.connector is not None and request_access.may_be_saved(request) and self._cause is not Cause.LOST:
            self._save(request)
        super()._preempt_request(request, timestamp, *args, **kwargs)
        self.steps.stopped(request.request_id)
        scheduler_access.forget_last_step(self, request.request_id)
        copied = self._host_copy(request.request_id).tokens > 0
        phase = PHASE_OFFLOADED if copied else PHASE_PREEMPTED
        self.tracker.enter(request.request_id, phase, self.clock(), tracked.preempted_tokens, self._cause.value)
        if self._cause is not Cause.LOST:
            self.tally[f"preemptions_{self._cause.value}"] += 1

    def _save(self, request: Request) -> None:
        """Hands the blocks to the connector; to be called while they are still the request's own."""
        connector, ledger = self.connector, self.connector.ledger
        budget = self._host_budget()
        wanted = decide.choose_codec(self.codec, self._ewt_ms(request.request_id), ledger.used_bytes(), budget, self.plan.limits)
        codec = wanted if wanted in connector.codecs() else CODEC_RAW
        saver = replace(self._holder(request.request_id), on_device=False)
        plan = ledger.plan_save(saver, request.num_computed_tokens, codec, self._holders(), budget)
        connector.save(plan, kv_blocks.block_ids(self, request.request_id))
        self._note_lost_copies(plan.evict)
        self.tally["saves"] += plan.blocks > 0
        self.tally["saved_bytes"] += plan.blocks * ledger.block_bytes[codec]

    def _note_lost_copies(self, request_ids: tuple[str, ...]) -> None:
        self.tally["host_evictions"] += len(request_ids)
        if self._prefetcher is not None:
            self._prefetcher.revoke(request_ids)
        for request_id in request_ids:
            if self.tracker.requests[request_id].phase == PHASE_OFFLOADED:
                self.tracker.enter(request_id, PHASE_PREEMPTED, self.clock())

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        self.steps.stopped(request.request_id)
        ended_job = self.tracker.finish(request.request_id, request_access.finish_reason(request), self.clock())
        if ended_job is not None:
            self.plan = decide.forget(self.plan, ended_job)
        return super()._free_request(request, *args, **kwargs)

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        if self._prefetcher is not None:
            self._prefetcher.revoke_all()
        if reset_running_requests or reset_connector:
            self._forget_copies()
        if reset_running_requests:
            # The weights have changed: what was computed with the old ones is worth nothing, on the host as on the device.
            self._cause = Cause.LOST
            try:
                return bool(super().reset_prefix_cache(reset_running_requests, reset_connector))
            finally:
                self._cause = Cause.MEMORY
        return bool(super().reset_prefix_cache(reset_running_requests, reset_connector))

    def _forget_copies(self) -> None:
        if self.connector is not None:
            offloaded = [request_id for request_id, tracked in self.tracker.requests.items() if tracked.phase == PHASE_OFFLOADED]
            self.connector.reset_cache()
            for request_id in offloaded:
                self.tracker.enter(request_id, PHASE_PREEMPTED, self.clock())

    # --- ranks ----------------------------------------------------------------------------------------------------------------------
    def _priority(self, job_id: str, stamped_priority: int) -> int:
        return decide.priority_of(self.plan.ranks.get(job_id), stamped_priority, self._fresh)

    def _ewt_ms(self, request_id: str) -> int:
        rank = self.plan.ranks.get(self.tracker.requests[request_id].job_id)
        return rank.ewt_ms if rank is not None and self._fresh else 0

    # --- the host store -------------------------------------------------------------------------------------------------------------
    def _holder(self, request_id: str) -> Holder:
        request = self.requests[request_id]
        return Holder(request_id, request_access.is_running(request), self._ewt_ms(request_id), request.arrival_time)

    def _holders(self) -> list[Holder]:
        return [self._holder(request_id) for request_id in self.connector.ledger.request_ids()]

    def _host_budget(self) -> int:
        asked = self.plan.limits.host_budget_bytes
        return min(asked, self.connector.host_bytes) if asked else int(self.connector.host_bytes)

    def _host_copy(self, request_id: str) -> HostCopy:
        if self.connector is None:
            return HostCopy()
        copy = self.connector.copy(request_id)
        return HostCopy(copy.tokens, self.connector.ledger.bytes_of(copy))

    # --- utility calls --------------------------------------------------------------------------------------------------------------
    def __call__(self, payload: bytes) -> bytes:
        """Carries out one call of `wire.calls`. Raises PayloadError, and then nothing has changed."""
        call, now = decode_call(payload), self.clock()
        match call:
            case SnapshotCall():
                return encode(self.tracker.snapshot(report.shape(self), report.counters(self), self._host_copy, now))
            case PollCall():
                return encode(self.tracker.poll(report.counters(self), self._host_copy, now))
            case ApplyCall():
                return encode(self._apply(call, now))

    def _apply(self, call: ApplyCall, now: float) -> ApplyAnswer:
        known = frozenset(self.tracker.jobs)
        self.plan = decide.apply(self.plan, call.ranks, call.limits, known, now)
        self._queues_stale |= bool(call.ranks)
        if self.connector is not None and call.limits is not None:
            lost = self.connector.ledger.plan_shrink(self._holders(), self._host_budget())
            for request_id in lost:
                self.connector.drop(request_id, evicted=True)
            self._note_lost_copies(lost)
        return ApplyAnswer(tuple(rank.job_id for rank in call.ranks if rank.job_id not in known))


class AliseScheduler(AliseMixin, Scheduler):
    """The synchronous scheduler, which vLLM uses on CPUs."""


class AliseAsyncScheduler(AliseMixin, AsyncScheduler):
    """Schedules a step while the one before it runs."""


def make_scheduler(*, vllm_config: Any, **kwargs: Any) -> Any:
    """Makes the scheduler (`--scheduler-cls`; vLLM only needs a callable). Raises ConfigError, whose message says what to change."""
    patches.keep_last_words()
    kind = AliseAsyncScheduler if vllm_config.scheduler_config.async_scheduling else AliseScheduler
    return kind(vllm_config=vllm_config, **kwargs)

"""Polls EngineCore for what changed: a utility call within 50 ms of a request that may begin a queue, one per 250 ms while the engine is
full, one per 500 ms while there is room, none when idle.

Every poll feeds the open Watch, the metrics, the status report and the drain. Polling runs while an HTTP request is open or the engine
has an active request (a background response outlives its HTTP request), and a little longer, so that no transition is missed.
`engine_api.py` creates it, and `server.py` opens a watch on it.
"""

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from ...errors import ControlError, CoreUnavailable, PayloadError, StaleSession
from ...wire.calls import Counters, EngineShape, PollAnswer, RequestRow, SnapshotAnswer, TraceRow
from ...wire.terms import PHASE_RUNNING
from ..kv_room import kv_room
from ..metrics import CoreView
from ..open_requests import OpenRequests
from . import core as core_calls
from .core import Core
from .mailbox import Changes, Mailbox

logger = logging.getLogger("vllm.alise.progress")

POLL_SECONDS: Final = 0.050
# Without a request that may begin a queue, a poll comes after this many POLL_SECONDS: while the engine is full, and while there is room.
FULL_LOOKS: Final = 5
CALM_LOOKS: Final = 10
# With less than this share of the KV blocks free, the next request may have to wait.
_FEW_BLOCKS: Final = 1 / 8
# Polls after the last sign of life.
LINGER_POLLS: Final = 4
# After a failed call; the engine is shutting down or gone.
RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Opening:
    """The first message of a session."""

    session_id: str
    answer: SnapshotAnswer
    draining: bool


class Watcher:
    """One open Watch: a mailbox, and how it ends."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        announced = frozenset(row.request_id for row in opening.answer.requests)
        self._mailbox = Mailbox(announced, opening.answer.counters, opening.draining)
        self._news = asyncio.Event()
        self._ended: ControlError | CoreUnavailable | None = None

    def put(self, answer: PollAnswer) -> None:
        try:
            self._mailbox.put(answer)
        except ControlError as error:
            self.end(error)
        if self._mailbox.changed:
            self._news.set()

    def put_draining(self, draining: bool) -> None:
        self._mailbox.put_draining(draining)
        if self._mailbox.changed:
            self._news.set()

    def end(self, why: ControlError | CoreUnavailable) -> None:
        self._ended = why
        self._news.set()

    async def changes(self) -> AsyncIterator[Changes]:
        """Merged changes as fast as they are read. Raises what `end` was called with."""
        while True:
            await self._news.wait()
            self._news.clear()
            if self._ended is not None:
                raise self._ended
            yield self._mailbox.take()


class Progress:
    """The only caller of `snapshot` and `poll`."""

    def __init__(
        self,
        core: Core,
        open_requests: OpenRequests,
        view: CoreView,
        on_rows: Callable[[Sequence[RequestRow], Sequence[str]], None] | None = None,
        on_failure: Callable[[], None] | None = None,
        is_urgent: Callable[[], bool] = lambda: False,
        on_traces: Callable[[Sequence[TraceRow]], None] = lambda traces: None,
    ) -> None:
        """`on_rows` is called with every changed row and the job of every request that ended, `on_failure` after every poll that failed
        because of a bug in alise, and `on_traces` with the stories of traced requests that ended, before `on_rows`; none may block.
        `is_urgent` returns whether polls have to follow each other closely.
        """
        self._core = core
        self._open_requests = open_requests
        self._view = view
        self._on_rows = on_rows
        self._on_failure = on_failure
        self._is_urgent = is_urgent
        self._on_traces = on_traces
        # An answer may have been lost on the way to `_live`: the next poll has to be a snapshot.
        self._stale = False
        self._live: dict[str, RequestRow] = {}
        self._shape: EngineShape | None = None
        self._watcher: Watcher | None = None
        self._draining = False
        # Calls in flight answer in order, but two of them must not be merged out of order.
        self._turn = asyncio.Lock()
        self._wake = asyncio.Event()
        open_requests.on_open(self._wake.set)

    @property
    def live_count(self) -> int:
        return len(self._live)

    def has(self, job_id: str) -> bool:
        """Returns whether a request of this job is active."""
        return any(row.job_id == job_id for row in self._live.values())

    @property
    def watched(self) -> bool:
        return self._watcher is not None

    async def learn(self) -> EngineShape:
        """The engine's shape, before the first request. Raises CoreUnavailable or PayloadError."""
        async with self._turn:
            return (await self._snapshot()).shape

    async def watch(self) -> Watcher:
        """Opens a session and ends the one before. Raises CoreUnavailable."""
        async with self._turn:
            # What the older watcher has not received must not be lost for the metrics: poll first, then take a snapshot.
            await self._poll()
            answer = await self._snapshot()
            watcher = Watcher(Opening(uuid.uuid4().hex, answer, self._draining))
            if self._watcher is not None:
                self._watcher.end(StaleSession("a newer session was opened"))
            self._watcher = watcher
        self._wake.set()
        return watcher

    def unwatch(self, watcher: Watcher) -> None:
        if self._watcher is watcher:
            self._watcher = None

    def set_draining(self, draining: bool) -> None:
        self._draining = draining
        if self._watcher is not None:
            self._watcher.put_draining(draining)

    async def refresh(self) -> None:
        """Learns the newest now. Raises CoreUnavailable."""
        async with self._turn:
            await self._poll()

    async def run(self) -> None:
        """Polls until cancelled; nothing else ends it."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            quiet_polls = 0
            while quiet_polls < LINGER_POLLS:
                if not await self._try_refresh():
                    await asyncio.sleep(RETRY_SECONDS)
                busy = self._open_requests.count > 0 or bool(self._live)
                quiet_polls = 0 if busy else quiet_polls + 1
                for _ in range(FULL_LOOKS if self._is_full() else CALM_LOOKS):
                    await asyncio.sleep(POLL_SECONDS)
                    if self._is_due():
                        break

    def _is_full(self) -> bool:
        """Whether the next request may have to wait for slots or KV blocks."""
        shape, view = self._shape, self._view
        few_blocks = shape is not None and view.counters.free_device_blocks < _FEW_BLOCKS * shape.num_device_blocks
        return shape is None or few_blocks or self._open_requests.count >= shape.max_num_seqs

    def _is_due(self) -> bool:
        """Whether to poll now rather than later: a request has come that is not known here, and it may be the first that has to wait.

        While others wait it has its place among them by its stamp. Who goes on and who ends is known a little later: the engine fills
        slots by itself.
        """
        open_count, live_count = self._open_requests.count, len(self._live)
        if self._shape is None or not open_count or self._is_urgent():
            return True
        running = self._view.requests_by_phase.get(PHASE_RUNNING, 0)
        return open_count > live_count and running == live_count and self._is_full()

    async def _try_refresh(self) -> bool:
        """Refreshes; returns whether that worked."""
        try:
            await self.refresh()
        except (CoreUnavailable, PayloadError) as error:
            logger.warning("the poll of EngineCore failed: %s", error)
            self._lost(error)
            return False
        except Exception as error:
            logger.exception("the poll of EngineCore failed because of a bug in alise; polling continues")
            if self._on_failure is not None:
                self._on_failure()
            self._lost(error)
            return False
        return True

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.end(CoreUnavailable("the engine is shutting down"))

    async def _snapshot(self) -> SnapshotAnswer:
        answer = await core_calls.snapshot(self._core)
        self._shape = answer.shape
        before, self._live = self._live, {row.request_id: row for row in answer.requests}
        # A snapshot names no endings: who is not in it any more has ended.
        self._tell_rows(answer.requests, [row.job_id for request_id, row in before.items() if request_id not in self._live])
        self._show(answer.counters)
        self._stale = False
        return answer

    async def _poll(self) -> None:
        if self._stale:
            await self._snapshot()
            return
        answer = await core_calls.poll(self._core)
        for row in answer.requests:
            self._live[row.request_id] = replace(row, hint="") if row.hint else row
        for ending in answer.finished:
            self._live.pop(ending.request_id, None)
        if answer.traces:
            self._on_traces(answer.traces)
        self._tell_rows(answer.requests, [ending.job_id for ending in answer.finished])
        self._show(answer.counters)
        if self._watcher is not None:
            self._watcher.put(answer)

    def _tell_rows(self, changed: Sequence[RequestRow], ended_jobs: Sequence[str]) -> None:
        if self._on_rows is not None:
            self._on_rows(changed, ended_jobs)

    def _show(self, counters: Counters) -> None:
        self._view.counters = counters
        if self._shape is not None:
            self._view.host_limit_bytes = self._shape.host_limit_bytes
            self._view.slots, self._view.model = self._shape.max_num_seqs, self._shape.model
            self._view.kv = kv_room(self._shape, counters)
        self._view.requests_by_phase = Counter(row.phase for row in self._live.values())

    def _lost(self, error: Exception) -> None:
        self._stale = True
        if self._watcher is not None:
            self._watcher.end(CoreUnavailable(str(error)))
            self._watcher = None

"""The tasks of the operator: workers that take AliseEngines from the queue, and the resync that adds all of them every few seconds.

__main__.py starts the `App`; watches.py and handlers.py add to its queue; its workers call reconcile.py. It touches the cluster only
through the reconciler.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

from alise_operator import metrics
from alise_operator.children.meta import Manifest
from alise_operator.errors import ApplyError, ClusterError, OperatorError, SpecError
from alise_operator.reads import Edition, Need
from alise_operator.reconcile import Key, Reconciler
from alise_operator.workqueue import SPACING_SECONDS, WorkQueue

log = logging.getLogger(__name__)

WORKERS: Final = 8
# The most workers for AliseEngines of one namespace, if the operator manages several namespaces.
WORKERS_PER_NAMESPACE: Final = 6
# A reconcile makes a few dozen calls, each with a deadline. After this time it is cancelled and retried later, so that one AliseEngine
# cannot delay the others.
RECONCILE_SECONDS: Final = 120.0
# The resync adds AliseEngines while fewer than this wait.
AHEAD: Final = 2 * WORKERS
# A reconcile that cannot even be cancelled hangs.
STUCK_SECONDS: Final = 300.0


class App:
    """Owns the queue and its workers. Use as an asynchronous context manager, inside the running loop."""

    def __init__(self, reconciler: Reconciler, *, resync_seconds: float, is_namespaced: bool = False) -> None:
        self.reconciler = reconciler
        self.queue: WorkQueue[Key] = WorkQueue(
            lambda seconds, call: asyncio.get_running_loop().call_later(seconds, call),
            group_of=lambda key: key.namespace,
            at_a_time=None if is_namespaced else WORKERS_PER_NAMESPACE,
            # Resyncs must not count as frequent changes.
            spacing_seconds=min(SPACING_SECONDS, resync_seconds / 2),
        )
        self._resync_seconds = resync_seconds
        self._started: dict[Key, float] = {}
        # As the watch last reported them; of those that existed before, as they were first listed.
        self._editions: dict[Key, Edition] = {}
        self._has_listed = False
        self._last_resync = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "App":
        self._tasks = [asyncio.create_task(self._work(), name=f"worker-{index}") for index in range(WORKERS)]
        self._tasks.append(asyncio.create_task(self._resync(), name="resync"))
        return self

    def run_beside(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Runs an endless task beside the workers. The process is unhealthy if it ends."""
        self._tasks.append(asyncio.create_task(work, name=name))

    async def __aexit__(self, *_: object) -> None:
        self.queue.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def changed(self, key: Key) -> None:
        """Requests a reconcile that reads the AliseEngine again."""
        self.reconciler.changed(key)
        self.queue.add(key)

    def needs(self, key: Key, need: Need) -> None:
        """Requests the reconcile that an AliseEngine needs after an event of one of its children."""
        match need:
            case Need.READ:
                self.changed(key)
            case Need.LOOK:
                self.queue.add(key)

    def edited(self, key: Key, meta: Manifest) -> None:
        """Requests a reconcile of an AliseEngine that a watch reported, with this metadata, unless it is as it was read.

        It goes before others if its spec is new, and not only its status.
        """
        edition, version = Edition.of(meta), str(meta.get("resourceVersion") or "")
        # Before the first list, what exists already is not known.
        is_new = self._has_listed and self._editions.get(key) != edition
        self._editions[key] = edition
        if self.reconciler.engine_changed(key, version):
            self.queue.add(key, first=is_new)

    def awaited(self, key: Key) -> None:
        """Requests a reconcile for which a client waits."""
        self.queue.add(key, first=True)

    def unhealthy(self) -> str | None:
        """Returns why this process should be restarted; None if it works."""
        now = time.monotonic()
        if now - self._last_resync > 4 * self._resync_seconds + STUCK_SECONDS:
            return f"no resync for {now - self._last_resync:.0f} s"
        stuck = [key for key, since in self._started.items() if now - since > STUCK_SECONDS]
        if stuck:
            return f"reconcile of {stuck[0]} has been running for more than {STUCK_SECONDS:.0f} s"
        dead = [task.get_name() for task in self._tasks if task.done()]
        return f"task {dead[0]} has ended" if dead else None

    def listed(self, found: Mapping[Key, Edition]) -> None:
        """Notes which AliseEngines there are. One that no watch has reported goes before others; at the start, none does.

        The list may be older than what a watch reported since.
        """
        before, self._editions = self._editions, {key: edition.or_later(self._editions.get(key)) for key, edition in found.items()}
        for key, edition in self._editions.items() if self._has_listed else ():
            if before.get(key) != edition:
                self.queue.add(key, first=True)
        # An empty list may also be one of an API that was not served for a moment; then all of the next one would be new.
        self._has_listed = bool(found) or not before

    async def _resync(self) -> None:
        """Lists every AliseEngine and adds it to the queue. The watches only make the operator react sooner."""
        while True:
            began, keys = time.monotonic(), dict[Key, Edition]()
            try:
                keys = await self.reconciler.all_keys()
                self.listed(keys)
            except (ClusterError, ApplyError) as error:
                log.warning("the AliseEngines could not be listed", extra={"error": str(error)})
            try:
                await self.reconciler.verify()
            except (ClusterError, ApplyError) as error:
                log.warning("the children of AliseEngines could not be listed", extra={"error": str(error)})
            for key in keys:
                await self._turn(began + self._resync_seconds)
                self.queue.add(key)
            self._last_resync = time.monotonic()
            await asyncio.sleep(max(self._resync_seconds / 2, began + self._resync_seconds - self._last_resync))

    async def _turn(self, until_seconds: float) -> None:
        """Waits while many keys wait, so that an AliseEngine whose pods change is not behind all the others; but not after this time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(until_seconds - time.monotonic()):
                await self.queue.fewer_than(AHEAD)

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            self._started[key] = time.monotonic()
            try:
                await self._one(key)
            finally:
                metrics.RECONCILE_SECONDS.observe(time.monotonic() - self._started.pop(key))
                self.queue.done(key)

    async def _one(self, key: Key) -> None:
        try:
            async with asyncio.timeout(RECONCILE_SECONDS):
                error = await self.reconciler.reconcile(key)
        except TimeoutError:
            metrics.RECONCILES.labels("overtime").inc()
            pause_seconds = self.queue.retry(key)
            log.warning(
                "a reconcile exceeded its time limit and was cancelled",
                extra={"engine": str(key), "after_seconds": RECONCILE_SECONDS, "retry_seconds": pause_seconds},
            )
        except (ClusterError, ApplyError) as caught:
            # The API server was unavailable, another write was first, or the status may not be written: nothing can be reported.
            metrics.RECONCILES.labels("cluster_error").inc()
            pause_seconds = self.queue.retry(key)
            log.warning("a reconcile failed", extra={"engine": str(key), "error": str(caught), "retry_seconds": pause_seconds})
        except Exception:
            # A bug with one AliseEngine must not stop the others.
            metrics.RECONCILES.labels("bug").inc()
            pause_seconds = self.queue.retry(key)
            log.exception("a reconcile failed unexpectedly", extra={"engine": str(key), "retry_seconds": pause_seconds})
        else:
            if error is None:
                metrics.RECONCILES.labels("ok").inc()
                self.queue.succeeded(key)
            else:
                # The user (a Secret, the spec) or the cluster corrects it: retry soon, then with every resync.
                metrics.RECONCILES.labels(_outcome(error)).inc()
                self.queue.retry(key)


def _outcome(error: OperatorError) -> str:
    if isinstance(error, ClusterError):
        return "cluster_error"
    return "spec_error" if isinstance(error, SpecError) else "apply_error"

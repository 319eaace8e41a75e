"""Requests a reconcile when an AliseEngine or one of its pods changes.

It watches the cluster through kube.py and writes nothing; __main__.py runs the two watches beside the workers. kopf is not used here,
because it keeps a record and a task per object and processes every version of it: an AliseEngine may have ten thousand pods, and may be
edited a hundred times a second. These watches read only metadata, and keep nothing but the version at which they go on. A missed event
costs only time, because the resync requests a reconcile of every AliseEngine, which reads it again if anything may have changed.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from alise_contract.names import ENGINE_LABEL
from alise_operator.children.meta import Manifest
from alise_operator.errors import ApplyError, ClusterError
from alise_operator.kube import Kube, Resource
from alise_operator.pods import PODS
from alise_operator.reconcile import ENGINES, Key

log = logging.getLogger(__name__)

# The pause after a watch that failed. One that the server ended is reopened at once, at the version where it ended.
PAUSE_SECONDS: Final = 5.0
# Watches are reopened once in this time at most.
LEAST_SECONDS: Final = 1.0
# The API server no longer knows what happened after the version.
GONE: Final = 410
# It has not come to the version: its store was set back to an earlier state.
TOO_NEW: Final = 504
# Also gets the metadata.
EngineSeen = Callable[[Key, Manifest], None]
Seen = Callable[[Key], None]


async def watch_engines(
    kube: Kube, namespace: str, seen: EngineSeen, missed: Callable[[], None], *, pause_seconds: float = PAUSE_SECONDS
) -> None:
    """Calls `seen` with each AliseEngine that changes, in one namespace, or in all if it is empty. Never returns.

    It calls `missed` whenever changes before this moment may not have been seen.
    """
    await _watch(kube, ENGINES, namespace, "", lambda meta: str(meta["name"]), seen, missed, pause_seconds)


async def watch_pods(kube: Kube, namespace: str, seen: Seen, missed: Callable[[], None], *, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Calls `seen` with the AliseEngine of each pod that changes, and `missed` as `watch_engines` does. Never returns."""

    # By the label that a pod must have: spec.podTemplate may change the others.
    def name_of(meta: Manifest) -> str | None:
        return (meta.get("labels") or {}).get(ENGINE_LABEL)

    await _watch(kube, PODS, namespace, ENGINE_LABEL, name_of, lambda key, _: seen(key), missed, pause_seconds)


async def _watch(
    kube: Kube,
    resource: Resource,
    namespace: str,
    labels: str,
    name_of: Callable[[Manifest], str | None],
    seen: EngineSeen,
    missed: Callable[[], None],
    pause_seconds: float,
) -> None:
    since, loop = "", asyncio.get_running_loop()
    while True:
        opened = loop.time()
        try:
            if not since:
                # Existing objects need no event.
                since = await kube.version(resource, namespace, labels=labels)
                missed()
            async for thing in kube.watch(resource, namespace, labels=labels, since=since):
                meta = thing["metadata"]
                since = meta.get("resourceVersion") or since
                name = name_of(meta) if meta.get("name") else None
                if name:
                    seen(Key(meta["namespace"], name), meta)
            # A proxy may end each watch at once.
            await asyncio.sleep(max(0.0, opened + min(pause_seconds, LEAST_SECONDS) - loop.time()))
        except (ClusterError, ApplyError) as error:
            # A version that the API server refuses would be refused for ever.
            if isinstance(error, ApplyError) or error.status in (GONE, TOO_NEW):
                since = ""
            log.warning(
                "a watch failed and is reopened", extra={"kind": resource.plural, "error": str(error), "pause_seconds": pause_seconds}
            )
            await asyncio.sleep(pause_seconds)

"""Requests a reconcile when an AliseEngine or one of its pods changes.

It watches the cluster through kube.py and writes nothing; __main__.py runs the two watches beside the workers. kopf is not used here,
because it keeps a record and a task per object and processes every version of it: an AliseEngine may have ten thousand pods, and may be
edited a hundred times a second. These watches read only metadata and keep nothing. A missed event costs only time, because the resync
requests a reconcile of every AliseEngine.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from alise_contract.names import ENGINE_LABEL
from alise_operator.children.meta import MANAGED_BY, MANAGER, Manifest
from alise_operator.errors import ApplyError, ClusterError
from alise_operator.kube import Kube, Resource
from alise_operator.pods import PODS
from alise_operator.reconcile import ENGINES, Key

log = logging.getLogger(__name__)

# The pause after a watch that failed. One that the server ended is reopened at once.
PAUSE_SECONDS: Final = 5.0


async def watch_engines(kube: Kube, namespace: str, seen: Callable[[Key], None], *, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Calls `seen` with each AliseEngine that changes, in one namespace, or in all if it is empty. Never returns."""
    await _watch(kube, ENGINES, namespace, "", lambda meta: str(meta["name"]), seen, pause_seconds)


async def watch_pods(kube: Kube, namespace: str, seen: Callable[[Key], None], *, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Calls `seen` with the AliseEngine of each pod that changes, in one namespace, or in all if it is empty. Never returns."""
    labels = f"{MANAGED_BY}={MANAGER}"
    await _watch(kube, PODS, namespace, labels, lambda meta: (meta.get("labels") or {}).get(ENGINE_LABEL), seen, pause_seconds)


async def _watch(
    kube: Kube,
    resource: Resource,
    namespace: str,
    labels: str,
    name_of: Callable[[Manifest], str | None],
    seen: Callable[[Key], None],
    pause_seconds: float,
) -> None:
    while True:
        try:
            async for thing in kube.watch(resource, namespace, labels=labels):
                meta = thing["metadata"]
                name = name_of(meta)
                if name:
                    seen(Key(meta["namespace"], name))
        except (ClusterError, ApplyError) as error:
            log.warning(
                "a watch failed and is reopened", extra={"kind": resource.plural, "error": str(error), "pause_seconds": pause_seconds}
            )
            await asyncio.sleep(pause_seconds)

"""Asks for a reconcile when a resource or a pod of ours changes.

Not by kopf, which keeps a record and a task per object and works through every version of it: pods are the one kind of which a resource may
have ten thousand, and a resource may be edited a hundred times a second. Here they come as metadata alone and are forgotten at once. An
event that is missed costs nothing but time, because the clock asks for every resource again.
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

# After a watch that failed; one that the server ended is opened again at once.
PAUSE_SECONDS: Final = 5.0


async def watch_engines(kube: Kube, namespace: str, seen: Callable[[Key], None], *, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Calls `seen` with each resource that changes, without end. Of one namespace, or of all with an empty one."""
    await _watch(kube, ENGINES, namespace, "", lambda meta: str(meta["name"]), seen, pause_seconds)


async def watch_pods(kube: Kube, namespace: str, seen: Callable[[Key], None], *, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Calls `seen` with the resource of each pod that changes, without end. Of one namespace, or of all with an empty one."""
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
            log.warning("a watch is opened again", extra={"kind": resource.plural, "error": str(error), "pause_seconds": pause_seconds})
            await asyncio.sleep(pause_seconds)

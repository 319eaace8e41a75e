"""Asks for a reconcile when a pod of ours changes.

Not by kopf, which keeps every object that it has seen: pods are the one kind of which a resource may have ten thousand. Here they come as
metadata alone and are forgotten at once. An event that is missed costs nothing but time, because the clock asks for every resource again.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from alise_contract.names import ENGINE_LABEL
from alise_operator.build.meta import MANAGED_BY, MANAGER
from alise_operator.errors import ApplyError, ClusterError
from alise_operator.kube import Kube
from alise_operator.pods import PODS
from alise_operator.reconcile import Key

log = logging.getLogger(__name__)

# After a watch that failed; one that the server ended is opened again at once.
PAUSE_SECONDS: Final = 5.0


async def watch_pods(kube: Kube, namespace: str, seen: Callable[[Key], None], *, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Calls `seen` with the resource of each pod that changes, without end. Of one namespace, or of all with an empty one."""
    while True:
        try:
            async for pod in kube.watch(PODS, namespace, labels=f"{MANAGED_BY}={MANAGER}"):
                meta = pod["metadata"]
                name = (meta.get("labels") or {}).get(ENGINE_LABEL)
                if name:
                    seen(Key(meta["namespace"], name))
        except (ClusterError, ApplyError) as error:
            log.warning("the watch of pods is opened again", extra={"error": str(error), "pause_seconds": pause_seconds})
            await asyncio.sleep(pause_seconds)

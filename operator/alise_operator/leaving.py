"""Marks the pods that a scale-down should remove: those with the least predicted work, because they finish first.

reconcile.py calls `mark_leaving()` before it lowers the replicas of the Deployment, for whatever cause. ReplicaSets remove pods with a
lower pod-deletion-cost first (Kubernetes 1.22 and newer). The operator writes the annotation at this moment only, and only where it
changes something: it alone lowers the replicas, so costs that follow the work all the time would be written in vain.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Final

from alise_operator.apply import OWNED_KINDS
from alise_operator.children.meta import DELETION_COST_ANNOTATION, Owner
from alise_operator.errors import ApplyError, ClusterError, Gone
from alise_operator.kube import Kube
from alise_operator.observation import Pod
from alise_operator.pods import PODS, find_pods
from alise_operator.poller import Poller
from alise_operator.replicas import scale_of

log = logging.getLogger(__name__)

# Lower than that of every pod without a mark, whose cost is 0.
LEAVES: Final = "-1"


def deletion_costs(pods: Sequence[Pod], replicas: int) -> Mapping[str, str | None]:
    """Returns the annotation of each pod that must change for the right pods to leave; None removes it.

    ReplicaSets remove pods that are not ready first. The ready ones with the least backlog follow. A pod whose work is not known stays.
    """
    live = [pod for pod in pods if not pod.terminating and not pod.ended]
    ready = [pod for pod in live if pod.ready]
    unready = len(live) - len(ready)
    count = max(0, len(live) - replicas - unready)
    by_work = sorted(ready, key=lambda pod: (_backlog(pod), pod.name))
    leaving = {pod.name for pod in by_work[:count]}
    marked = {pod.name for pod in live if pod.deletion_cost == LEAVES}
    return dict.fromkeys(sorted(leaving - marked), LEAVES) | dict.fromkeys(sorted(marked - leaving))


def _backlog(pod: Pod) -> float:
    return pod.report.work.backlog_seconds if pod.report is not None and pod.report.work is not None else float("inf")


async def mark_leaving(kube: Kube, poller: Poller, owner: Owner, replicas: int) -> None:
    """Marks the pods if the Deployment has more replicas than these. A failure is logged: without marks, Kubernetes chooses the pods."""
    try:
        deployment = await kube.get(OWNED_KINDS["Deployment"][0], owner.namespace, owner.name)
        if scale_of(deployment).replicas <= replicas:
            return
        found = await find_pods(kube, owner, deployment)
        costs = deletion_costs(await poller.poll(found.pods), replicas)
        await asyncio.gather(*(_mark(kube, owner, name, cost) for name, cost in costs.items()))
    except Gone:
        return
    except (ApplyError, ClusterError) as error:
        log.warning(
            "the pods that should leave could not be marked", extra={"engine": f"{owner.namespace}/{owner.name}", "error": str(error)}
        )


async def _mark(kube: Kube, owner: Owner, name: str, cost: str | None) -> None:
    try:
        await kube.patch(PODS, owner.namespace, name, {"metadata": {"annotations": {DELETION_COST_ANNOTATION: cost}}})
    except Gone:
        return

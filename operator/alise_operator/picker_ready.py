"""Whether the endpoint picker of an AliseEngine works, and what is wrong with it. Pure.

observe.py passes in the picker's Deployment and pods; autoscaler.py knows whether the picker answers. What it returns becomes part of the
condition Degraded. Requests are served without a picker: gateways balance by themselves. Only the requests that it would hold are lost.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from alise_contract.names import PICKER_HTTP_PORT, PICKER_SUFFIX
from alise_operator.children.meta import Manifest, Owner
from alise_operator.children.network_policy import PICKER_LABEL
from alise_operator.observation import Pod, Trouble, view_workload

REASON: Final = "PickerUnavailable"
# A picker starts within a few seconds, once its image is on the node.
START_SECONDS: Final = 60.0


def has_ready_pod(deployment: Manifest) -> bool:
    """Returns whether a pod of the picker is ready."""
    return view_workload(deployment).ready > 0


def unavailable(deployment: Manifest, pods: Iterable[Pod], owner: Owner, now: datetime) -> Trouble | None:
    """Returns what is wrong with a picker without a ready pod; None while it may still be starting."""
    found = [*view_workload(deployment).troubles, *(trouble for pod in pods if not pod.ended for trouble in pod.troubles)]
    # What follows the first clause is advice about fields of the engine's pod.
    cause = next((trouble.message.partition("; ")[0] for trouble in found), "")
    if not cause and now - _unready_since(deployment, now) < timedelta(seconds=START_SECONDS):
        return None
    return Trouble(
        REASON,
        f"the endpoint picker {owner.name}{PICKER_SUFFIX} has no ready pod{': ' if cause else ''}{cause}; until it has one, gateways "
        f"balance without predictions, and no request is held; kubectl describe pods -n {owner.namespace} -l {PICKER_LABEL}="
        f"{owner.name} says more",
    )


def unanswered(owner: Owner) -> Trouble:
    """Returns what is wrong if the picker does not tell the operator how many requests it holds."""
    name = f"{owner.name}{PICKER_SUFFIX}"
    return Trouble(
        REASON,
        f"the endpoint picker {name} has not answered for a minute when the operator asks how many requests it holds, so the last pod is "
        f"not removed; the operator must reach port {PICKER_HTTP_PORT} of the Service {owner.namespace}/{name}: check the NetworkPolicies "
        f"of both namespaces, and kubectl logs -n {owner.namespace} deployment/{name}",
    )


def _unready_since(deployment: Manifest, now: datetime) -> datetime:
    """Returns since when the Deployment has no ready pod; `now` if it does not say."""
    conditions = deployment.get("status", {}).get("conditions", ())
    changed = (one["lastTransitionTime"] for one in conditions if one["type"] == "Available" and one["status"] == "False")
    since = next(changed, None) or deployment["metadata"].get("creationTimestamp")
    return datetime.fromisoformat(since) if since else now

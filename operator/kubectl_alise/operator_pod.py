"""Which pod has the operator's page: the one that holds the lease, else the newest that is ready; pure. `forward.py` reads the objects."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .errors import NotFoundError

SELECTOR: Final = "app.kubernetes.io/name=alise-operator"
LEASE: Final = "alise-operator"


def leader(pods: Sequence[Mapping[str, Any]], lease: Mapping[str, Any] | None, namespace: str) -> str:
    """The name of the pod that holds the lease, or of the newest ready one if the lease names none of them.

    `lease` is None if it could not be read. Raises NotFoundError if there is no pod, or none that runs.
    """
    if not pods:
        raise NotFoundError(f"there is no operator in the namespace {namespace}: give its namespace with -n, or install alise")
    running = [one for one in pods if "deletionTimestamp" not in one["metadata"] and _is_ready(one)]
    if not running:
        name = pods[0]["metadata"]["name"]
        raise NotFoundError(f"the operator is not ready: `kubectl -n {namespace} describe pod {name}` says why")
    # The holder is the pod's name and something that differs with each start.
    holder = str(((lease or {}).get("spec") or {}).get("holderIdentity") or "").rpartition("_")[0]
    newest = sorted(running, key=lambda one: str(one["metadata"].get("creationTimestamp", "")), reverse=True)
    return str(next((one for one in newest if one["metadata"]["name"] == holder), newest[0])["metadata"]["name"])


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

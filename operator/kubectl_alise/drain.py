"""Stops one pod without cutting an answer: `kubectl alise drain POD`.

It evicts the pod, so the disruption budget of the resource counts. The pod's own preStop hook refuses new requests and waits for the open
ones; the Deployment starts another pod. The command waits until the pod has ended.
"""

import json
import time
from collections.abc import Callable
from typing import Any, Final

from alise_contract.names import ENGINE_LABEL

from .errors import NotAllowedError, NotFoundError, PluginError
from .kubectl import Cluster
from .objects import pod_of

# Of the API server that is asked; the first that it knows counts. Kubernetes 1.22 and newer have the first.
_VERSIONS: Final = ("policy/v1", "policy/v1beta1")
_EVERY_SECONDS: Final = 2.0


def refusal_to_drain(pod: Any, others_ready: int, force: bool) -> str | None:
    """Returns why this pod should not be drained now, None if it may be; pure."""
    meta = pod["metadata"]
    engine = meta.get("labels", {}).get(ENGINE_LABEL)
    if engine is None:
        return f"the pod {meta['name']} is not a pod of an AliseEngine: use `kubectl delete pod`"
    if others_ready or force or not pod_of(pod).ready:
        return None
    return (
        f"{meta['name']} is the only ready pod of {engine}: requests would be refused until a new one is ready. "
        f"Scale first (`kubectl scale alise {engine} --replicas=2`), or give --force"
    )


def evict(cluster: Cluster, pod: Any) -> None:
    """Asks for the pod's eviction. Raises NotAllowedError if the disruption budget forbids it now, or another PluginError."""
    meta = pod["metadata"]
    for version in _VERSIONS:
        body = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": meta["name"], "namespace": meta["namespace"]}}
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/eviction"
        try:
            cluster.text("create", f"--raw={path}", "--filename=-", text_in=json.dumps(body))
        except PluginError as error:
            if "disruption budget" in str(error):
                raise NotAllowedError(
                    f"the disruption budget lets no further pod of {meta['labels'][ENGINE_LABEL]} go now: wait until all its pods are ready"
                ) from error
            if version == _VERSIONS[-1] or not _is_unknown_version(error):
                raise
        else:
            return


def wait_until_gone(cluster: Cluster, pod: Any, tell: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> bool:
    """Waits until the pod has ended, at most its grace period and a minute. Returns whether it has ended. Raises PluginError."""
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    grace = int(pod["spec"].get("terminationGracePeriodSeconds", 30))
    tell(f"{name} drains: it finishes its open answers and refuses new requests. Kubernetes ends it after {grace} s at the latest.")
    ends = now() + grace + 60
    while now() < ends:
        try:
            seen = cluster.get("pod", name)
        except NotFoundError:
            return True
        if seen["metadata"]["uid"] != uid:
            return True
        time.sleep(_EVERY_SECONDS)
    return False


def _is_unknown_version(error: PluginError) -> bool:
    words = str(error)
    return any(text in words for text in ("no kind", "not registered", "does not match", "could not find the requested resource"))

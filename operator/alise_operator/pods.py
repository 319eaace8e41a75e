"""Finds the pods of one AliseEngine, and adds what only their events tell: in pages, up to a cap, and only pods that it owns.

It reads the cluster through kube.py; observe.py and leaving.py call it, and the picker asks it which addresses it may use. Anyone who may
create pods in a namespace can set our labels, so labels only find candidates: a pod belongs to an AliseEngine if its controller is a
ReplicaSet whose controller is the Deployment that the AliseEngine owns. The operator can reach more addresses than the author of a pod, so
addresses that are not a pod's own are not polled.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Final

from alise_operator.children.meta import Manifest, Owner, selector_text
from alise_operator.endings import PROBE_EVENTS, Failure, view_failure
from alise_operator.errors import ApplyError, ClusterError
from alise_operator.kube import Kube, Resource
from alise_operator.observation import Pod, Trouble, not_starting, view_pod
from alise_operator.sentences import words

PODS: Final = Resource("v1", "pods")
REPLICA_SETS: Final = Resource("apps/v1", "replicasets")
EVENTS: Final = Resource("v1", "events")
# Pods of one AliseEngine that are checked one by one, in the order of their names. The Deployment counts how many are ready.
MAX_LOOKED_AT: Final = 500
# Warning events about what no container status reports (volumes, sandbox).
EVENT_REASONS: Final = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
_UNMOUNTED: Final = "unmounted volumes="
# Addresses at which clouds serve credentials to a node, other than link-local ones.
_METADATA_ADDRESSES: Final = frozenset(ip_address(one) for one in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192"))


@dataclass(frozen=True, slots=True)
class Found:
    """The pods of an AliseEngine, sorted by name."""

    pods: tuple[Pod, ...] = ()
    # Whether there are more than MAX_LOOKED_AT.
    is_cut: bool = False


async def find_pods(kube: Kube, owner: Owner, deployment: Manifest | None, labels: str = "") -> Found:
    """Returns the pods of a Deployment that the AliseEngine owns: without `labels`, of the model's. Raises ClusterError, ApplyError (not
    allowed)."""
    if deployment is None or not _is_owned(deployment, owner):
        return Found()
    labels, uid = labels or selector_text(owner.name), str(deployment["metadata"]["uid"])
    sets = await kube.list(REPLICA_SETS, owner.namespace, labels=labels, slim=True)
    controllers = {one["metadata"]["uid"] for one in sets if controller(one).get("uid") == uid}
    found: list[Pod] = []
    # Candidates of other owners count too, so that creating many of them cannot make a reconcile slow.
    looked_at, is_cut = 0, False
    async for page in kube.pages(PODS, owner.namespace, labels=labels):
        if looked_at >= MAX_LOOKED_AT:
            is_cut = True
            break
        looked_at += len(page)
        found += [view(pod) for pod in page if controller(pod).get("uid") in controllers]
    return Found(tuple(sorted(found, key=lambda pod: pod.name)), is_cut)


def controller(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the owner reference to the controller of the object; empty if it has none."""
    references = thing["metadata"].get("ownerReferences") or ()
    return next((one for one in references if one.get("controller")), {})


def view(pod: Manifest) -> Pod:
    """Returns the pod, with an address only if it may be polled."""
    seen, refusal = view_pod(pod), address_refusal(pod)
    if refusal is None:
        return seen
    return replace(seen, address="", report_error=f"its status is not polled: {refusal}" if seen.ready else None)


def address_refusal(pod: Manifest) -> str | None:
    """Returns why the pod's address is not polled; None if it may be polled, or if there is none yet."""
    status = pod.get("status", {})
    text = status.get("podIP") or ""
    if not text:
        return None
    if pod.get("spec", {}).get("hostNetwork") or text == status.get("hostIP"):
        return "a pod on its node's network (hostNetwork) has the node's address; remove hostNetwork, so that the pod has its own"
    try:
        address = ip_address(text)
    except ValueError:
        return f"{words(text)!r} is not an IP address"
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA_ADDRESSES:
        return f"{address} is not the address of a pod"
    return None


async def with_events(kube: Kube, namespace: str, pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """Returns the pods with what only events tell: why containers were never started, and which probe failed before one was stopped.

    It reads the events of all pods of the namespace, in one list per reason.
    """
    given = tuple(pods)
    silent = any(pod.silent for pod in given)
    probed = any(one.ending is not None and one.ending.may_be_by_probe for pod in given for one in pod.troubles)
    reasons = (dict.fromkeys(EVENT_REASONS, "Warning") if silent else {}) | (PROBE_EVENTS if probed else {})
    try:
        listed = [
            await kube.list(EVENTS, namespace, fields=f"involvedObject.kind=Pod,type={kind},reason={reason}")
            for reason, kind in reasons.items()
        ]
    except (ApplyError, ClusterError):
        # Without events a pod counts as starting, and a container that ended has its own message.
        return given
    latest: dict[str, Manifest] = {}
    failures: dict[str, list[Failure]] = {}
    for event in sorted((one for events in listed for one in events), key=_event_time):
        uid = (event.get("involvedObject") or {}).get("uid", "")
        # The kubelet repeats a mount's own words, and sums up in between which volumes it waits for: the sum says less.
        if event.get("reason") in EVENT_REASONS and not (uid in latest and _UNMOUNTED in (event.get("message") or "")):
            latest[uid] = event
        elif event.get("reason") in PROBE_EVENTS and (failure := view_failure(event)) is not None:
            # The newest comes first.
            failures.setdefault(uid, []).insert(0, failure)
    return tuple(_explained(_probed(pod, failures.get(pod.uid, ())), latest.get(pod.uid)) for pod in given)


def _probed(pod: Pod, failures: Sequence[Failure]) -> Pod:
    if not failures:
        return pod
    troubles = [
        Trouble(one.reason, one.ending.explain(failures), ending=one.ending) if one.ending is not None else one for one in pod.troubles
    ]
    return replace(pod, troubles=tuple(troubles))


def _explained(pod: Pod, event: Manifest | None) -> Pod:
    if event is None or not pod.silent:
        return pod
    return replace(pod, troubles=(not_starting(f"pod {pod.name}", event["reason"], event.get("message") or ""),))


def _event_time(event: Manifest) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _is_owned(thing: Manifest, owner: Owner) -> bool:
    return any(reference.get("uid") == owner.uid for reference in thing["metadata"].get("ownerReferences") or ())

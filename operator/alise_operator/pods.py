"""Finds the pods of one resource: in pages, up to a cap, and only those that are proven to be its own.

Anyone who may make pods in a namespace may put our labels on one, so labels only find candidates. A pod is the resource's when its
controller is a ReplicaSet whose controller is the Deployment that the resource owns. Its address is polled by a process that reaches more
than the pod's author does, so addresses that are not a pod's own are left out.
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
# Pods of one resource that are looked at one by one, in the order of their names. How many are ready is the Deployment's own count.
MAX_LOOKED_AT: Final = 500
# Warning events of a pod that has no container status to say it (volumes, sandbox).
EVENT_REASONS: Final = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")
_UNMOUNTED: Final = "unmounted volumes="
# Where clouds serve credentials to a node, as far as these are no link-local addresses.
_METADATA_ADDRESSES: Final = frozenset(ip_address(one) for one in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192"))


@dataclass(frozen=True, slots=True)
class Found:
    """The resource's pods by name."""

    pods: tuple[Pod, ...] = ()
    # There are more than MAX_LOOKED_AT.
    is_cut: bool = False


async def find_pods(kube: Kube, owner: Owner, deployment: Manifest | None) -> Found:
    """Raises ClusterError, ApplyError (not allowed)."""
    if deployment is None or not _is_owned(deployment, owner):
        return Found()
    labels, uid = selector_text(owner.name), str(deployment["metadata"]["uid"])
    sets = await kube.list(REPLICA_SETS, owner.namespace, labels=labels, slim=True)
    controllers = {one["metadata"]["uid"] for one in sets if controller(one).get("uid") == uid}
    found: list[Pod] = []
    # Candidates that are not the resource's count as well: who makes many of them must not make a reconcile long.
    looked_at, is_cut = 0, False
    async for page in kube.pages(PODS, owner.namespace, labels=labels):
        if looked_at >= MAX_LOOKED_AT:
            is_cut = True
            break
        looked_at += len(page)
        found += [view(pod) for pod in page if controller(pod).get("uid") in controllers]
    return Found(tuple(sorted(found, key=lambda pod: pod.name)), is_cut)


def controller(thing: Mapping[str, Any]) -> Mapping[str, Any]:
    """The owner reference to what controls the object; empty when nothing does."""
    references = thing["metadata"].get("ownerReferences") or ()
    return next((one for one in references if one.get("controller")), {})


def view(pod: Manifest) -> Pod:
    """The pod, with an address only where it may be polled."""
    seen, refusal = view_pod(pod), address_refusal(pod)
    if refusal is None:
        return seen
    return replace(seen, address="", report_error=f"its status is not read: {refusal}" if seen.ready else None)


def address_refusal(pod: Manifest) -> str | None:
    """Why the pod's address is not polled; None when it may be, or when there is none yet."""
    status = pod.get("status", {})
    text = status.get("podIP") or ""
    if not text:
        return None
    if pod.get("spec", {}).get("hostNetwork") or text == status.get("hostIP"):
        return "a pod on its node's network (hostNetwork) has the node's address; let the pod have a network of its own"
    try:
        address = ip_address(text)
    except ValueError:
        return f"{words(text)!r} is no IP address"
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified or address in _METADATA_ADDRESSES:
        return f"{address} is not an address of a pod"
    return None


async def with_events(kube: Kube, namespace: str, pods: Iterable[Pod]) -> tuple[Pod, ...]:
    """What only events say: why a pod's containers were never started, and which probe failed before the kubelet ended one.

    They are those of all pods of the namespace, in one list per reason.
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
        # Without its events a pod still counts as starting, and an ended container has its own words.
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

"""Fetches the cluster's report on one resource: its Deployment, its pods, and what each pod says of itself over HTTP."""

from dataclasses import replace
from typing import Final

from alise_operator.apply import OWNED_KINDS
from alise_operator.build.meta import Owner, selector_text
from alise_operator.errors import ApplyError, ClusterError, Gone
from alise_operator.kube import Kube, Resource
from alise_operator.observation import Observation, Pod, Trouble, view_pod, view_workload, words
from alise_operator.poller import Poller

PODS: Final = Resource("v1", "pods")
EVENTS: Final = Resource("v1", "events")
SECRETS: Final = Resource("v1", "secrets")
# Warning events of a pod that has no container status to say it (volumes, sandbox).
_EVENT_REASONS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})


async def observe(kube: Kube, poller: Poller, owner: Owner, *, tls_secret: str | None = None) -> Observation:
    """`tls_secret`: the one that the Ingress names. Raises ClusterError."""
    try:
        workload = view_workload(await kube.get(OWNED_KINDS["Deployment"][0], owner.namespace, owner.name))
    except Gone:
        workload = None
    listed = await kube.list(PODS, owner.namespace, labels=selector_text(owner.name))
    pods = await poller.poll(view_pod(pod) for pod in sorted(listed, key=lambda pod: str(pod["metadata"]["name"])))
    with_events = [await _with_events(kube, owner, pod) for pod in pods]
    return Observation(workload, tuple(with_events), tuple(await _tls_troubles(kube, owner, tls_secret)))


async def _tls_troubles(kube: Kube, owner: Owner, name: str | None) -> list[Trouble]:
    """The Ingress is made all the same: cert-manager makes the secret from it."""
    if name is None:
        return []
    try:
        await kube.get(SECRETS, owner.namespace, name)
    except ApplyError:
        # Not allowed to look: nothing to say.
        return []
    except Gone:
        create = f"kubectl create secret tls {name} -n {owner.namespace} --cert=FILE --key=FILE"
        return [
            Trouble(
                "MissingTlsSecret",
                f"spec.route.tlsSecret: Secret {owner.namespace}/{name} does not exist (yet): the Ingress has no certificate; if nothing "
                f"like cert-manager makes it, create it: {create}",
            )
        ]
    return []


async def _with_events(kube: Kube, owner: Owner, pod: Pod) -> Pod:
    """A pod whose containers were never started says why only in events."""
    if not pod.silent:
        return pod
    try:
        events = await kube.list(EVENTS, owner.namespace, fields=f"involvedObject.uid={pod.uid},type=Warning")
    except ClusterError:
        # Without its events the pod still counts as starting.
        return pod
    relevant = [one for one in events if one.get("reason") in _EVENT_REASONS]
    if not relevant:
        return pod
    latest = max(relevant, key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or "")
    return replace(pod, troubles=(Trouble("PodNotStarting", f"pod {pod.name}: {latest['reason']}: {words(latest.get('message', ''))}"),))

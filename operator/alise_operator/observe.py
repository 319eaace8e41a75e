"""Fetches the cluster's report on one AliseEngine: its Deployment, its pods, the status report of each pod, and its endpoint picker.

It reads the cluster through kube.py and polls pods through poller.py, and writes nothing. reconcile.py calls `observe()` after it has
applied the children, and page/read.py for the page of `kubectl alise ui`.
"""

from datetime import datetime
from typing import Final

from alise_contract.names import PICKER_SUFFIX
from alise_operator.apply import OWNED_KINDS
from alise_operator.children.meta import Manifest, Owner
from alise_operator.children.network_policy import PICKER_LABEL
from alise_operator.errors import ApplyError, Gone
from alise_operator.kube import Kube, Resource
from alise_operator.observation import Observation, Trouble, view_workload
from alise_operator.picker_ready import has_ready_pod, unavailable
from alise_operator.pods import Found, find_pods, with_events
from alise_operator.poller import Poller

SECRETS: Final = Resource("v1", "secrets")


async def observe(
    kube: Kube,
    poller: Poller,
    owner: Owner,
    *,
    tls_secret: str | None = None,
    picker_at: datetime | None = None,
    created: Manifest | None = None,
) -> Observation:
    """Returns the report. `tls_secret` is the Secret that the Ingress names, `picker_at` the present time if there is an endpoint picker.

    `created` is a Deployment that was created just now, and so has no pods. Raises ClusterError.
    """
    try:
        deployment = created or await kube.get(OWNED_KINDS["Deployment"][0], owner.namespace, owner.name)
    except Gone:
        deployment = None
    workload = view_workload(deployment) if deployment is not None else None
    found = await find_pods(kube, owner, deployment) if created is None else Found()
    pods = await with_events(kube, owner.namespace, await poller.poll(found.pods))
    troubles = [*await _tls_troubles(kube, owner, tls_secret), *await _picker_troubles(kube, owner, picker_at)]
    return Observation(workload, pods, tuple(troubles), found.is_cut)


async def _picker_troubles(kube: Kube, owner: Owner, at: datetime | None) -> list[Trouble]:
    """Returns what is wrong with the picker. Its pods are read only if none is ready."""
    if at is None:
        return []
    try:
        deployment = await kube.get(OWNED_KINDS["Deployment"][0], owner.namespace, owner.name + PICKER_SUFFIX)
    except Gone:
        # It is applied again.
        return []
    if has_ready_pod(deployment):
        return []
    found = await find_pods(kube, owner, deployment, f"{PICKER_LABEL}={owner.name}")
    trouble = unavailable(deployment, await with_events(kube, owner.namespace, found.pods), owner, at)
    return [trouble] if trouble is not None else []


async def _tls_troubles(kube: Kube, owner: Owner, name: str | None) -> list[Trouble]:
    """Returns whether the certificate is missing. The Ingress is created all the same, because cert-manager creates the Secret from it."""
    if name is None:
        return []
    try:
        await kube.get(SECRETS, owner.namespace, name)
    except ApplyError:
        # The operator may not read Secrets.
        return []
    except Gone:
        create = f"kubectl create secret tls {name} -n {owner.namespace} --cert=FILE --key=FILE"
        return [
            Trouble(
                "MissingTlsSecret",
                f"spec.route.tlsSecret: Secret {owner.namespace}/{name} does not exist (yet), so the Ingress has no certificate; if "
                f"neither cert-manager nor a similar tool creates it, create it: {create}",
            )
        ]
    return []

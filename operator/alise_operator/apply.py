"""Brings the children of an AliseEngine into the cluster by server-side apply, and deletes those that are no longer wanted.

The only module that creates, changes and deletes children; reconcile.py calls it. An existing object that has the name of a child but
another owner is never taken over: a forced apply would overwrite it, and our owner reference would delete it with the AliseEngine. All
children are tried with a dry run before the first is written, so one that the cluster refuses leaves the others unchanged. A child that is
refused only because of what another writer added to it is cleared of that.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from alise_operator import metrics
from alise_operator.children.meta import MANAGED_BY, MANAGER, Manifest, Owner, selector_text
from alise_operator.drift import applied_fields, applied_metadata, kept_entries, taken_back
from alise_operator.errors import ApplyError, ClusterError, Gone, NameTaken
from alise_operator.kube import Kube, Resource
from alise_operator.refusals import with_source
from alise_operator.replicas import Scale, scale_of

# Every kind that the operator has ever created; unwanted children are searched for among these.
OWNED_KINDS: Final[Mapping[str, tuple[Resource, ...]]] = {
    "ServiceAccount": (Resource("v1", "serviceaccounts"),),
    "PersistentVolumeClaim": (Resource("v1", "persistentvolumeclaims"),),
    "ConfigMap": (Resource("v1", "configmaps"),),
    "NetworkPolicy": (Resource("networking.k8s.io/v1", "networkpolicies"),),
    "Service": (Resource("v1", "services"),),
    "PodDisruptionBudget": (Resource("policy/v1", "poddisruptionbudgets"), Resource("policy/v1beta1", "poddisruptionbudgets")),
    "Deployment": (Resource("apps/v1", "deployments"),),
    "Ingress": (Resource("networking.k8s.io/v1", "ingresses"),),
    "HTTPRoute": (Resource("gateway.networking.k8s.io/v1", "httproutes"),),
    "ScaledObject": (Resource("keda.sh/v1alpha1", "scaledobjects"),),
    "RoleBinding": (Resource("rbac.authorization.k8s.io/v1", "rolebindings"),),
    "InferencePool": (Resource("inference.networking.k8s.io/v1", "inferencepools"),),
}

# In what the API server says of an object whose values it refuses.
_INVALID: Final = " is invalid: "

# Kinds of which every AliseEngine has one under its own name, which the operator never deletes.
ALWAYS_WANTED: Final = frozenset({"ServiceAccount", "Service", "Deployment"})
# The child has another version by now.
_CONFLICT: Final = 409
_ATTEMPTS: Final = 3


@dataclass(slots=True)
class Applied:
    """What was last written for one AliseEngine, to decide whether there is anything to do."""

    digest: str
    at_seconds: float
    # Version of each child in the answer of the cluster; a different one later means that another writer changed it.
    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    # Generation of each child that has one, in the same answers.
    generations: dict[tuple[str, str], int] = field(default_factory=dict)
    # Resource version of each child, in the same answers.
    written: dict[tuple[str, str], str] = field(default_factory=dict)
    # Replicas of the Deployment in the answer; a different number later means that a user or an autoscaler scaled it.
    scale: Scale | None = None
    # Digest of each manifest.
    manifests: dict[tuple[str, str], str] = field(default_factory=dict)


def digest(manifests: Iterable[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(list(manifests), sort_keys=True).encode()).hexdigest()


def version_of(child: Mapping[str, Manifest]) -> str:
    """Returns what changes if another writer edits the child, or creates it anew.

    This is its generation, which status updates do not change, together with its uid, and with the labels, annotations and owners, which
    do not change the generation: of annotations, which of them the operator owns, because who changes one takes it over. A Service, a
    ServiceAccount and a ConfigMap have no generation, and controllers add to them what they need, such as a token or an address: of these
    counts what the operator owns, and when it last changed that.
    """
    meta = child.get("metadata", {})
    generation, own = meta.get("generation"), applied_fields(child)
    if generation is not None:
        counted = f"generation {generation}, {digest(applied_metadata(child))}"
    else:
        counted = f"fields {digest(own)}" if own else f"version {meta.get('resourceVersion')}"
    return f"{counted}, {digest([{key: meta.get(key) for key in ('uid', 'labels', 'ownerReferences')}])}"


def resource_version_of(child: Mapping[str, Manifest]) -> str:
    """Returns the version that every write of the child changes; empty if it has none."""
    return str(child.get("metadata", {}).get("resourceVersion") or "")


def generation_of(child: Mapping[str, Manifest]) -> int:
    """Returns the generation of a child; 0 for kinds without one, such as Services."""
    return int(child.get("metadata", {}).get("generation") or 0)


async def apply_children(
    kube: Kube,
    owner: Owner,
    manifests: list[Manifest],
    *,
    changed: bool,
    at_seconds: float,
    is_new: bool = False,
    before: Applied | None = None,
    answered: Callable[[Manifest, Manifest], None] = lambda manifest, answer: None,
) -> Applied:
    """Applies the manifests and deletes the owner's other children.

    `changed` says that these manifests were not applied before, so they are tried with a dry run first. `is_new`: the owner certainly has
    no children yet, so none are searched for. `before`: what was applied to children that are unchanged since, so that only manifests
    that differ from it are written. `answered` is called with each manifest and the child that the cluster has made of it.
    Raises NameTaken, ApplyError (if the manifests have changed, nothing was written), ClusterError.
    """
    digests = {_key(manifest): digest([manifest]) for manifest in manifests}
    wanted = set(digests)
    kept = {key for key in wanted if before is not None and before.manifests.get(key) == digests[key]}
    # Children are searched for to remove those that are no longer wanted.
    is_known = is_new or (before is not None and set(before.manifests) <= wanted)
    existing = {} if is_known else await _owned(kube, owner)
    present = set(existing) | (set(before.versions) if before is not None else set())
    written = [manifest for manifest in manifests if _key(manifest) not in kept]
    missing = [manifest for manifest in written if _key(manifest) not in present]
    if changed:
        try:
            tried = await try_children(kube, written, present)
        except ApplyError:
            # That an object belongs to another owner says more than why the cluster would not change it.
            await asyncio.gather(*(_refuse_foreign(kube, owner, manifest) for manifest in missing))
            raise
        # A dry run that creates an object answers without a resource version.
        missing = [one for one in missing if tried[_key(one)]["metadata"].get("resourceVersion")]
    await asyncio.gather(*(_refuse_foreign(kube, owner, manifest) for manifest in missing))
    applied = Applied(digest(manifests), at_seconds, manifests=digests)
    if before is not None and kept:
        applied.at_seconds, applied.scale = before.at_seconds, before.scale
        applied.versions = {key: version for key, version in before.versions.items() if key in kept}
        applied.generations = {key: generation for key, generation in before.generations.items() if key in kept}
        applied.written = {key: version for key, version in before.written.items() if key in kept}
    for manifest in written:
        answer = await _apply_one(kube, manifest, dry_run=False, exists=_key(manifest) in present)
        metrics.APPLIED.labels(manifest["kind"]).inc()
        answered(manifest, answer)
        applied.versions[_key(manifest)] = version_of(answer)
        applied.written[_key(manifest)] = resource_version_of(answer)
        if generation := generation_of(answer):
            applied.generations[_key(manifest)] = generation
        if _key(manifest) == ("Deployment", owner.name):
            applied.scale = scale_of(answer)
    for key, (resource, uid) in existing.items():
        if key not in wanted and not (key[0] in ALWAYS_WANTED and key[1] == owner.name):
            await kube.delete(resource, owner.namespace, key[1], uid)
            metrics.PRUNED.labels(key[0]).inc()
    return applied


async def try_children(
    kube: Kube, manifests: Iterable[Manifest], existing: Collection[tuple[str, str]] = ()
) -> dict[tuple[str, str], Manifest]:
    """Asks the cluster whether it would accept all manifests, and writes nothing. Returns what each would become.

    `existing`: (kind, name) of the owner's children that exist. Raises ApplyError, ClusterError.
    """
    given = list(manifests)
    answers = await asyncio.gather(*(_apply_one(kube, manifest, dry_run=True, exists=_key(manifest) in existing) for manifest in given))
    return {_key(manifest): answer for manifest, answer in zip(given, answers, strict=True)}


async def all_children(kube: Kube, namespace: str) -> dict[str, dict[tuple[str, str], tuple[str, str]]]:
    """Returns the children of all AliseEngines, in one namespace or in all if it is empty, by the uid of their owner.

    Of each child: (kind, name) -> (what `version_of` returns, resource version). Raises ApplyError (not allowed), ClusterError.
    """
    found: dict[str, dict[tuple[str, str], tuple[str, str]]] = {}
    for kind, resources in OWNED_KINDS.items():
        for resource in resources:
            async for page in kube.pages(resource, namespace, labels=f"{MANAGED_BY}={MANAGER}", slim=True):
                for child in page:
                    meta = child["metadata"]
                    seen = (version_of(child), str(meta.get("resourceVersion", "")))
                    for reference in meta.get("ownerReferences", ()):
                        found.setdefault(reference.get("uid", ""), {})[(kind, meta["name"])] = seen
    return found


async def apply_replicas(kube: Kube, owner: Owner, replicas: int) -> bool:
    """Writes only the number of pods into the Deployment, and returns whether there was anything to write.

    Raises ApplyError, ClusterError.
    """
    (resource,) = OWNED_KINDS["Deployment"]
    try:
        present = await kube.get(resource, owner.namespace, owner.name)
        if not _is_owned(present, owner) or scale_of(present).replicas == replicas:
            return False
        await kube.patch(resource, owner.namespace, owner.name, {"spec": {"replicas": replicas}})
    except Gone:
        return False
    return True


def _key(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _resource(manifest: Manifest) -> Resource:
    return next(resource for resource in OWNED_KINDS[manifest["kind"]] if resource.group_version == manifest["apiVersion"])


async def _owned(kube: Kube, owner: Owner) -> dict[tuple[str, str], tuple[Resource, str]]:
    """Returns the owner's children in the cluster: (kind, name) -> (resource, uid)."""
    found: dict[tuple[str, str], tuple[Resource, str]] = {}
    labels = f"{selector_text(owner.name)},{MANAGED_BY}={MANAGER}"
    places = [(kind, resource) for kind, resources in OWNED_KINDS.items() for resource in resources]
    listed = await asyncio.gather(*(kube.list(resource, owner.namespace, labels=labels, slim=True) for _, resource in places))
    for (kind, resource), present in zip(places, listed, strict=True):
        for child in present:
            if _is_owned(child, owner):
                found.setdefault((kind, child["metadata"]["name"]), (resource, child["metadata"]["uid"]))
    return found


def _is_owned(child: Manifest, owner: Owner) -> bool:
    return any(reference.get("uid") == owner.uid for reference in child["metadata"].get("ownerReferences", ()))


async def _refuse_foreign(kube: Kube, owner: Owner, manifest: Manifest) -> None:
    kind, name = _key(manifest)
    try:
        present = await kube.get(_resource(manifest), owner.namespace, name)
    except Gone:
        return
    if not _is_owned(present, owner):
        raise NameTaken(
            f"{kind} {owner.namespace}/{name} exists and does not belong to this AliseEngine; delete it or rename the AliseEngine"
        )


async def _apply_one(kube: Kube, manifest: Manifest, *, dry_run: bool, exists: bool) -> Manifest:
    try:
        try:
            return await (kube.apply(_resource(manifest), manifest, dry_run=True) if dry_run else _apply_alone(kube, manifest))
        except ApplyError as error:
            # Only values can contradict each other; a quota, a webhook or an unknown field refuses the manifest itself.
            cleared = await _clear(kube, manifest, dry_run=dry_run) if exists and _INVALID in str(error) else None
            if cleared is None:
                raise
            return cleared
    except Gone as error:
        # The namespace is being deleted, or the CRD of the kind was removed after discovery.
        raise ApplyError(f"{manifest['kind']} {manifest['metadata']['name']}: {error}") from error
    except ApplyError as error:
        refused = f"the cluster refused {manifest['kind']} {manifest['metadata']['name']}"
        raise ApplyError(refused + with_source(manifest["kind"], str(error))) from error
    except ClusterError as error:
        if not error.is_failure:
            raise
        what = f"{manifest['kind']} {manifest['metadata']['name']}"
        raise ClusterError(f"the cluster failed to apply {what}, and the operator tries again: {error}", status=error.status) from error


async def _clear(kube: Kube, manifest: Manifest, *, dry_run: bool) -> Manifest | None:
    """Writes the manifest over what another writer owns of the child, and applies it; None if there is nothing of another writer.

    The patch has the whole spec, so its dry run says as much as one of `apply`. Raises as `apply`.
    """
    resource, meta = _resource(manifest), manifest["metadata"]
    changes = taken_back(manifest, await kube.get(resource, meta["namespace"], meta["name"]))
    if changes is None:
        return None
    answer = await kube.patch(resource, meta["namespace"], meta["name"], changes, dry_run=dry_run)
    return answer if dry_run else await _apply_alone(kube, manifest)


async def _apply_alone(kube: Kube, manifest: Manifest) -> Manifest:
    """Applies the manifest, and gives up what the operator owns of the child by a merge patch, because that would stay in it for good.

    Controllers write the child's status at the same time. What cannot be given up now is given up at a later apply. Raises as `apply`.
    """
    resource, meta = _resource(manifest), manifest["metadata"]
    for _ in range(_ATTEMPTS):
        answer = await kube.apply(resource, manifest)
        kept = kept_entries(answer)
        if len(kept) == len(answer["metadata"].get("managedFields") or ()):
            break
        freed = {"metadata": {"managedFields": kept, "resourceVersion": answer["metadata"]["resourceVersion"]}}
        try:
            return await kube.patch(resource, meta["namespace"], meta["name"], freed)
        except ApplyError:
            break
        except ClusterError as error:
            if error.status != _CONFLICT:
                raise
    return answer

"""The number of pods: what the resource asks for whatever else is wrong with it, and who else has written it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from alise_contract.names import API_GROUP, API_VERSION, KIND
from alise_operator.children.meta import MANAGER, Owner
from alise_operator.spec_types import MAX_REPLICAS

REASON: Final = "ReplicasReset"
# An autoscaler that targets the Deployment writes it every few seconds: it is said once in this time.
SAY_AGAIN_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Scale:
    """The replicas of a Deployment at a generation of it."""

    generation: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Another writer's replicas of the Deployment, which the resource does not ask for."""

    found: int
    wanted: int
    # Who wrote them; empty where the API server does not say.
    writer: str = ""


def scale_of(deployment: Mapping[str, Any]) -> Scale:
    return Scale(deployment["metadata"].get("generation", 0), deployment["spec"].get("replicas", 1))


def is_suspended(raw: object) -> bool:
    """Returns whether a resource's `spec` says suspend, however wrong the rest of it is."""
    return isinstance(raw, dict) and raw.get("suspend") is True


def wanted_replicas(raw: object) -> int | None:
    """Returns the replicas that a resource's `spec` asks for, however wrong the rest of it is; None when just this is wrong."""
    if not isinstance(raw, dict):
        return None
    if is_suspended(raw):
        return 0
    replicas, suspend = raw.get("replicas", 1), raw.get("suspend", False)
    if type(replicas) is not int or suspend is not False or not 0 <= replicas <= MAX_REPLICAS:
        return None
    # A volume that one node mounts: a second pod would wait for it for ever.
    return None if replicas > 1 and _one_node(raw) else replicas


def _one_node(raw: Mapping[str, Any]) -> bool:
    model = raw.get("model")
    cache = model.get("cache") if isinstance(model, dict) else None
    return isinstance(cache, dict) and cache.get("accessMode") != "ReadWriteMany"


def reset_by(deployment: Mapping[str, Any], applied: Scale) -> Reset | None:
    """Returns the replicas that another one wrote after we had applied ours; None when they are ours."""
    seen = scale_of(deployment)
    if seen.generation <= applied.generation or seen.replicas == applied.replicas:
        # An event from before the last apply, or a change of something else.
        return None
    return Reset(seen.replicas, applied.replicas, _writer(deployment))


def _writer(deployment: Mapping[str, Any]) -> str:
    """The newest field manager of the replicas beside ours; servers before 1.22 do not record those who scale."""
    writers = [
        (one.get("time") or "", str(one.get("manager")))
        for one in deployment["metadata"].get("managedFields") or ()
        if one.get("manager") != MANAGER and "f:replicas" in ((one.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    return max(writers, default=("", ""))[1]


def say(reset: Reset, owner: Owner, *, suspended: bool) -> str:
    """Returns what happened, and how to scale instead."""
    by = f" by {reset.writer}" if reset.writer else ""
    if suspended:
        return (
            f"Deployment {owner.name} was scaled to {reset.found}{by} and is set back to 0, because spec.suspend of the {KIND} is true; to "
            f"serve, set it to false: kubectl patch alise {owner.name} -n {owner.namespace} --type merge "
            '-p \'{"spec":{"suspend":false}}\'; to change the number of pods, use kubectl scale alise '
            f"{owner.name} -n {owner.namespace} --replicas={reset.found}"
        )
    return (
        f"Deployment {owner.name} was scaled to {reset.found}{by} and is set back to {reset.wanted}, which the {KIND} asks for; use "
        f"kubectl scale alise {owner.name} -n {owner.namespace} --replicas={reset.found}, and let an autoscaler target the {KIND} "
        f"(scaleTargetRef: apiVersion {API_GROUP}/{API_VERSION}, kind {KIND}, name {owner.name})"
    )

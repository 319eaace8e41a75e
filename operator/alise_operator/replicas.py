"""The number of pods: what an AliseEngine requests even if the rest of its spec is invalid, and which other writer has changed it.

Pure: apply.py writes the number. restores.py finds with `reset_by()` who else has changed it, and words the event with `reset_message()`;
reconcile.py posts it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from alise_contract.names import API_GROUP, API_VERSION, KIND
from alise_operator.children.meta import MANAGER, Owner
from alise_operator.spec_types import MAX_REPLICAS

REASON: Final = "ReplicasReset"
# An autoscaler that targets the Deployment writes it every few seconds; the event is posted once in this time.
REPEAT_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Scale:
    """The replicas of a Deployment at a generation of it."""

    generation: int
    replicas: int


@dataclass(frozen=True, slots=True)
class Reset:
    """A number of replicas that another writer set on the Deployment, and that differs from the AliseEngine."""

    found: int
    wanted: int
    # The writer; empty if the API server does not record it.
    writer: str = ""


def scale_of(deployment: Mapping[str, Any]) -> Scale:
    return Scale(deployment["metadata"].get("generation", 0), deployment["spec"].get("replicas", 1))


def is_suspended(raw: object) -> bool:
    """Returns whether suspend is true in a `spec`, even if the rest of it is invalid."""
    return isinstance(raw, dict) and raw.get("suspend") is True


def wanted_replicas(raw: object) -> int | None:
    """Returns the replicas in a `spec`, even if the rest of it is invalid; None if replicas or suspend are invalid themselves."""
    if not isinstance(raw, dict):
        return None
    if is_suspended(raw):
        return 0
    replicas, suspend = raw.get("replicas", 1), raw.get("suspend", False)
    if type(replicas) is not int or suspend is not False or not 0 <= replicas <= MAX_REPLICAS:
        return None
    # Only one node can mount the volume, so a second pod would wait for it forever.
    return None if replicas > 1 and _one_node(raw) else replicas


def _one_node(raw: Mapping[str, Any]) -> bool:
    model = raw.get("model")
    cache = model.get("cache") if isinstance(model, dict) else None
    return isinstance(cache, dict) and cache.get("accessMode") != "ReadWriteMany"


def reset_by(deployment: Mapping[str, Any], applied: Scale) -> Reset | None:
    """Returns the replicas that another writer set after the operator applied its own; None if they are the operator's."""
    seen = scale_of(deployment)
    if seen.generation <= applied.generation or seen.replicas == applied.replicas:
        # The event is older than the last apply, or something else has changed.
        return None
    return Reset(seen.replicas, applied.replicas, _writer(deployment))


def _writer(deployment: Mapping[str, Any]) -> str:
    """Returns the most recent other field manager of the replicas. Servers before 1.22 do not record who scales."""
    writers = [
        (one.get("time") or "", str(one.get("manager")))
        for one in deployment["metadata"].get("managedFields") or ()
        if one.get("manager") != MANAGER and "f:replicas" in ((one.get("fieldsV1") or {}).get("f:spec") or {})
    ]
    return max(writers, default=("", ""))[1]


def reset_message(reset: Reset, owner: Owner, *, suspended: bool) -> str:
    """Returns the message of the event: what happened, and how to scale instead."""
    by = f" by {reset.writer}" if reset.writer else ""
    if suspended:
        return (
            f"Deployment {owner.name} was scaled to {reset.found}{by} and has been reset to 0, because spec.suspend of the {KIND} is true; "
            f"to serve, set it to false: kubectl patch alise {owner.name} -n {owner.namespace} --type merge "
            '-p \'{"spec":{"suspend":false}}\'; to change the number of pods, use kubectl scale alise '
            f"{owner.name} -n {owner.namespace} --replicas={reset.found}"
        )
    return (
        f"Deployment {owner.name} was scaled to {reset.found}{by} and has been reset to {reset.wanted}, as the {KIND} requests; use "
        f"kubectl scale alise {owner.name} -n {owner.namespace} --replicas={reset.found}, and let an autoscaler target the {KIND} "
        f"(scaleTargetRef: apiVersion {API_GROUP}/{API_VERSION}, kind {KIND}, name {owner.name})"
    )

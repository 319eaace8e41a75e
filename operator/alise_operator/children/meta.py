"""Names, labels and owner references that all children share. Pure; the builders of `children/` and what finds children again use them."""

from dataclasses import dataclass
from typing import Any, Final

from alise_contract.names import API_GROUP, API_VERSION, ENGINE_LABEL, KIND

Manifest = dict[str, Any]

MANAGER: Final = "alise-operator"
# On a pod: the template that it was created from, to distinguish pods with the newest spec from older ones.
TEMPLATE_ANNOTATION: Final = f"{API_GROUP}/template"
# On a pod: ReplicaSets remove the pods with the lowest cost first, since Kubernetes 1.22.
DELETION_COST_ANNOTATION: Final = "controller.kubernetes.io/pod-deletion-cost"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"


@dataclass(frozen=True, slots=True)
class Owner:
    """The AliseEngine that the children belong to."""

    name: str
    namespace: str
    uid: str


def labels(owner: Owner) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "alise-engine",
        "app.kubernetes.io/instance": owner.name,
        MANAGED_BY: MANAGER,
        ENGINE_LABEL: owner.name,
    }


def selector(owner: Owner) -> dict[str, str]:
    """Returns labels that select the pods of the AliseEngine and no others. A Deployment cannot change them, so never add one."""
    return {ENGINE_LABEL: owner.name}


def selector_text(name: str) -> str:
    return f"{ENGINE_LABEL}={name}"


def metadata(owner: Owner, *, annotations: dict[str, str] | None = None) -> Manifest:
    """Returns the metadata of a child. It has the name of its owner, and an owner reference by which it is deleted with the owner."""
    meta: Manifest = {
        "name": owner.name,
        "namespace": owner.namespace,
        "labels": labels(owner),
        "ownerReferences": [
            {
                "apiVersion": f"{API_GROUP}/{API_VERSION}",
                "kind": KIND,
                "name": owner.name,
                "uid": owner.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if annotations:
        meta["annotations"] = annotations
    return meta

"""Names, labels and owner references that all children share."""

from dataclasses import dataclass
from typing import Any, Final

from alise_contract.names import API_GROUP, API_VERSION, ENGINE_LABEL, KIND

Manifest = dict[str, Any]

MANAGER: Final = "alise-operator"
# On a pod: of which template it was made, to tell pods of the newest spec from older ones.
TEMPLATE_ANNOTATION: Final = f"{API_GROUP}/template"
MANAGED_BY: Final = "app.kubernetes.io/managed-by"


@dataclass(frozen=True, slots=True)
class Owner:
    """The resource that the children belong to."""

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
    """Labels that find the resource's pods, and no others. Immutable in a Deployment: never add to it."""
    return {ENGINE_LABEL: owner.name}


def selector_text(name: str) -> str:
    return f"{ENGINE_LABEL}={name}"


def metadata(owner: Owner, *, annotations: dict[str, str] | None = None) -> Manifest:
    """Metadata of a child: named like the resource, owned by it, so that the garbage collector removes it with its owner."""
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

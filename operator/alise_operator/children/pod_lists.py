"""The lists of a pod template that merge item by item, and the fields of which an object may have only one, as in Kubernetes.

Only values, for merge.py and pod_shape.py. They are taken from the OpenAPI schema that Kubernetes publishes (`x-kubernetes-list-map-keys`,
`x-kubernetes-patch-merge-key`, `x-kubernetes-patch-strategy`). Tests compare the table with the schemas of all supported versions and of a
real API server, so that they find a list of a new Kubernetes. Every list that is not in the table is replaced as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MergedList:
    """The fields that identify the items of a list; none for a list of plain values, which is a set."""

    keys: tuple[str, ...] = ()


_BY_NAME: Final = MergedList(("name",))
_IN_CONTAINERS: Final[Mapping[Path, MergedList]] = {
    ("env",): _BY_NAME,
    ("ports",): MergedList(("containerPort", "protocol")),
    ("volumeMounts",): MergedList(("mountPath",)),
    ("volumeDevices",): MergedList(("devicePath",)),
    ("resources", "claims"): _BY_NAME,
}
_METADATA: Final[Mapping[Path, MergedList]] = {("finalizers",): MergedList(), ("ownerReferences",): MergedList(("uid",))}
CONTAINER_LISTS: Final = ("containers", "initContainers")
_KINDS_OF_CONTAINERS: Final = (*CONTAINER_LISTS, "ephemeralContainers")

LISTS: Final[Mapping[Path, MergedList]] = {
    **{("metadata", *path): kind for path, kind in _METADATA.items()},
    **{("spec", containers): _BY_NAME for containers in _KINDS_OF_CONTAINERS},
    **{("spec", containers, *path): kind for containers in _KINDS_OF_CONTAINERS for path, kind in _IN_CONTAINERS.items()},
    ("spec", "evictionResponders"): _BY_NAME,
    ("spec", "hostAliases"): MergedList(("ip",)),
    ("spec", "imagePullSecrets"): _BY_NAME,
    ("spec", "resourceClaims"): _BY_NAME,
    ("spec", "resources", "claims"): _BY_NAME,
    ("spec", "schedulingGates"): _BY_NAME,
    ("spec", "topologySpreadConstraints"): MergedList(("topologyKey", "whenUnsatisfiable")),
    ("spec", "volumes"): _BY_NAME,
    **{("spec", "volumes", "ephemeral", "volumeClaimTemplate", "metadata", *path): kind for path, kind in _METADATA.items()},
    # Only in 1.27 and 1.28.
    ("spec", "volumes", "ephemeral", "volumeClaimTemplate", "spec", "resources", "claims"): _BY_NAME,
}
# The value of a key that an item omits.
KEY_DEFAULTS: Final[Mapping[str, str]] = {"protocol": "TCP"}

_HANDLERS: Final = frozenset({"exec", "httpGet", "tcpSocket", "grpc", "sleep"})
_ONE_OF: Final[Mapping[str, frozenset[str]]] = {
    "env": frozenset({"value", "valueFrom"}),
    "valueFrom": frozenset({"configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef"}),
    **dict.fromkeys(("livenessProbe", "readinessProbe", "startupProbe", "postStart", "preStop"), _HANDLERS),
}
# An item of these lists has a name and one other field, its source (`x-kubernetes-patch-strategy: merge,retainKeys`).
RETAIN_KEYS: Final = frozenset({("spec", "volumes"), ("spec", "resourceClaims")})


def one_of(path: Path, fields: frozenset[str]) -> frozenset[str]:
    """Returns those of the fields of which the object at the path may have only one."""
    if path in RETAIN_KEYS:
        return fields - {"name"}
    return _ONE_OF.get(path[-1] if path else "", frozenset())

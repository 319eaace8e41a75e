"""The operator's setting ALISE_POD_PATCH_ALLOW as a value: what pods may have beyond the restricted default.

Pure: settings.py reads it, and a `Cluster` carries it to children/pod_policy.py, which refuses everything else and names the term that
would allow what it refused. A term is the name of a field that a pod patch may not set by default (`hostPath`), or such a name with the one
value that is allowed (`hostPath=/srv/models`).
"""

from dataclasses import dataclass
from typing import Final

SETTING: Final = "ALISE_POD_PATCH_ALLOW"
# Volume types other than these and those that pods may always have; all of them reach something outside the namespace.
VOLUME_TYPES: Final = frozenset(
    {
        "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "csi", "fc", "flexVolume", "flocker", "gcePersistentDisk",
        "gitRepo", "glusterfs", "hostPath", "iscsi", "nfs", "photonPersistentDisk", "portworxVolume", "quobyte", "rbd", "scaleIO",
        "storageos", "vsphereVolume",
    }
)  # fmt: skip
TERMS: Final = VOLUME_TYPES | {
    # Of the pod.
    "hostNetwork", "hostPID", "hostIPC", "nodeName", "priorityClassName", "serviceAccountName", "automountServiceAccountToken", "sysctls",
    # Of a container.
    "hostPort", "probeHost", "privileged", "allowPrivilegeEscalation", "capabilities", "procMount",
    # Of both.
    "runAsNonRoot", "runAsUser", "seLinuxOptions", "seccompProfile", "appArmorProfile", "windowsOptions",
    # What volumes and environment hold.
    "secrets", "serviceAccountToken", "podCertificate",
    # Fields that Kubernetes got after this version of alise.
    "unknownFields",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Allowed:
    """Terms of the setting."""

    terms: frozenset[str] = frozenset()

    def allows(self, name: str, value: str | None = None) -> bool:
        """Returns whether the field is allowed, with any value or with this one."""
        return name in self.terms or (value is not None and f"{name}={value}" in self.terms)


RESTRICTED: Final = Allowed()


def read_allowed(text: str) -> Allowed:
    """Returns a text such as `hostPath=/srv/models, nodeName` as a value. Raises ValueError, which names the unknown term."""
    terms = [term.strip() for term in text.split(",") if term.strip()]
    for term in terms:
        name, equals, value = term.partition("=")
        if name not in TERMS or (equals and not value):
            raise ValueError(f"{term!r} is not one of {', '.join(sorted(TERMS))}, alone or followed by =VALUE")
    return Allowed(frozenset(terms))

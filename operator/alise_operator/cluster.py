"""What the operator knows about the cluster that it runs in, as a value: version, optional APIs, images and the operator's settings.

Pure: kube.py discovers it, and the builders in children/ read it.
"""

from dataclasses import dataclass
from typing import Final

from alise_operator.allowed import RESTRICTED, Allowed

# Native sidecars (initContainers[].restartPolicy) are on by default since this minor version of Kubernetes 1.
_NATIVE_SIDECARS_MINOR: Final = 29
_NAMED_NAMESPACES_MINOR: Final = 21
HTTP_ROUTE: Final = "gateway.networking.k8s.io/v1/HTTPRoute"
INFERENCE_POOL: Final = "inference.networking.k8s.io/v1/InferencePool"
SCALED_OBJECT: Final = "keda.sh/v1alpha1/ScaledObject"


@dataclass(frozen=True, slots=True)
class Images:
    """Images for AliseEngines that name none."""

    engine_cuda: str = "localhost/alise/engine-cuda:dev"
    engine_cpu: str = "localhost/alise/engine-cpu:dev"
    scheduler: str = "localhost/alise/scheduler:dev"
    # The operator's own image has the endpoint picker.
    picker: str = "localhost/alise/operator:dev"


@dataclass(frozen=True, slots=True)
class KedaScaler:
    """How KEDA reaches the operator's scaler: its address, and the ClusterTriggerAuthentication with the authority of its certificate."""

    address: str
    authentication: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """Kubernetes' version and the optional APIs its discovery offers, as `group/version/Kind`."""

    minor: int
    apis: frozenset[str]
    images: Images = Images()
    major: int = 1
    # Whether the rules of an HTTPRoute have `timeouts`: standard since Gateway API 1.2, experimental before.
    route_timeouts: bool = True
    # The namespace of the operator's pod.
    operator_namespace: str = "alise-system"
    # What pods may have beyond the restricted default.
    allowed: Allowed = RESTRICTED
    # Annotations that routes may have beyond the harmless ones: names, or beginnings of names that end with *.
    route_annotations: frozenset[str] = frozenset()
    # The kind of the role that endpoint pickers are given: an operator for one namespace comes with a Role.
    picker_role_kind: str = "ClusterRole"
    # None if this operator does not serve KEDA.
    keda_scaler: KedaScaler | None = None

    @property
    def keda(self) -> KedaScaler | None:
        """The scaler by which KEDA scales AliseEngines; None where KEDA is not installed, or the operator does not serve it."""
        return self.keda_scaler if SCALED_OBJECT in self.apis else None

    @property
    def named_namespaces(self) -> bool:
        """Whether namespaces carry their name as a label."""
        return (self.major, self.minor) >= (1, _NAMED_NAMESPACES_MINOR)

    @property
    def native_sidecars(self) -> bool:
        return (self.major, self.minor) >= (1, _NATIVE_SIDECARS_MINOR)

    @property
    def disruption_budget_version(self) -> str | None:
        return next((version for version in ("policy/v1", "policy/v1beta1") if f"{version}/PodDisruptionBudget" in self.apis), None)

    @property
    def http_route(self) -> bool:
        return HTTP_ROUTE in self.apis

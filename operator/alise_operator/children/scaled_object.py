"""Builds the ScaledObject, by which KEDA scales the AliseEngine. Pure; `children()` in __init__.py calls it."""

from typing import Final

from alise_contract.names import API_GROUP, API_VERSION, KIND
from alise_operator.children.meta import Manifest, Owner, metadata
from alise_operator.cluster import Cluster
from alise_operator.spec import Spec

# As often as the operator observes the pods by default.
_POLLING_SECONDS: Final = 15


def scaled_object(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest | None:
    """Returns the ScaledObject; None without autoscaling, and where the operator scales by itself.

    While the AliseEngine is suspended there is none, because KEDA would start pods.
    """
    keda, scaling = cluster.keda, spec.autoscaling
    if keda is None or scaling is None or spec.suspend:
        return None
    down = {"stabilizationWindowSeconds": scaling.scale_down.stabilization_seconds}
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(owner),
        "spec": {
            "scaleTargetRef": {"apiVersion": f"{API_GROUP}/{API_VERSION}", "kind": KIND, "name": owner.name},
            "minReplicaCount": scaling.min_replicas,
            "maxReplicaCount": scaling.max_replicas,
            "pollingInterval": _POLLING_SECONDS,
            # After this time without work, KEDA removes the last pod if the minimum is 0.
            "cooldownPeriod": scaling.idle_seconds,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": down}}},
            "triggers": [
                {
                    "type": "external-push",
                    "metadata": {"scalerAddress": keda.address, "enableTLS": "true"},
                    "authenticationRef": {"kind": "ClusterTriggerAuthentication", "name": keda.authentication},
                }
            ],
        },
    }

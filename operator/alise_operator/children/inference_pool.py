"""Builds the InferencePool of the Gateway API Inference Extension, where its CRD is: the replicas, and the picker that gateways ask.

Pure; `children()` in __init__.py calls it.
"""

from alise_contract.names import ENGINE_PORT, PICKER_GRPC_PORT
from alise_operator.children.meta import Manifest, Owner, metadata, selector
from alise_operator.children.picker import picker_name
from alise_operator.cluster import INFERENCE_POOL, Cluster
from alise_operator.spec import Spec


def inference_pool(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest | None:
    if spec.routing.endpoint_picker is None or INFERENCE_POOL not in cluster.apis:
        return None
    version, _, kind = INFERENCE_POOL.rpartition("/")
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": metadata(owner),
        "spec": {
            "selector": {"matchLabels": selector(owner)},
            "targetPorts": [{"number": ENGINE_PORT}],
            # Without the picker, the gateway chooses by itself.
            "endpointPickerRef": {"name": picker_name(owner), "port": {"number": PICKER_GRPC_PORT}, "failureMode": "FailOpen"},
        },
    }

"""Only the two HTTP ports can be reached: vLLM and torch open further ones, unauthenticated, for their own workers."""

from alise_contract.names import ENGINE_PORT, SCHEDULER_HTTP_PORT
from alise_operator.build.meta import Manifest, Owner, metadata, selector


def network_policy(owner: Owner) -> Manifest:
    ports = [{"protocol": "TCP", "port": ENGINE_PORT}, {"protocol": "TCP", "port": SCHEDULER_HTTP_PORT}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(owner),
        "spec": {"podSelector": {"matchLabels": selector(owner)}, "policyTypes": ["Ingress"], "ingress": [{"ports": ports}]},
    }

"""Only the two HTTP ports can be reached: vLLM and torch open further ones, unauthenticated, for their own workers.

By everybody, unless the resource says by whom; the operator, which polls the pods, always may.
"""

from alise_contract.names import ENGINE_PORT, SCHEDULER_HTTP_PORT
from alise_operator.build.meta import MANAGER, Manifest, Owner, metadata, selector
from alise_operator.cluster import Cluster
from alise_operator.spec import Spec


def network_policy(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest | None:
    if not spec.network_policy.enabled:
        return None
    ports = [{"protocol": "TCP", "port": ENGINE_PORT}, {"protocol": "TCP", "port": SCHEDULER_HTTP_PORT}]
    rule: Manifest = {"ports": ports}
    if spec.network_policy.from_:
        rule["from"] = [_operator(cluster), *spec.network_policy.from_]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(owner),
        "spec": {"podSelector": {"matchLabels": selector(owner)}, "policyTypes": ["Ingress"], "ingress": [rule]},
    }


def _operator(cluster: Cluster) -> Manifest:
    pods = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": MANAGER}}}
    if not cluster.named_namespaces:
        return {"namespaceSelector": {}, **pods}
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.operator_namespace}}, **pods}

"""Builds the NetworkPolicy that allows connections only to the two HTTP ports of the pods, and for endpoint pickers to a third.

vLLM and torch open further ports without authentication for their own workers. All peers may connect unless the spec lists them; the
operator, which polls the pods, always may. What the pods may connect to is limited only if the spec lists it; DNS is always allowed,
because everything that a spec names (a hub, a database) is found by it, and so is the collector of traces if a policy can name it. Pure;
`children()` in __init__.py calls it.
"""

from typing import Final

from alise_contract.names import API_GROUP, ENGINE_PORT, LENGTHS_PORT, SCHEDULER_HTTP_PORT
from alise_operator.children.meta import MANAGER, Manifest, Owner, metadata, selector
from alise_operator.children.traces import trace_egress
from alise_operator.cluster import Cluster
from alise_operator.spec import Spec

# On the pods of an endpoint picker: the AliseEngine whose requests it places.
PICKER_LABEL: Final = f"{API_GROUP}/picker"
# To any address, because the DNS cache of a node is not a pod.
_DNS: Final[Manifest] = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}


def network_policy(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest | None:
    if not spec.network_policy.enabled:
        return None
    ports = [{"protocol": "TCP", "port": ENGINE_PORT}, {"protocol": "TCP", "port": SCHEDULER_HTTP_PORT}]
    rule: Manifest = {"ports": ports}
    if spec.network_policy.from_:
        rule["from"] = [operator_peer(cluster), *spec.network_policy.from_]
    rules = [rule, *_lengths(spec, owner)]
    policy: Manifest = {"podSelector": {"matchLabels": selector(owner)}, "policyTypes": ["Ingress"], "ingress": rules}
    if spec.network_policy.egress is not None:
        policy |= {"policyTypes": ["Ingress", "Egress"], "egress": [_DNS, *trace_egress(spec, owner), *spec.network_policy.egress]}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(owner), "spec": policy}


def _lengths(spec: Spec, owner: Owner) -> list[Manifest]:
    """Returns the rule for predictions and loads, which pods serve only if there is one who may ask."""
    if not serves_lengths(spec):
        return []
    own = [{"podSelector": {"matchLabels": {PICKER_LABEL: owner.name}}}] if spec.routing.endpoint_picker is not None else []
    return [{"ports": [{"protocol": "TCP", "port": LENGTHS_PORT}], "from": [*own, *spec.routing.lengths_from]}]


def serves_lengths(spec: Spec) -> bool:
    """Returns whether the scheduler serves predictions to endpoint pickers."""
    return spec.routing.endpoint_picker is not None or bool(spec.routing.lengths_from)


def operator_peer(cluster: Cluster) -> Manifest:
    pods = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": MANAGER}}}
    if not cluster.named_namespaces:
        return {"namespaceSelector": {}, **pods}
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": cluster.operator_namespace}}, **pods}

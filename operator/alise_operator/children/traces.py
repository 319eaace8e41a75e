"""What a pod needs to send traces: the engine's flags and variables, and the way to the collector through the NetworkPolicy.

Pure: pod.py and network_policy.py call it. The scheduler sends no traces; the engine knows what happened to a request.
"""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from alise_contract.names import TRACES_RATIO_ENV
from alise_contract.quantities import parse_quantity
from alise_operator.children.meta import Manifest, Owner
from alise_operator.spec import Spec
from alise_operator.trace_rules import POD_NAME_ENV, PROTOCOL_ENV

_MAX_NAMESPACE_CHARS: Final = 63


def trace_args(spec: Spec) -> list[str]:
    """Returns the flags of `vllm serve`."""
    traces = spec.observability.traces
    return [] if traces is None else ["--otlp-traces-endpoint", traces.endpoint]


def trace_env(spec: Spec, owner: Owner) -> list[Manifest]:
    """Returns the engine's variables. The user's own names of the service and its attributes in spec.engine.env stay."""
    traces = spec.observability.traces
    if traces is None:
        return []
    # Kubernetes inserts a variable only after its definition.
    pod: Manifest = {"name": POD_NAME_ENV, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}
    attributes = {
        "service.namespace": owner.namespace,
        "service.instance.id": f"$({POD_NAME_ENV})",
        "k8s.namespace.name": owner.namespace,
        "k8s.pod.name": f"$({POD_NAME_ENV})",
    }
    fixed = {TRACES_RATIO_ENV: str(float(parse_quantity(traces.sampling_ratio))), PROTOCOL_ENV: traces.protocol}
    defaults = {
        "OTEL_SERVICE_NAME": owner.name,
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{name}={value}" for name, value in attributes.items()),
    }
    given = {variable.name for variable in spec.engine.env}
    chosen = fixed | {name: value for name, value in defaults.items() if name not in given}
    return [pod, *({"name": name, "value": value} for name, value in chosen.items())]


def trace_egress(spec: Spec, owner: Owner) -> list[Manifest]:
    """Returns the egress rule for a collector that is an address or a Service of the cluster.

    A NetworkPolicy cannot name other hosts, and it is applied behind the Service: one whose pods listen on another port than the Service
    needs a rule of the user's as well.
    """
    traces = spec.observability.traces
    if traces is None:
        return []
    address = urlsplit(traces.endpoint)
    peer = _peer(address.hostname or "", owner)
    return [] if peer is None else [{"to": [peer], "ports": [{"protocol": "TCP", "port": address.port}]}]


def _peer(host: str, owner: Owner) -> Manifest | None:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return {"ipBlock": {"cidr": f"{ip}/{ip.max_prefixlen}"}}
    _, namespace, *rest = [*host.split("."), owner.namespace] if "." not in host else host.split(".")
    if (rest and rest[0] != "svc") or len(namespace) > _MAX_NAMESPACE_CHARS:
        return None
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}

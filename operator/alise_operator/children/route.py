"""Builds the access from outside the cluster: an Ingress or a Gateway API HTTPRoute, for answers that stream for minutes.

Pure; `children()` in __init__.py calls it. route_ready.py supplies what the Gateway allows, and status.py takes the URL from `url()`.
"""

from dataclasses import dataclass
from typing import Final

from alise_contract.names import API_GROUP
from alise_operator.children.annotations import checked
from alise_operator.children.meta import Manifest, Owner, metadata
from alise_operator.children.service import SERVICE_PORT
from alise_operator.cluster import HTTP_ROUTE, Cluster
from alise_operator.errors import MissingApi
from alise_operator.spec import Route, Spec

API_PATH: Final = "/v1"
# The fields of `timeouts` in a rule of an HTTPRoute.
TIMEOUTS: Final = ("request", "backendRequest")
# On an HTTPRoute without timeouts: the Gateway (namespace/name) that refused them.
TIMEOUTS_REFUSED_BY: Final = f"{API_GROUP}/timeouts-refused-by"
# An Ingress has no fields for timeouts or buffering. These are the annotations of the most common controllers; others ignore them.
_STREAMING_ANNOTATIONS: Final = {
    "nginx.ingress.kubernetes.io/proxy-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-request-buffering": "off",
    "nginx.ingress.kubernetes.io/proxy-read-timeout": "86400",
    "nginx.ingress.kubernetes.io/proxy-send-timeout": "86400",
    "nginx.ingress.kubernetes.io/proxy-body-size": "0",
    "haproxy.org/timeout-server": "86400s",
    "haproxy.org/timeout-tunnel": "86400s",
}


@dataclass(frozen=True, slots=True)
class GatewayLimits:
    """What the Gateway of an HTTPRoute allows, as far as known; everything by default."""

    # Whether it allows routes of the AliseEngine's namespace.
    allows_namespace: bool = True
    timeouts: frozenset[str] = frozenset(TIMEOUTS)
    # The Gateway (namespace/name) if it has refused the timeouts of this route.
    timeouts_refused_by: str = ""


def ingress(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest | None:
    """Returns the Ingress; None with another type. Raises InvalidSpec if an annotation is not allowed."""
    route = spec.route
    if route.type != "Ingress":
        return None
    backend = {"service": {"name": owner.name, "port": {"number": SERVICE_PORT}}}
    paths = [{"path": API_PATH, "pathType": "Prefix", "backend": backend}]
    body: Manifest = {"rules": [{"host": host, "http": {"paths": paths}} for host in route.hosts]}
    if route.class_name is not None:
        body["ingressClassName"] = route.class_name
    if route.tls_secret is not None:
        body["tls"] = [{"hosts": list(route.hosts), "secretName": route.tls_secret}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata(owner, annotations=_STREAMING_ANNOTATIONS | checked(route.annotations, cluster)),
        "spec": body,
    }


def http_route(spec: Spec, owner: Owner, cluster: Cluster, limits: GatewayLimits) -> Manifest | None:
    """Returns the HTTPRoute; None with another type, or if the Gateway allows no routes of the namespace.

    Raises MissingApi if the cluster has no Gateway API, and InvalidSpec if an annotation is not allowed.
    """
    route = spec.route
    if route.type != "HTTPRoute" or route.parent_ref is None:
        return None
    annotations = checked(route.annotations, cluster)
    if not cluster.http_route:
        raise MissingApi(
            f"spec.route.type: HTTPRoute needs {HTTP_ROUTE}, which this cluster does not serve; install the Gateway API or use Ingress"
        )
    if not limits.allows_namespace:
        return None
    parent: Manifest = {"name": route.parent_ref.name, "group": "gateway.networking.k8s.io", "kind": "Gateway"}
    if route.parent_ref.namespace is not None:
        parent["namespace"] = route.parent_ref.namespace
    if route.parent_ref.section_name is not None:
        parent["sectionName"] = route.parent_ref.section_name
    rule: Manifest = {
        "matches": [{"path": {"type": "PathPrefix", "value": API_PATH}}],
        "backendRefs": [{"group": "", "kind": "Service", "name": owner.name, "port": SERVICE_PORT, "weight": 1}],
    }
    fields = _timeouts(spec, limits) if cluster.route_timeouts else ()
    if fields:
        # "0s" means no timeout: an answer streams for as long as it takes. Without the field the Gateway's own timeout applies.
        rule["timeouts"] = dict.fromkeys(fields, "0s")
    elif route.timeouts == "Auto" and limits.timeouts_refused_by:
        annotations[TIMEOUTS_REFUSED_BY] = limits.timeouts_refused_by
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": metadata(owner, annotations=annotations),
        "spec": {"parentRefs": [parent], "hostnames": list(route.hosts), "rules": [rule]},
    }


def _timeouts(spec: Spec, limits: GatewayLimits) -> tuple[str, ...]:
    """Returns the fields of `timeouts` to write."""
    match spec.route.timeouts:
        case "Set":
            return TIMEOUTS
        case "Omit":
            return ()
    return () if limits.timeouts_refused_by else tuple(field for field in TIMEOUTS if field in limits.timeouts)


def url(route: Route, owner: Owner) -> str | None:
    """Returns the base URL of the OpenAI API: that of the route, or else of the Service. None if all hosts are wildcards."""
    if route.type == "None" or not route.hosts:
        return f"http://{owner.name}.{owner.namespace}.svc{API_PATH}"
    scheme = "https" if route.tls_secret is not None else "http"
    host = next((host for host in route.hosts if not host.startswith("*")), None)
    return f"{scheme}://{host}{API_PATH}" if host is not None else None

"""From the cluster's objects to Envoy's configuration; pure.

Knows Ingress, Gateway, HTTPRoute, Service and Endpoints as plain JSON objects, and Envoy's RouteConfiguration, Cluster and
ClusterLoadAssignment. Only what a test ingress needs: HTTP without TLS, host and path matches, weighted backends. What it does not know
(filters, header matches) it leaves out and says so in `Resources.warnings`, instead of routing wrongly. `controller.py` and `envoy.py` call
it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.gateway import picker

Json = dict[str, Any]

INGRESS_CLASS = "alise-test"
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
# Every answer says which pod it came from.
UPSTREAM_HEADER = "x-alise-test-upstream"
ROUTE_CONFIG_NAME = "cluster"
# Shorter than the 5 s after which the engine's HTTP server closes an idle connection: a request must not go into a closing one.
UPSTREAM_IDLE_SECONDS = 2
CONNECT_SECONDS = 2
# Envoy's defaults (1024) would answer 503 under load; the engine's admission decides, not the ingress.
NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Objects:
    """What the translation reads, as the API server gives it."""

    ingresses: Sequence[Json] = ()
    gateways: Sequence[Json] = ()
    routes: Sequence[Json] = ()
    services: Sequence[Json] = ()
    endpoints: Sequence[Json] = ()


@dataclass(frozen=True, slots=True)
class Address:
    """One ready endpoint. `pod` is its pod as namespace/name, empty when the Endpoints object names none."""

    ip: str
    port: int
    pod: str = ""


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """A port of a Service; its name is the Envoy cluster's."""

    namespace: str
    service: str
    port: str  # number or name, as the route wrote it

    @property
    def cluster(self) -> str:
        """Name of the Envoy cluster; usable as a file name."""
        return f"{self.namespace}.{self.service}.{self.port}"


@dataclass(frozen=True, slots=True)
class Match:
    """One route of one host. `exact` paths match whole, others as a prefix of path elements."""

    host: str
    path: str
    exact: bool
    backends: tuple[tuple[Backend, int], ...]  # with weights


@dataclass(frozen=True, slots=True)
class Resources:
    """Envoy's resources, and what a person should know about the objects they came from."""

    route_config: Json
    clusters: tuple[Json, ...]
    assignments: Mapping[str, Json]  # by cluster name
    hosts: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())


def envoy_resources(objects: Objects, body_mode: str = picker.BUFFERED, own_balancing: str = "LEAST_REQUEST") -> Resources:
    """Translate. The same objects in any order give the same resources.

    `body_mode` is how pickers see bodies, `own_balancing` how Envoy chooses where there is no picker or it says nothing.
    """
    warnings: list[str] = []
    matches = [*_ingress_matches(objects.ingresses, warnings), *_route_matches(objects.routes, our_gateways(objects.gateways), warnings)]
    # 1. One virtual host per host; where two objects claim the same path, the older rule (by name) wins, as in other controllers.
    by_host: dict[str, dict[tuple[str, bool], Match]] = {}
    for match in matches:
        by_host.setdefault(match.host, {}).setdefault((match.path, match.exact), match)
    # 2. Exact paths first, then the longest prefix.
    hosts = {host: sorted(rows.values(), key=lambda row: (not row.exact, -len(row.path), row.path)) for host, rows in by_host.items()}
    # 3. A cluster with its endpoints for every backend that a route names, with or without endpoints.
    backends = sorted({backend for rows in hosts.values() for row in rows for backend, _ in row.backends})
    pickers = _pickers(backends, objects.services)
    addresses = {backend: ready_addresses(backend, objects.services, objects.endpoints) for backend in [*backends, *pickers.values()]}
    return Resources(
        route_config={
            "name": ROUTE_CONFIG_NAME,
            "ignore_port_in_host_matching": True,
            "virtual_hosts": [_virtual_host(host, hosts[host], pickers, body_mode) for host in sorted(hosts)],
        },
        clusters=(
            *(picker.picked(one) if backend in pickers else one for backend in backends for one in [_cluster(backend, own_balancing)]),
            *(picker.picker_cluster(_cluster(backend, "ROUND_ROBIN")) for backend in pickers.values()),
        ),
        assignments={backend.cluster: _assignment(backend, found) for backend, found in addresses.items()},
        hosts=tuple(sorted(hosts)),
        warnings=tuple(sorted(set(warnings))),
    )


def our_ingress(ingress: Json) -> bool:
    """Whether the Ingress names our class, in the field or in the annotation that came before it."""
    named = ingress.get("spec", {}).get("ingressClassName") or ingress["metadata"].get("annotations", {}).get(CLASS_ANNOTATION)
    return bool(named == INGRESS_CLASS)


def our_gateways(gateways: Iterable[Json]) -> frozenset[tuple[str, str]]:
    """(namespace, name) of the Gateways of our class."""
    return frozenset(
        (item["metadata"]["namespace"], item["metadata"]["name"])
        for item in gateways
        if item.get("spec", {}).get("gatewayClassName") == INGRESS_CLASS
    )


def our_route(route: Json, gateways: frozenset[tuple[str, str]]) -> bool:
    """Whether one of the route's parents is a Gateway of ours."""
    namespace = route["metadata"]["namespace"]
    parents = route.get("spec", {}).get("parentRefs", [])
    return any((parent.get("namespace", namespace), parent.get("name")) in gateways for parent in parents)


def _sorted(objects: Iterable[Json]) -> list[Json]:
    def age(item: Json) -> tuple[str, str, str]:
        metadata = item["metadata"]
        return metadata.get("creationTimestamp") or "", metadata["namespace"], metadata["name"]

    return sorted(objects, key=age)


def _ingress_matches(ingresses: Iterable[Json], warnings: list[str]) -> Iterator[Match]:
    for ingress in _sorted(filter(our_ingress, ingresses)):
        namespace, name = ingress["metadata"]["namespace"], ingress["metadata"]["name"]
        spec = ingress.get("spec", {})
        if spec.get("tls"):
            warnings.append(f"Ingress {namespace}/{name}: tls is not served, plain HTTP only")
        if backend := _ingress_backend(namespace, spec.get("defaultBackend")):
            yield Match("*", "/", False, ((backend, 1),))
        for rule in spec.get("rules", []):
            for path in rule.get("http", {}).get("paths", []):
                backend = _ingress_backend(namespace, path.get("backend"))
                if backend is None:
                    warnings.append(f"Ingress {namespace}/{name}: a backend that is no Service is left out")
                    continue
                yield Match(rule.get("host") or "*", path.get("path") or "/", path.get("pathType") == "Exact", ((backend, 1),))


def _ingress_backend(namespace: str, backend: Json | None) -> Backend | None:
    service = (backend or {}).get("service")
    if not service:
        return None
    port = service.get("port", {})
    return Backend(namespace, service["name"], str(port.get("number") or port.get("name")))


def _route_matches(routes: Iterable[Json], gateways: frozenset[tuple[str, str]], warnings: list[str]) -> Iterator[Match]:
    for route in _sorted(routes):
        if not our_route(route, gateways):
            continue
        namespace, name = route["metadata"]["namespace"], route["metadata"]["name"]
        spec = route.get("spec", {})
        for rule in spec.get("rules", []):
            if rule.get("filters"):
                warnings.append(f"HTTPRoute {namespace}/{name}: a rule with filters is left out")
                continue
            backends = tuple(
                (Backend(ref.get("namespace", namespace), ref["name"], str(ref.get("port"))), ref.get("weight", 1))
                for ref in rule.get("backendRefs", [])
                if ref.get("kind", "Service") == "Service"
            )
            if not sum(weight for _, weight in backends):
                warnings.append(f"HTTPRoute {namespace}/{name}: a rule without a Service as backend is left out")
                continue
            for match in rule.get("matches") or [{}]:
                path = match.get("path", {"type": "PathPrefix", "value": "/"})
                if set(match) - {"path"} or path.get("type") == "RegularExpression":
                    warnings.append(f"HTTPRoute {namespace}/{name}: only PathPrefix and Exact matches are known, {match} is left out")
                    continue
                for host in spec.get("hostnames") or ["*"]:
                    yield Match(host, path.get("value") or "/", path.get("type") == "Exact", backends)


def ready_addresses(backend: Backend, services: Iterable[Json], endpoints: Iterable[Json]) -> tuple[Address, ...]:
    """The backend's ready endpoints. A terminating or unready pod is not among them: the API server keeps them apart."""

    def named(items: Iterable[Json]) -> Json:
        wanted = (backend.namespace, backend.service)
        return next((item for item in items if (item["metadata"]["namespace"], item["metadata"]["name"]) == wanted), {})

    ports = named(services).get("spec", {}).get("ports", [])
    port_name = next((port.get("name") for port in ports if backend.port in (str(port["port"]), port.get("name"))), "no such port")
    found = {
        Address(address["ip"], port["port"], _pod(address))
        for subset in named(endpoints).get("subsets") or []
        for port in subset.get("ports") or []
        if port.get("name") == port_name
        for address in subset.get("addresses") or []
    }
    return tuple(sorted(found, key=lambda address: (address.ip, address.port)))


def _pod(address: Json) -> str:
    target = address.get("targetRef") or {}
    return f"{target.get('namespace')}/{target['name']}" if target.get("kind") == "Pod" else ""


def _pickers(backends: Iterable[Backend], services: Iterable[Json]) -> dict[Backend, Backend]:
    """The endpoint pickers of these backends."""
    known = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in services}
    found = {backend: Backend(backend.namespace, picker.picker_of(backend.service), picker.PORT) for backend in backends}
    return {backend: its for backend, its in found.items() if (its.namespace, its.service) in known}


def _virtual_host(host: str, rows: Sequence[Match], pickers: Mapping[Backend, Backend], body_mode: str) -> Json:
    # An upstream is tried again only when nothing of the request can have reached it.
    retries = {
        "retry_on": "connect-failure,refused-stream",
        "num_retries": 3,
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": _type("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")},
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
    upstream = {"header": {"key": UPSTREAM_HEADER, "value": "%UPSTREAM_REMOTE_ADDRESS%"}}
    return {
        "name": host,
        "domains": [host],
        "routes": [{"match": _path_match(row), "route": _action(row), **_per_route(row, pickers, body_mode)} for row in rows],
        "retry_policy": retries,
        "response_headers_to_add": [upstream],
    }


def _per_route(row: Match, pickers: Mapping[Backend, Backend], body_mode: str) -> Json:
    """The route's picker; a route with several backends has none, because a picker knows the replicas of one resource."""
    if len(row.backends) != 1 or (its := pickers.get(row.backends[0][0])) is None:
        return {}
    return {"typed_per_filter_config": picker.per_route(its.cluster, body_mode)}


def _path_match(row: Match) -> Json:
    if row.exact:
        return {"path": row.path}
    bare = row.path.rstrip("/")
    return {"path_separated_prefix": bare} if bare else {"prefix": "/"}


def _action(row: Match) -> Json:
    # An answer may take as long as it takes, and may stand still while it waits for its turn.
    endless = {"timeout": "0s", "idle_timeout": "0s"}
    if len(row.backends) == 1:
        return {"cluster": row.backends[0][0].cluster, **endless}
    weights = [{"name": backend.cluster, "weight": weight} for backend, weight in row.backends]
    return {"weighted_clusters": {"clusters": weights}, **endless}


def _cluster(backend: Backend, own_balancing: str) -> Json:
    return {
        "name": backend.cluster,
        "type": "EDS",
        "lb_policy": own_balancing,
        "connect_timeout": f"{CONNECT_SECONDS}s",
        "eds_cluster_config": {"eds_config": {"path_config_source": {"path": f"eds/{backend.cluster}.json"}, "resource_api_version": "V3"}},
        "circuit_breakers": {
            "thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests", "max_retries"), NO_LIMIT)]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _type("extensions.upstreams.http.v3.HttpProtocolOptions"),
                "explicit_http_config": {"http_protocol_options": {}},
                "common_http_protocol_options": {"idle_timeout": f"{UPSTREAM_IDLE_SECONDS}s"},
            }
        },
    }


def _assignment(backend: Backend, addresses: Sequence[Address]) -> Json:
    endpoints = [{"endpoint": {"address": {"socket_address": {"address": item.ip, "port_value": item.port}}}} for item in addresses]
    return {"cluster_name": backend.cluster, "endpoints": [{"lb_endpoints": endpoints}] if endpoints else []}


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.{name}"

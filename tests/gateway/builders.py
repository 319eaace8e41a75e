"""Objects of the API server with what does not matter filled in.

The tests of `tests/gateway` and `tests/picker/envoy_before.py` build them.
"""

from collections.abc import Sequence

from tests.cluster.gateway.resources import INGRESS_CLASS, Json, Objects

SERVICE_PORT = 80


def make_service(name: str = "tiny", port: int = SERVICE_PORT, port_name: str | None = "http") -> Json:
    """A Service with one port."""
    named = {"name": port_name} if port_name else {}
    return {"metadata": {"namespace": "default", "name": name}, "spec": {"ports": [{"port": port, **named}]}}


def make_endpoints(
    addresses: Sequence[tuple[str, int]], not_ready: Sequence[str] = (), name: str = "tiny", port_name: str | None = "http"
) -> Json:
    """Endpoints with a subset per port, as the API server groups them."""
    named = {"name": port_name} if port_name else {}
    subsets = []
    for port in sorted({port for _, port in addresses} | ({8000} if not_ready else set())):
        ready = [{"ip": ip} for ip, its_port in addresses if its_port == port]
        subset: Json = {"ports": [{"port": port, **named}]}
        if ready:
            subset["addresses"] = ready
        if not_ready:
            subset["notReadyAddresses"] = [{"ip": ip} for ip in not_ready]
        subsets.append(subset)
    return {"metadata": {"namespace": "default", "name": name}, "subsets": subsets}


def make_ingress(
    name: str = "tiny",
    host: str = "tiny.test",
    paths: Sequence[tuple[str, str]] = (("/", "Prefix"),),
    class_name: str = INGRESS_CLASS,
    service: str = "tiny",
    created: str = "2026-01-01T00:00:00Z",
) -> Json:
    """An Ingress with one host; `paths` are (path, pathType)."""
    backend = {"service": {"name": service, "port": {"number": SERVICE_PORT}}}
    rows = [{"path": path, "pathType": kind, "backend": backend} for path, kind in paths]
    return {
        "metadata": {"namespace": "default", "name": name, "creationTimestamp": created},
        "spec": {"ingressClassName": class_name, "rules": [{"host": host, "http": {"paths": rows}}]},
    }


def make_gateway(name: str = "test", class_name: str = INGRESS_CLASS) -> Json:
    """A Gateway."""
    return {"metadata": {"namespace": "default", "name": name}, "spec": {"gatewayClassName": class_name}}


def make_route(rules: Sequence[Json], name: str = "tiny", hosts: Sequence[str] = ("tiny.test",), gateway: str = "test") -> Json:
    """An HTTPRoute."""
    metadata = {"namespace": "default", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
    return {"metadata": metadata, "spec": {"parentRefs": [{"name": gateway}], "hostnames": list(hosts), "rules": list(rules)}}


def make_objects(ingresses: Sequence[Json] = (), endpoints: Sequence[Json] = (), routes: Sequence[Json] = ()) -> Objects:
    """A cluster with the Service `tiny` and our Gateway."""
    return Objects(ingresses, [make_gateway()], routes, [make_service()], endpoints)

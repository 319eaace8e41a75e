"""The gateway follows a real API server: Ingress, HTTPRoute and endpoints that come, change and go."""

import http.server
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.control_plane import ControlPlane
from tests.cluster.errors import ClusterError
from tests.cluster.gateway import gateway_api
from tests.cluster.gateway.controller import Gateway
from tests.cluster.machine import node_address
from tests.gateway.builders import SERVICE_PORT, make_endpoints, make_gateway, make_ingress, make_route, make_service

pytestmark = pytest.mark.controlplane

DEADLINE_SECONDS = 20.0


class Hello(http.server.BaseHTTPRequestHandler):
    """Answers with the server's name."""

    def do_GET(self) -> None:
        body = str(self.connection.getsockname()[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        gateway_api.ensure(running.access, belongs_to_user=running.belongs_to_user)
        yield running


@pytest.fixture(scope="module")
def gateway(control_plane: ControlPlane) -> Iterator[Gateway]:
    with Gateway(control_plane.kubeconfig) as running:
        yield running


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """Two servers on the machine's own address: the API server takes no loopback address for an endpoint."""
    servers = [http.server.ThreadingHTTPServer((node_address(), 0), Hello) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [server.server_address[1] for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


def apply(control_plane: ControlPlane, item: dict[str, object], version: str, kind: str) -> None:
    """Apply an object of a builder."""
    metadata = {key: value for key, value in item["metadata"].items() if key in ("name", "namespace")}  # type: ignore[attr-defined]
    control_plane.access.apply({**item, "apiVersion": version, "kind": kind, "metadata": metadata})


def backend(control_plane: ControlPlane, name: str, port: int) -> None:
    """A Service whose one endpoint is this port of the machine."""
    service = make_service(name)
    service["spec"]["ports"][0]["protocol"] = "TCP"
    apply(control_plane, service, "v1", "Service")
    endpoints = make_endpoints([(node_address(), port)], name=name)
    endpoints["subsets"][0]["ports"][0]["protocol"] = "TCP"
    apply(control_plane, endpoints, "v1", "Endpoints")


def answer(gateway: Gateway, host: str) -> str:
    """Body of a request for the host, or the status when it is an error."""
    request = urllib.request.Request(gateway.url, headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.code)


def wait_answer(gateway: Gateway, host: str, expected: str) -> str:
    """The answer once it is the expected one, or the last one at the deadline."""
    ends = time.monotonic() + DEADLINE_SECONDS
    while (found := answer(gateway, host)) != expected and time.monotonic() < ends:
        time.sleep(0.05)
    return found


def test_an_ingress_is_routed_when_it_comes_and_not_when_it_is_gone(
    control_plane: ControlPlane, gateway: Gateway, ports: list[int]
) -> None:
    assert answer(gateway, "comes.test") == "404"
    backend(control_plane, "comes", ports[0])
    apply(control_plane, make_ingress("comes", "comes.test", service="comes"), "networking.k8s.io/v1", "Ingress")
    assert wait_answer(gateway, "comes.test", str(ports[0])) == str(ports[0])
    control_plane.access.kubectl("delete", "ingress", "comes")
    assert wait_answer(gateway, "comes.test", "404") == "404"


def test_requests_follow_the_endpoints(control_plane: ControlPlane, gateway: Gateway, ports: list[int]) -> None:
    backend(control_plane, "moves", ports[0])
    apply(control_plane, make_ingress("moves", "moves.test", service="moves"), "networking.k8s.io/v1", "Ingress")
    assert wait_answer(gateway, "moves.test", str(ports[0])) == str(ports[0])
    backend(control_plane, "moves", ports[1])
    assert wait_answer(gateway, "moves.test", str(ports[1])) == str(ports[1])


def test_a_route_of_the_gateway_api_is_routed(control_plane: ControlPlane, gateway: Gateway, ports: list[int]) -> None:
    gateway_api.require(control_plane.access)
    backend(control_plane, "routed", ports[0])
    apply(control_plane, make_gateway(), "gateway.networking.k8s.io/v1", "Gateway")
    route = make_route([{"backendRefs": [{"name": "routed", "port": SERVICE_PORT}]}], "routed", ["routed.test"])
    apply(control_plane, route, "gateway.networking.k8s.io/v1", "HTTPRoute")
    assert wait_answer(gateway, "routed.test", str(ports[0])) == str(ports[0])


def test_an_ingress_says_where_it_is_served(control_plane: ControlPlane, gateway: Gateway, ports: list[int]) -> None:
    backend(control_plane, "says", ports[0])
    apply(control_plane, make_ingress("says", "says.test", service="says"), "networking.k8s.io/v1", "Ingress")
    ends = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < ends:
        found = json.loads(control_plane.access.kubectl("get", "ingress", "says", "-o", "json"))["status"]["loadBalancer"]
        if found:
            break
    assert found["ingress"][0]["ip"] == "127.0.0.1"


def test_a_cluster_that_does_not_answer_is_told(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text("apiVersion: v1\nkind: Config\n", encoding="utf-8")
    with pytest.raises(ClusterError, match=f"cannot follow the cluster of {kubeconfig}"), Gateway(kubeconfig):
        pass

"""A pod on the whole node runs as in production: probes, Service, exec, logs, preStop; and it acts with its ServiceAccount's rights."""

import contextlib
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import images
from tests.cluster.access import Access
from tests.cluster.cluster import NodeCluster
from tests.cluster.errors import CommandFailed
from tests.cluster.state import named

pytestmark = pytest.mark.node

IMAGE = "docker.io/alise/cluster-tool-web:test"
LABELS = {"app": "web"}


def pod(name: str, shared: Path, pre_stop_seconds: int = 0) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": "web",
        "image": IMAGE.removeprefix("docker.io/"),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["/web", "say", "alive"]}, "periodSeconds": 5},
        "lifecycle": {"preStop": {"exec": {"command": ["/web", "mark", "/shared/pre-stop", str(pre_stop_seconds)]}}},
        "resources": {"limits": {"memory": "32Mi", "cpu": "100m"}},
        "volumeMounts": [{"name": "shared", "mountPath": "/shared"}, {"name": "memory", "mountPath": "/memory"}],
    }
    volumes = [{"name": "shared", "hostPath": {"path": str(shared)}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]
    spec = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": 20}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": LABELS}, "spec": spec}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeCluster]:
    folder = tmp_path_factory.mktemp("web")
    program = images.compile_static((Path(__file__).parent / "web.c").read_text(encoding="utf-8"), folder / "web")
    with NodeCluster([images.write_archive(folder / "web.tar", IMAGE, images.Program("/web", program))]) as running:
        yield running


@pytest.fixture
def web(cluster: NodeCluster, tmp_path: Path) -> Iterator[Access]:
    """Two Ready pods, `web-0` and `web-1`, behind a Service `web`."""
    access = cluster.access
    port = {"port": 80, "targetPort": 8080, "protocol": "TCP"}
    access.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": LABELS, "ports": [port]}})
    for name in ("web-0", "web-1"):
        access.apply(pod(name, tmp_path))
    access.kubectl("wait", "--for=condition=Ready", "pod/web-0", "pod/web-1", "--timeout=60s", timeout_seconds=70)
    yield access
    access.kubectl("delete", "pod,service", "--selector=app=web", "--grace-period=1", "--wait=true")
    access.kubectl("delete", "service/web")


def fetch(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/", timeout=5) as answer:
        body: bytes = answer.read()
        return body.decode()


def test_the_host_reaches_both_pods_through_the_service(web: Access) -> None:
    address = web.get("/api/v1/namespaces/default/services/web")["spec"]["clusterIP"]
    assert names_answering(lambda: fetch(address)) == {"web-0", "web-1"}


def test_a_pod_reaches_both_pods_through_the_service_itself_included(web: Access) -> None:
    address = web.get("/api/v1/namespaces/default/services/web")["spec"]["clusterIP"]
    answered = names_answering(lambda: web.kubectl("exec", "web-0", "--", "/web", "get", address, "80").strip())
    assert answered == {"web-0", "web-1"}


def test_a_pod_reaches_the_api_server_by_its_environment(web: Access) -> None:
    answered = web.kubectl("exec", "web-0", "--", "/web", "get", "$KUBERNETES_SERVICE_HOST", "443")
    assert "HTTP request to an HTTPS server" in answered


def names_answering(ask: Callable[[], str]) -> set[str]:
    """Who answered, once both did or 20 s have passed: kube-proxy picks a pod at random, and learns of new ones a little late."""
    answered = set[str]()
    deadline = time.monotonic() + 20
    while len(answered) < 2 and time.monotonic() < deadline:
        with contextlib.suppress(OSError, CommandFailed):
            answered.add(ask())
    return answered


def test_a_program_is_run_in_the_container(web: Access) -> None:
    assert web.kubectl("exec", "web-0", "--", "/web", "say", "hello").strip() == "hello"


def test_the_logs_hold_what_the_container_printed(web: Access) -> None:
    assert web.kubectl("logs", "web-0").strip() == "serving on 8080"


def test_a_deleted_pod_runs_its_pre_stop_before_it_ends(web: Access, tmp_path: Path) -> None:
    web.apply(pod("leaving", tmp_path, pre_stop_seconds=3))
    web.kubectl("wait", "--for=condition=Ready", "pod/leaving", "--timeout=60s", timeout_seconds=70)
    web.kubectl("delete", "pod/leaving", "--wait=true")
    assert time.time() - int((tmp_path / "pre-stop").read_text()) >= 3


def test_a_second_import_of_the_same_archive_does_nothing(cluster: NodeCluster, tmp_path: Path) -> None:
    at = named()
    archive = images.write_archive(tmp_path / "again.tar", "docker.io/alise/cluster-tool-again:test", images.Program("/again", b"content"))
    images.import_images(at, [archive])
    assert images.import_images(at, [archive]) == []


def test_a_deployment_is_scaled_to_two_ready_pods(cluster: NodeCluster, tmp_path: Path) -> None:
    template = {"metadata": {"labels": {"app": "many"}}, "spec": pod("many", tmp_path)["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "many"}}, "template": template}
    cluster.access.apply(
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many", "namespace": "default"}, "spec": spec}
    )
    cluster.access.kubectl("scale", "deployment/many", "--replicas=2")
    cluster.access.kubectl("rollout", "status", "deployment/many", "--timeout=60s", timeout_seconds=70)
    found = json.loads(cluster.access.kubectl("get", "deployment/many", "-o", "json"))["status"]["readyReplicas"]
    cluster.access.kubectl("delete", "deployment/many")
    assert found == 2

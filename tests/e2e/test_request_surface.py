"""The whole request surface inside the CPU image: our pod beside a pod of stock vLLM of the same image, request by request.

What passes on a developer's machine can fail in the image, which has no compiler.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from alise_contract.names import ENGINE_CONTAINER, ENGINE_PORT, RUN_AS
from tests.cluster.image_manifests import with_registry
from tests.e2e.conftest import READY_SECONDS, manifest
from tests.e2e.support import NAMESPACE, Resource, wait_until
from tests.surface.compare import WANTED
from tests.surface.fuzz import fuzz
from tests.surface.row import MAX_MODEL_LEN
from tests.surface.run import OURS, STOCK, Result, Server, play
from tests.surface.servers import ENVIRON, FLAGS, MAX_NUM_SEQS, SIZES, STOCK_ENVIRON, STOCK_FLAGS
from tests.tools import run_cluster
from tests.tools.run_forward import forwarded

pytestmark = pytest.mark.e2e

NAME = "surface"
STOCK_POD = "surface-stock"
# A container that is started again waits first, longer each time.
REVIVE_SECONDS = 240.0
# One OpenMP thread in both: with two engines on two cores more of them wait for each other.
ENGINE_ENVIRON = {**ENVIRON, "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def one_idle_replica() -> None:
    """The resource of the other tests is not needed here."""


@pytest.fixture(scope="module")
def ours(target: run_cluster.Target) -> Iterator[Resource]:
    """A resource of our own: the one of the other tests has other sizes."""
    resource = Resource(target.access, NAME)
    wanted = manifest(NAME)
    wanted["spec"]["engine"] |= {
        "maxModelLen": MAX_MODEL_LEN,
        "maxNumSeqs": MAX_NUM_SEQS,
        "args": ["--enforce-eager", *FLAGS],
        "env": _env(ENGINE_ENVIRON),
    }
    _remove(resource)
    target.access.kubectl("apply", "-n", NAMESPACE, "-f", "-", text_in=with_registry(json.dumps(wanted), target.registry))
    yield resource
    _remove(resource)


@pytest.fixture(scope="module")
def servers(target: run_cluster.Target, ours: Resource) -> Iterator[tuple[Server, Server]]:
    """Stock and ours, both serving; each is started again by its kubelet when its engine dies."""
    image = wait_until("a pod of ours", lambda: _engine_image(ours), 60)
    target.access.kubectl("apply", "-n", NAMESPACE, "-f", "-", text_in=json.dumps(stock_pod(image)))
    ours.wait_condition("Ready", "True", READY_SECONDS)
    ours.kubectl("wait", "--for=condition=Ready", f"pod/{STOCK_POD}", f"--timeout={READY_SECONDS:.0f}s", timeout_seconds=READY_SECONDS + 10)
    with ExitStack() as stack:
        urls = [_reachable(stack, target, pod) for pod in (STOCK_POD, ours.only_pod())]
        yield _server(STOCK, urls[0]), _server(OURS, urls[1])


def stock_pod(image: str) -> dict[str, Any]:
    """`vllm serve` without alise, in the same image, under the same restrictions."""
    command = ["python3", "-m", "vllm.entrypoints.cli.main", "serve", "/models/tiny", "--port", str(ENGINE_PORT)]
    # TORCH_COMPILE_DISABLE: stock compiles what logprobs need when they are first asked for (D1), and the image has no compiler. It is
    # stock's only help; ours has to do without.
    environ = {**ENGINE_ENVIRON, **STOCK_ENVIRON, "TORCH_COMPILE_DISABLE": "1"}
    container = {
        "name": "vllm",
        "image": image,
        "command": [*command, *SIZES, *FLAGS, *STOCK_FLAGS],
        "env": _env(environ),
        "readinessProbe": {"httpGet": {"path": "/health", "port": ENGINE_PORT}, "periodSeconds": 2, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "300m", "memory": "2560Mi"}, "limits": {"memory": "4Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}, {"name": "shm", "mountPath": "/dev/shm"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": STOCK_POD, "namespace": NAMESPACE},
        "spec": {
            "containers": [container],
            "terminationGracePeriodSeconds": 5,
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": RUN_AS, "runAsGroup": RUN_AS, "fsGroup": RUN_AS},
            "volumes": [{"name": "scratch", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}}],
        },
    }


@pytest.fixture(scope="module")
def played(servers: tuple[Server, Server]) -> Result:
    return play(*servers)


def test_every_request_is_answered_as_stock_answers_it(played: Result) -> None:
    assert played.figures() | {"requests_compared": 0} == {
        "requests_compared": 0,
        "requests_unlike_stock": 0,
        "requests_stock_dies_of": 1,
        "engine_deaths": 0,
    }, played.report()
    assert not played.ended_early, played.report()


def test_what_was_compared_with_stock_was_ours(played: Result) -> None:
    """A server without our middleware would be like stock in everything."""
    assert {wanted.reason for wanted in WANTED} == set(played.wanted), played.report()


def test_no_generated_request_gets_a_5xx_that_stock_does_not_give(servers: tuple[Server, Server], played: Result) -> None:
    fuzzed = fuzz(*servers)
    assert (fuzzed.worse, fuzzed.engine_deaths) == ((), ()), fuzzed.report()


def test_the_engine_was_never_started_again(ours: Resource, played: Result) -> None:
    assert ours.engine_restarts(ours.only_pod()) == 0, played.report()


# --- helpers --------------------------------------------------------------------------------------------------------------------------


def _env(environ: dict[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in environ.items()]


def _engine_image(resource: Resource) -> str:
    """The image of the engine's container, or '' while there is no pod."""
    containers = [container for pod in resource.pods() for container in pod["spec"]["containers"]]
    return next((str(container["image"]) for container in containers if container["name"] == ENGINE_CONTAINER), "")


def _reachable(stack: ExitStack, target: run_cluster.Target, pod: str) -> str:
    """The pod's URL: our node's pods are reached from here, those of another cluster through kubectl."""
    if target.own:
        return stack.enter_context(forwarded(target.access, pod, NAMESPACE))
    address = target.access.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}")["status"]["podIP"]
    return f"http://{address}:{ENGINE_PORT}"


def _server(name: str, url: str) -> Server:
    def healthy() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def revive() -> None:
        wait_until(f"{name} at {url} healthy again", healthy, REVIVE_SECONDS)

    return Server(name, url, revive)


def _remove(resource: Resource) -> None:
    gone = ("--ignore-not-found", "--wait=true")
    resource.kubectl("delete", "alise", resource.name, *gone, timeout_seconds=200)
    resource.kubectl("delete", "pod", STOCK_POD, *gone, timeout_seconds=60)

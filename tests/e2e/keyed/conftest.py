"""One resource with API keys for this folder: who gets in, that requests are answered as by stock vLLM, and what is left of it."""

import json
from collections.abc import Iterator

import pytest

from alise_contract.names import ENGINE_CONTAINER
from tests.cluster.image_manifests import with_registry
from tests.cluster.resource import NAMESPACE, Resource, wait_until
from tests.e2e.conftest import READY_SECONDS, manifest
from tests.e2e.keyed.stock import ENGINE_ENVIRON, STOCK_POD, env, stock_pod
from tests.surface.row import MAX_MODEL_LEN
from tests.surface.servers import FLAGS, MAX_NUM_SEQS
from tests.tools import run_cluster

NAME = "keyed"
SECRET = "keyed-keys"
KEY_A, KEY_B = "key-of-team-a", "key-of-team-b"


@pytest.fixture(autouse=True)
def one_idle_replica() -> None:
    """The resource of the other tests is not needed here."""


@pytest.fixture(scope="package")
def keyed(target: run_cluster.Target) -> Iterator[Resource]:
    """A resource with two tenants in two classes, with the sizes of the request surface, Ready.

    The pod of stock vLLM starts beside it, so that it is there when it is needed.
    """
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET, "namespace": NAMESPACE}}
    resource = Resource(target.access, NAME)
    remove(resource)
    target.access.apply(secret | {"stringData": {"team-a": KEY_A, "team-b": KEY_B}})
    tenants = [{"name": "team-a", "class": "interactive"}, {"name": "team-b", "class": "batch"}]
    wanted = manifest(
        NAME,
        auth={"secretRef": {"name": SECRET}, "tenants": tenants, "guardMetrics": True},
        scheduling={"classes": [{"name": "interactive", "weight": "4"}, {"name": "batch", "weight": "250m"}]},
    )
    wanted["spec"]["engine"] |= {
        "maxModelLen": MAX_MODEL_LEN,
        "maxNumSeqs": MAX_NUM_SEQS,
        "args": ["--enforce-eager", *FLAGS],
        "env": env(ENGINE_ENVIRON),
    }
    try:
        text = with_registry(json.dumps(wanted), target.registry)
        target.access.kubectl("apply", "-n", NAMESPACE, "-f", "-", text_in=text)
        image = wait_until("a pod of the resource", lambda: engine_image(resource), 60)
        target.access.kubectl("apply", "-n", NAMESPACE, "-f", "-", text_in=json.dumps(stock_pod(image)))
        resource.wait_condition("Ready", "True", READY_SECONDS)
        yield resource
    finally:
        remove(resource)


def remove(resource: Resource) -> None:
    resource.kubectl("delete", "alise", NAME, "--ignore-not-found", "--wait=true", timeout_seconds=200)
    resource.kubectl("delete", "secret", SECRET, "--ignore-not-found")
    resource.kubectl("delete", "pod", STOCK_POD, "--ignore-not-found", "--wait=true", timeout_seconds=60)


def engine_image(resource: Resource) -> str:
    """The image of the engine's container, or '' while there is no pod."""
    containers = [container for pod in resource.pods() for container in pod["spec"]["containers"]]
    return next((str(container["image"]) for container in containers if container["name"] == ENGINE_CONTAINER), "")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}

"""One node, one operator, one ingress for all end-to-end tests. Nothing is skipped: where the node cannot start, the tests fail."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from openai import OpenAI

from tests.cluster import cluster
from tests.cluster.access import Access
from tests.cluster.gateway import gateway_api
from tests.cluster.gateway.controller import Gateway
from tests.cluster.image_manifests import with_registry
from tests.cluster.resource import NAMESPACE, Resource, openai_client, wait_until
from tests.cluster.state import DEFAULT_NAME, named
from tests.tools import run_cluster

HOST = "tiny.alise.test"
READY_SECONDS = 300.0


@pytest.fixture(scope="session")
def target() -> Iterator[run_cluster.Target]:
    """A cluster with the images and the operator in it: the user's own (KUBECONFIG), or ours."""
    at = run_cluster.bring_up(DEFAULT_NAME)
    try:
        gateway_api.ensure(at.access, belongs_to_user=at.belongs_to_user)
        gateway_api.ensure_classes(at.access)
        run_cluster.install(at)
        yield at
    finally:
        if at.started_here:
            cluster.down(named(DEFAULT_NAME))


@pytest.fixture(scope="session")
def access(target: run_cluster.Target) -> Access:
    return target.access


def manifest(name: str, **changes: Any) -> dict[str, Any]:
    """The CPU sample with exact answers (float32, raw codec), which can be compared token for token, and two slots, easy to fill."""
    resource: dict[str, Any] = yaml.safe_load(run_cluster.SAMPLE.read_text(encoding="utf-8"))
    resource["metadata"] |= {"name": name, "namespace": NAMESPACE}
    spec = resource["spec"]
    spec["engine"] |= {"maxNumSeqs": 2, "maxModelLen": 16384}
    spec["engine"]["args"] = [*spec["engine"]["args"], "--dtype", "float32"]
    spec["kvOffload"]["quantization"] = "none"
    spec["route"]["hosts"] = [f"{name}.alise.test"]
    spec |= changes
    return resource


@pytest.fixture(scope="session")
def tiny(target: run_cluster.Target) -> Iterator[Resource]:
    """The resource, Ready with one replica."""
    resource = Resource(target.access, "tiny")
    resource.kubectl("delete", "alise", "tiny", "--ignore-not-found", "--wait=true", timeout_seconds=200)
    text = with_registry(json.dumps(manifest("tiny")), target.registry)
    target.access.kubectl("apply", "-n", NAMESPACE, "-f", "-", text_in=text)
    resource.wait_condition("Ready", "True", READY_SECONDS)
    yield resource
    resource.kubectl("delete", "alise", "tiny", "--ignore-not-found", "--wait=true", timeout_seconds=200)


@pytest.fixture(scope="session")
def client(target: run_cluster.Target, tiny: Resource) -> Iterator[OpenAI]:
    """The openai client, through Envoy."""
    # While pods start, a picker may take longer than a gateway usually waits for it.
    with Gateway(target.access.kubeconfig, picker_seconds=2.0) as gateway:
        client = openai_client(gateway.url, HOST)

        def answers() -> bool:
            try:
                return bool(client.with_options(timeout=10).models.list().data)
            except Exception:
                return False

        wait_until("the ingress answering", answers, 60)
        yield client


@pytest.fixture(autouse=True)
def one_idle_replica(tiny: Resource) -> None:
    """Every test starts with one ready pod that has nothing to do, whatever the test before it left."""
    if tiny.read()["spec"]["replicas"] != 1:
        tiny.kubectl("scale", "alise/tiny", "--replicas=1")
    # The pods alone may still be those from before the last test's final edit.
    tiny.wait_condition("Progressing", "False", 240, reason="Complete")
    wait_until("one ready pod", lambda: len(tiny.pods()) == 1 and len(tiny.ready_pods()) == 1, 240)
    pod = tiny.only_pod()
    wait_until("an idle engine", lambda: tiny.requests_in_engine(pod) == 0, 120)

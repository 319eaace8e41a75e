"""LoRA adapters on the whole node: a changed list reaches a running pod through the kubelet, and the pod goes on."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alise_contract.names import ENGINE_PORT
from tests.cluster.image_manifests import with_registry
from tests.cluster.resource import NAMESPACE, Resource, wait_until
from tests.e2e.conftest import READY_SECONDS, manifest
from tests.engine.tiny_adapter import write_adapter
from tests.tools import run_cluster

pytestmark = pytest.mark.e2e

NAME = "adapted"
FILES = "adapted-files"
FOLDER = "/adapters/support"
# The kubelet's period, the engine's and the operator's, and a busy machine.
CHANGE_SECONDS = 120.0
ASK = """
import json, urllib.error, urllib.request
body = {"model": %r, "prompt": "Tell me about ships", "max_tokens": 16, "temperature": 0}
request = urllib.request.Request("http://127.0.0.1:%d/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
try:
    print(json.dumps([200, json.load(urllib.request.urlopen(request, timeout=30))["choices"][0]["text"]]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, json.load(error)["error"]["message"]]))
"""


@pytest.fixture(autouse=True)
def one_idle_replica() -> None:
    """The resource of the other tests is not needed here."""


@pytest.fixture
def adapted(target: run_cluster.Target, tmp_path: Path) -> Iterator[Resource]:
    """A resource with LoRA on and no adapter, whose pod has the files of one in a volume. Ready."""
    resource = Resource(target.access, NAME)
    remove(resource)
    folder = write_adapter(tmp_path / "support", seed=1)
    data = {path.name: base64.b64encode(path.read_bytes()).decode() for path in folder.iterdir()}
    target.access.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": FILES, "namespace": NAMESPACE}, "binaryData": data})
    wanted = manifest(NAME, route={"type": "None"})
    wanted["spec"]["model"] |= {"lora": {"maxRank": 8, "maxActive": 2}}
    wanted["spec"]["podTemplate"] = {
        "spec": {
            "volumes": [{"name": "files", "configMap": {"name": FILES}}],
            "containers": [{"name": "engine", "volumeMounts": [{"name": "files", "mountPath": FOLDER}]}],
        }
    }
    try:
        target.access.kubectl("apply", "-n", NAMESPACE, "-f", "-", text_in=with_registry(json.dumps(wanted), target.registry))
        resource.wait_condition("Ready", "True", READY_SECONDS)
        yield resource
    finally:
        remove(resource)


def remove(resource: Resource) -> None:
    resource.kubectl("delete", "alise", NAME, "--ignore-not-found", "--wait=true", timeout_seconds=200)
    resource.kubectl("delete", "configmap", FILES, "--ignore-not-found")


def ask(resource: Resource, pod: str, model: str) -> tuple[int, str]:
    """The HTTP status, and the text or the error."""
    status, text = json.loads(resource.run_in_scheduler(pod, ASK % (model, ENGINE_PORT)))
    return int(status), str(text)


def adapters(resource: Resource) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = resource.read()["status"].get("adapters", [])
    return found


def test_an_adapter_is_added_to_a_running_pod_and_removed_from_it(adapted: Resource) -> None:
    pod = adapted.only_pod()
    uid, (status, plain) = adapted.pods()[0]["metadata"]["uid"], ask(adapted, pod, "tiny")
    assert (status, ask(adapted, pod, "support")[0]) == (200, 404)
    adapted.patch({"model": {"adapters": [{"name": "support", "uri": FOLDER}]}})
    wait_until("the adapter is loaded", lambda: [one["loadedPods"] for one in adapters(adapted)] == [1], CHANGE_SECONDS)
    status, text = ask(adapted, pod, "support")
    assert status == 200
    assert text != plain
    adapted.patch({"model": {"adapters": None}})
    wait_until("the adapter is unloaded", lambda: ask(adapted, pod, "support")[0] == 404, CHANGE_SECONDS, 3.0)
    assert ask(adapted, pod, "tiny") == (200, plain)
    assert ([one["metadata"]["uid"] for one in adapted.pods()], adapted.engine_restarts(pod)) == ([uid], 0)

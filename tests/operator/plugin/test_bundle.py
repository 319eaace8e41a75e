"""What a support bundle holds, and that there is one even where much cannot be read."""

import io
import json
import tarfile

import pytest

from kubectl_alise.bundle import files, packed
from kubectl_alise.errors import NotAllowedError, NotFoundError
from tests.operator.plugin.fake_cluster import FakeCluster
from tests.operator.plugin.objects import engine, pod

SECRET, PROMPT = "hunter2hunter2", "the recipe of my grandmother"


def cluster() -> FakeCluster:
    one = pod()
    one["spec"]["containers"] = [{"name": "engine", "env": [{"name": "API_KEY", "value": SECRET}], "args": ["--api-key", SECRET]}]
    resource = engine("chat", engine={"env": [{"name": "HF_TOKEN", "value": SECRET}], "args": [f"--api-key={SECRET}"]})
    return FakeCluster(
        objects={"aliseengines.alise.dev chat": resource, "pods": {"items": [one]}, "deployments": {"items": []}, "events": {"items": []}},
        texts={
            "logs chat-1 --container=engine": f"INFO 11-29 Received request 1: prompt: '{PROMPT}'\nINFO 11-29 served\n",
            "logs chat-1 --container=scheduler": '{"time": "t", "message": "request ended"}\n',
            "logs --namespace=alise-system": NotAllowedError("you may not do this: logs of alise-system"),
            "get events": "an event\n",
            "version": "v1.36\n",
        },
        outputs={("chat-1", "alise-engine"): (0, '{"requests_running": 1}', ""), ("chat-1", "alise-scheduler"): (1, "", "no answer")},
    )


def unpacked(data: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {member.name: archive.extractfile(member) for member in archive.getmembers()}
        return {name: file.read().decode() for name, file in found.items() if file is not None}


@pytest.fixture
def bundle() -> dict[str, str]:
    return unpacked(packed("chat", files(cluster(), "chat")))


def test_it_has_the_resource_its_children_events_pods_and_logs(bundle: dict[str, str]) -> None:
    top = {"resource.json", "pods.json", "operator.log", "versions.txt", "events-of-the-resource.json", "events-of-the-namespace.txt"}
    of_pod = {f"pods/chat-1/{name}" for name in ("status.json", "engine.log", "scheduler.log", "engine.previous.log")}
    expected = {*top, *of_pod, "children/deployments.json"}
    assert {f"alise-chat/{name}" for name in expected} <= bundle.keys()
    assert "served" in bundle["alise-chat/pods/chat-1/engine.log"]
    assert json.loads(bundle["alise-chat/pods/chat-1/status.json"]) == {"requests_running": 1}


def test_it_has_no_secret_and_no_prompt(bundle: dict[str, str]) -> None:
    text = "\n".join(bundle.values())
    assert SECRET not in text
    assert PROMPT not in text


def test_secrets_are_not_even_asked_for() -> None:
    asked = cluster()
    packed("chat", files(asked, "chat"))
    assert not [call for call in asked.calls if call[0] == "get" and ("secret" in call[1] or "configmap" in call[1])]


def test_what_cannot_be_read_says_why(bundle: dict[str, str]) -> None:
    assert bundle["alise-chat/operator.log"] == "could not be read: you may not do this: logs of alise-system\n"
    assert "ended with 1: no answer" in bundle["alise-chat/pods/chat-1/requests.json"]


def test_without_the_resource_there_is_no_bundle() -> None:
    with pytest.raises(NotFoundError):
        packed("chat", files(FakeCluster(), "chat"))

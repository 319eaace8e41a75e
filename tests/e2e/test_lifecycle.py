"""What kubectl tells a stranger, from apply to delete."""

import json

import pytest
from openai import OpenAI

from alise_contract.names import ENGINE_LABEL
from tests.cluster.access import Access
from tests.e2e.conftest import manifest
from tests.e2e.support import Resource, Stream, wait_until

pytestmark = pytest.mark.e2e


def test_kubectl_get_tells_the_state_at_a_glance(tiny: Resource) -> None:
    header, line = tiny.kubectl("get", "alise", "tiny").splitlines()
    assert header.split() == ["NAME", "MODEL", "POLICY", "READY", "REASON", "REPLICAS", "URL", "AGE"]
    cells = line.split()
    assert cells[:4] == ["tiny", "/models/tiny", "boost", "True"]
    assert cells[5:7] == ["1", "http://tiny.alise.test/v1"]


def test_kubectl_describe_tells_the_state_and_the_events(tiny: Resource) -> None:
    said = tiny.describe()
    for word in ("Ready", "Progressing", "Degraded", "Observed Generation", "Reason", "Message", "Events"):
        assert word in said


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        pytest.param({"replicas": -1}, ("replicas", "-1"), id="negative replicas"),
        pytest.param({"scheduling": {"policy": "lottery"}}, ("policy", "lottery", "alise"), id="an unknown policy"),
        pytest.param({"engine": {"kvCacheDtype": "fp8_e5m3"}}, ("kvCacheDtype", "fp8_e5m3", "auto"), id="an unknown KV cache dtype"),
    ],
)
def test_an_invalid_change_is_refused_and_the_pods_stay(
    tiny: Resource, client: OpenAI, spec: dict[str, object], names: tuple[str, ...]
) -> None:
    pods = tiny.ready_pods()
    good = tiny.read()["spec"]
    try:
        try:
            tiny.patch(spec)
        except Exception as refused:  # the API server knows the rule already
            said = str(refused)
        else:
            said = tiny.wait_condition("Ready", "False", 60)["message"]
            assert said in tiny.describe().replace("\n", " ") or names[1] in tiny.describe()
        for name in names:
            assert name in said
        assert tiny.ready_pods() == pods
        Stream(client, "Still there?", 4).start().result()
    finally:
        restored = json.dumps([{"op": "replace", "path": "/spec", "value": good}])
        tiny.kubectl("patch", "alise", "tiny", "--type=json", "-p", restored)
    tiny.wait_condition("Ready", "True", 60)


def test_a_model_that_cannot_be_loaded_is_explained(access: Access, tiny: Resource) -> None:
    access.apply(manifest("broken", model={"uri": "/models/absent"}, route={"type": "None"}))
    resource = Resource(access, "broken")
    try:
        degraded = resource.wait_condition("Degraded", "True", 180)
        assert degraded["reason"] == "PodsCrashing"
        assert "kubectl logs" in degraded["message"]
        assert resource.condition("Ready")["status"] == "False"
    finally:
        resource.kubectl("delete", "alise", "broken", "--wait=true")
    wait_until("the children of the broken one gone", lambda: not children(resource), 180)


def test_deleting_a_serving_resource_leaves_nothing(access: Access, tiny: Resource) -> None:
    access.apply(manifest("gone"))
    gone = Resource(access, "gone")
    gone.wait_condition("Ready", "True", 300)
    gone.kubectl("delete", "alise", "gone", "--wait=true")
    wait_until("every child gone", lambda: not children(gone), 180)


def children(resource: Resource) -> list[str]:
    """What still carries the resource's label, of every kind the operator could have made and what these make."""
    kinds = (
        "deployments,replicasets,services,endpoints,ingresses,poddisruptionbudgets,serviceaccounts,secrets,configmaps,"
        "networkpolicies,persistentvolumeclaims,pods"
    )
    return resource.kubectl("get", kinds, "-l", f"{ENGINE_LABEL}={resource.name}", "-o", "name").split()

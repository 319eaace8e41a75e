"""What kubectl tells a stranger, from apply to delete."""

import json
from typing import Any

import pytest
from openai import OpenAI

from alise_contract.names import ENGINE_LABEL
from tests.cluster.access import Access
from tests.cluster.errors import CommandFailed
from tests.cluster.gateway import gateway_api
from tests.cluster.gateway.resources import INGRESS_CLASS
from tests.cluster.resource import NAMESPACE, Resource, wait_until
from tests.e2e.conftest import manifest
from tests.e2e.support import Stream, answers, children

pytestmark = pytest.mark.e2e


def test_kubectl_get_tells_the_state_at_a_glance(tiny: Resource) -> None:
    # Two polls that a busy pod missed make it Degraded until the next one.
    tiny.wait_condition("Ready", "True", 60)
    tiny.wait_condition("Degraded", "False", 60)
    header, line = tiny.kubectl("get", "alise", "tiny").splitlines()
    assert header.split() == ["NAME", "MODEL", "POLICY", "READY", "REASON", "DEGRADED", "REPLICAS", "URL", "AGE"]
    cells = line.split()
    assert cells[:4] == ["tiny", "/models/tiny", "boost", "True"]
    assert cells[5:8] == ["AsExpected", "1", "http://tiny.alise.test/v1"]


def test_kubectl_describe_tells_the_state_and_the_events(tiny: Resource) -> None:
    said = tiny.describe()
    for word in ("Ready", "Progressing", "Degraded", "Observed Generation", "Reason", "Message", "Events"):
        assert word in said


@pytest.mark.parametrize(
    ("spec", "refused", "reported"),
    [
        pytest.param({"replicas": -1}, ("spec.replicas", "-1", "greater than or equal to 0"), (), id="negative replicas"),
        pytest.param({"scheduling": {"policy": "lottery"}}, ("spec.scheduling.policy", "lottery", "boost"), (), id="an unknown policy"),
        pytest.param(
            {"engine": {"kvCacheDtype": "fp8_e5m3"}},
            # A rule over two fields can name neither the field nor its value.
            ("spec.engine", "kvCacheDtype must be one of auto"),
            ("spec.engine.kvCacheDtype", "fp8_e5m3", "auto"),
            id="an unknown dtype",
        ),
        pytest.param(
            {"engine": {"args": ["--enforce-eager", "--max-num-batched-tokens 4096"]}},
            (),
            ("spec.engine.args[1]", "is one word to vLLM", "--max-num-batched-tokens=4096"),
            id="two words in one argument (A15)",
        ),
    ],
)
def test_an_invalid_change_is_refused_and_the_pods_stay(
    tiny: Resource, client: OpenAI, spec: dict[str, object], refused: tuple[str, ...], reported: tuple[str, ...]
) -> None:
    """By the API server where the CRD's schema or a rule (from 1.25 on) says so; else the operator reports it."""
    pods = tiny.ready_pods()
    good = tiny.read()["spec"]
    try:
        try:
            tiny.patch(spec)
        except CommandFailed as error:
            said, names = str(error).split("\n", 1)[1], refused  # without the command, which holds the value too
        else:
            names = reported
            assert names, f"an API server let {spec} in, which the CRD's schema excludes"
            said = tiny.wait_condition("Degraded", "True", 60, "InvalidSpec")["message"]
            assert " ".join(said.split()) in " ".join(tiny.describe().split())
        for name in names:
            assert name in said
        assert tiny.ready_pods() == pods
        Stream(client, "Still there?", 4).start().result()
    finally:
        restored = json.dumps([{"op": "replace", "path": "/spec", "value": good}])
        tiny.kubectl("patch", "alise", "tiny", "--type=json", "-p", restored)
    tiny.wait_condition("Ready", "True", 60)


def test_an_httproute_serves_as_the_ingress_did_and_replaces_it(access: Access, tiny: Resource, client: OpenAI) -> None:
    gateway_api.require(access)
    gateway = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "front", "namespace": NAMESPACE}}
    access.apply(gateway | {"spec": {"gatewayClassName": INGRESS_CLASS}})
    good = tiny.read()["spec"]["route"]
    try:
        set_route(tiny, {"type": "HTTPRoute", "hosts": good["hosts"], "parentRef": {"name": "front"}})
        wait_until("only the HTTPRoute", lambda: routes(tiny) == ["httproute.gateway.networking.k8s.io/tiny"], 60)
        wait_until("an answer through it", lambda: answers(client), 30)
    finally:
        set_route(tiny, good)
        tiny.kubectl("delete", "gateway", "front")
    wait_until("only the Ingress", lambda: routes(tiny) == ["ingress.networking.k8s.io/tiny"], 60)
    wait_until("an answer through the Ingress", lambda: answers(client), 30)


def set_route(resource: Resource, route: dict[str, Any]) -> None:
    resource.kubectl(
        "patch", "alise", resource.name, "--type=json", "-p", json.dumps([{"op": "replace", "path": "/spec/route", "value": route}])
    )


def routes(resource: Resource) -> list[str]:
    return resource.kubectl("get", "ingresses,httproutes", "-l", f"{ENGINE_LABEL}={resource.name}", "-o", "name").split()


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

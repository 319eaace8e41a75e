"""What `kubectl describe alise` says while something is wrong, on the real node. Resources are suspended where no pod is needed."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from openai import OpenAI

from tests.cluster.access import Access
from tests.cluster.gateway import gateway_api
from tests.cluster.gateway.resources import INGRESS_CLASS
from tests.cluster.resource import NAMESPACE, Resource, wait_until
from tests.e2e.conftest import manifest
from tests.e2e.support import Stream

pytestmark = pytest.mark.e2e

GATEWAY_API = "gateway.networking.k8s.io/v1"
SECONDS = 45.0
Make = Callable[..., Resource]


@pytest.fixture
def suspended(access: Access) -> Iterator[Make]:
    """Makes resources without pods, with a route of the test's; they are deleted at the end."""
    made: list[Resource] = []

    def make(name: str, route: dict[str, Any]) -> Resource:
        access.apply(manifest(name, suspend=True, route=route))
        made.append(Resource(access, name))
        return made[-1]

    yield make
    for resource in made:
        resource.kubectl("delete", "alise", resource.name, "--wait=false")


def describes(resource: Resource, *texts: str) -> None:
    """`kubectl describe` says each of these; it wraps lines."""
    said = " ".join(resource.describe().split())
    for text in texts:
        assert text in said


def to_gateway(name: str, host: str) -> dict[str, Any]:
    return {"type": "HTTPRoute", "hosts": [host], "parentRef": {"name": name}}


def put_gateway(access: Access, name: str, class_name: str = INGRESS_CLASS, *, namespace: str = NAMESPACE, **listener: Any) -> None:
    meta = {"name": name, "namespace": namespace}
    spec = {"gatewayClassName": class_name, "listeners": [{"name": "http", "port": 80, "protocol": "HTTP", **listener}]}
    access.apply({"apiVersion": GATEWAY_API, "kind": "Gateway", "metadata": meta, "spec": spec})


@pytest.fixture
def gateways(access: Access) -> Iterator[Callable[..., None]]:
    """Makes Gateways that are deleted at the end."""
    gateway_api.require(access)
    made: list[tuple[str, str]] = []

    def make(name: str, class_name: str = INGRESS_CLASS, *, namespace: str = NAMESPACE, **listener: Any) -> None:
        put_gateway(access, name, class_name, namespace=namespace, **listener)
        made.append((name, namespace))

    yield make
    for name, namespace in made:
        access.kubectl("delete", "gateway", name, "-n", namespace)


def test_a_gateway_or_class_that_does_not_exist_is_named(suspended: Make, gateways: Callable[..., None]) -> None:
    gateways("orphan", "no-such-gateway-class")
    wanted = {
        "no-gateway": (
            to_gateway("no-such-gateway", "a.alise.test"),
            "MissingGateway",
            f"Gateway {NAMESPACE}/no-such-gateway does not exist",
        ),
        "no-gateway-class": (
            to_gateway("orphan", "b.alise.test"),
            "MissingGatewayClass",
            "GatewayClass no-such-gateway-class, which does not",
        ),
        "no-class": (
            {"type": "Ingress", "className": "no-such-class", "hosts": ["c.alise.test"]},
            "MissingIngressClass",
            "IngressClass no-such-class does not exist, so no controller handles the Ingress; use ",
        ),
    }
    made = {name: suspended(name, route) for name, (route, _, _) in wanted.items()}
    for name, (_, reason, said) in wanted.items():
        made[name].wait_condition("RouteReady", "False", SECONDS, reason)
        describes(made[name], said)
        assert "url" not in made[name].read()["status"]


def test_a_gateway_of_another_namespace_must_allow_the_resources(suspended: Make, gateways: Callable[..., None]) -> None:
    gateways("closed", namespace="kube-public", allowedRoutes={"namespaces": {"from": "Same"}})
    route = to_gateway("closed", "d.alise.test")
    refused = suspended("not-allowed", route | {"parentRef": {"name": "closed", "namespace": "kube-public"}})
    refused.wait_condition("RouteReady", "False", SECONDS, "RouteNotAllowed")
    describes(refused, f"Gateway kube-public/closed does not allow routes of namespace {NAMESPACE} (listener http: from Same)")
    assert not refused.kubectl("get", "httproute", "not-allowed", "--ignore-not-found", "-o", "name")


def test_a_refusal_is_quoted_and_one_about_timeouts_leaves_them_out(
    access: Access, suspended: Make, gateways: Callable[..., None], client: OpenAI
) -> None:
    """The test gateway, which the client goes through, answers for its class. For the other class this test does."""
    gateways("narrow", hostname="only.alise.test")
    refused = suspended("wrong-host", to_gateway("narrow", "e.alise.test"))
    refused.wait_condition("RouteReady", "False", SECONDS, "RouteRefused")
    describes(refused, "NoMatchingListenerHostname: no listener admits e.alise.test", '(its listeners admit "only.alise.test")')

    access.apply(
        {"apiVersion": GATEWAY_API, "kind": "GatewayClass", "metadata": {"name": "plain"}, "spec": {"controllerName": "alise.dev/none"}}
    )
    try:
        gateways("plain", "plain")
        resource = suspended("untimed", to_gateway("plain", "f.alise.test"))
        wait_until("a route with timeouts", lambda: "timeouts" in rule(resource), SECONDS)
        answer(resource, "False", "UnsupportedValue", "timeouts are not supported")
        wait_until("a route without timeouts", lambda: "timeouts" not in rule(resource), SECONDS)
        answer(resource, "True", "Accepted", "")
        said = resource.wait_condition("RouteReady", "True", SECONDS, "Accepted")["message"]
        assert "removed the route's timeouts because the Gateway refused them" in said
    finally:
        access.kubectl("delete", "gatewayclass", "plain")


def http_route(resource: Resource) -> dict[str, Any]:
    return resource.access.get(f"/apis/{GATEWAY_API}/namespaces/{NAMESPACE}/httproutes/{resource.name}")


def rule(resource: Resource) -> dict[str, Any]:
    """The rule of its HTTPRoute; empty while there is none."""
    if not resource.kubectl("get", "httproute", resource.name, "--ignore-not-found", "-o", "name"):
        return {}
    return dict(http_route(resource)["spec"]["rules"][0])


def answer(resource: Resource, status: str, reason: str, message: str) -> None:
    """Writes the route's status as the controller of its Gateway does."""
    route = http_route(resource)
    meta = {"observedGeneration": route["metadata"]["generation"], "lastTransitionTime": route["metadata"]["creationTimestamp"]}
    condition = {"type": "Accepted", "status": status, "reason": reason, "message": message} | meta
    parent = {"parentRef": route["spec"]["parentRefs"][0], "controllerName": "alise.dev/none", "conditions": [condition]}
    path = f"/apis/{GATEWAY_API}/namespaces/{NAMESPACE}/httproutes/{resource.name}/status"
    resource.access.kubectl("replace", "--raw", path, "-f", "-", text_in=json.dumps(route | {"status": {"parents": [parent]}}))


def test_of_two_resources_with_one_host_the_newer_one_says_who_has_it(access: Access, suspended: Make) -> None:
    route = {"type": "Ingress", "className": INGRESS_CLASS, "hosts": ["shared.alise.test"]}
    older = suspended("older", route)
    older.wait_condition("RouteReady", "True", SECONDS)
    # Ages are in whole seconds; of two that are equally old the first by name has the host.
    ingress = access.get(f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/ingresses/older")
    created = datetime.fromisoformat(ingress["metadata"]["creationTimestamp"])
    wait_until("a later second", lambda: datetime.now(UTC) >= created + timedelta(seconds=1), SECONDS, 0.1)
    newer = suspended("newer", route)
    newer.wait_condition("RouteReady", "False", SECONDS, "HostTaken")
    describes(
        newer,
        f"host shared.alise.test is already in use: Ingress {NAMESPACE}/older of AliseEngine {NAMESPACE}/older is older",
        "use another host",
    )
    assert older.condition("RouteReady")["status"] == "True"


def test_a_mistake_leaves_ready_on_and_the_number_of_pods_acts_at_once(tiny: Resource, client: OpenAI) -> None:
    good = tiny.read()["spec"]
    try:
        # 1. A Secret that is not there: the new pod waits, the old one serves.
        tiny.patch({"model": {"tokenSecretRef": {"name": "no-such-secret"}}})
        tiny.wait_condition("Degraded", "True", SECONDS, "MissingSecret")
        assert tiny.condition("Ready")["status"] == "True"
        describes(
            tiny,
            f"spec.model.tokenSecretRef: Secret {NAMESPACE}/no-such-secret does not exist; create it: kubectl create secret generic "
            f"no-such-secret -n {NAMESPACE} --from-literal=token=",
        )
        # 2. A flag that is refused as well: replicas act all the same. The new pods wait for the Secret, so none is started.
        tiny.patch({"engine": {"args": [*good["engine"]["args"], "--port=9000"]}, "replicas": 2})
        wait_until("two replicas of the Deployment", lambda: deployment_replicas(tiny) == 2, SECONDS)
        tiny.wait_condition("Degraded", "True", SECONDS, "InvalidSpec")
        assert tiny.condition("Ready")["reason"] == "ServingOldSpec"
        Stream(client, "Still there?", 4).start().result()
    finally:
        restored = json.dumps([{"op": "replace", "path": "/spec", "value": good}])
        tiny.kubectl("patch", "alise", tiny.name, "--type=json", "-p", restored)
    tiny.wait_condition("Degraded", "False", SECONDS)


def deployment_replicas(resource: Resource) -> int:
    return int(resource.kubectl("get", "deployment", resource.name, "-o", "jsonpath={.spec.replicas}"))


def test_a_deployment_scaled_by_hand_is_answered_with_the_right_command(suspended: Make) -> None:
    resource = suspended("scaled", {"type": "None"})
    resource.wait_condition("Ready", "False", SECONDS, "Suspended")

    def is_told() -> bool:
        if "ReplicasReset" in resource.describe():
            return True
        # Again if it was reset without an event: the operator was just writing the Deployment.
        if deployment_replicas(resource) == 0:
            resource.kubectl("scale", "deployment", "scaled", "--replicas=1")
        return False

    wait_until("an event", is_told, SECONDS)
    describes(
        resource,
        f"kubectl scale alise scaled -n {NAMESPACE} --replicas=1",
        "reset to 0, because spec.suspend of the AliseEngine is true",
    )
    wait_until("no replica of the Deployment", lambda: deployment_replicas(resource) == 0, SECONDS)

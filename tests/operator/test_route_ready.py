"""The condition RouteReady: what is wrong with the way in, and the way out."""

from typing import Any

import pytest

from alise_operator.errors import ApplyError, InvalidSpec, MissingApi, OperatorError, Problem
from alise_operator.hosts import Claim
from alise_operator.route_ready import REFUSED_REASONS, Lookup, Way, gateway_limits, route_ready
from tests.operator.builders import OWNER, make_spec
from tests.operator.built import HTTP_ROUTE, INGRESS
from tests.operator.ways import CLASS, GATEWAY, LATE, MISSING, found, made, of_http_route, of_ingress, said, way


def test_without_a_route_there_is_nothing_to_wait_for() -> None:
    condition = route_ready(make_spec(), OWNER, Way(), None, None, LATE)
    assert (condition.status, condition.reason) == ("True", "NoRoute")
    assert "http://tiny.default.svc/v1" in condition.message


def test_an_accepted_route_is_ready() -> None:
    condition = of_http_route(way())
    assert (condition.status, condition.reason) == ("True", "Accepted")
    assert condition.message == "Gateway edge/public has accepted HTTPRoute default/tiny"


@pytest.mark.parametrize(
    ("at", "reason", "words"),
    [
        pytest.param(
            way(gateway=MISSING, gateway_class=Lookup()), "MissingGateway", "Gateway edge/public does not exist; create it", id="no Gateway"
        ),
        pytest.param(
            way(gateway_class=MISSING), "MissingGatewayClass", "has the GatewayClass envoy, which does not exist", id="no GatewayClass"
        ),
        pytest.param(
            way(gateway=found(GATEWAY | {"spec": {"gatewayClassName": "envoy", "listeners": [{"name": "https"}]}})),
            "RouteNotAllowed",
            "Gateway edge/public does not allow routes of namespace default (listener https: from Same)",
            id="a Gateway for its own namespace",
        ),
        pytest.param(
            way(route=made("HTTPRoute")),
            "NoController",
            "the controller example.com/envoy of GatewayClass envoy does not answer for Gateway edge/public; is it running",
            id="no answer",
        ),
        pytest.param(
            way(route=made("HTTPRoute"), gateway_class=found(CLASS | {"status": {}})),
            "NoController",
            "has not accepted the class; install or start it, see kubectl describe gatewayclass envoy",
            id="a class that no controller has accepted",
        ),
        pytest.param(
            way(route=made("HTTPRoute"), gateway=Lookup(), gateway_class=Lookup()),
            "NoController",
            "the operator may not read Gateways: does Gateway edge/public exist, and is its controller running?",
            id="no answer, and no right to look why",
        ),
        pytest.param(
            way(route=made("HTTPRoute", conditions=[said("Accepted", "False", "NoMatchingListenerHostname", "no host matches")])),
            "RouteRefused",
            "NoMatchingListenerHostname: no host matches; use a host in spec.route.hosts that a listener of the Gateway admits (its "
            'listeners admit "*.example.com")',
            id="a host that no listener admits",
        ),
        pytest.param(
            way(route=made("HTTPRoute", conditions=[said("Accepted", "False", "NoMatchingParent", "none")])),
            "RouteRefused",
            "NoMatchingParent: none; see kubectl describe httproute tiny -n default, and the log of the Gateway's controller",
            id="a Gateway without a listener for the route",
        ),
        pytest.param(
            way(
                route=made(
                    "HTTPRoute", conditions=[said("Accepted", "True"), said("ResolvedRefs", "False", "BackendNotFound", "no Service")]
                )
            ),
            "RouteUnresolved",
            "cannot resolve what HTTPRoute default/tiny refers to: BackendNotFound: no Service; see kubectl describe httproute tiny",
            id="a Service that is not found",
        ),
        pytest.param(
            way(rival=Claim("2025", "shop", "web", "HTTPRoute", "llm.example.com", "edge/public")),
            "HostTaken",
            "host llm.example.com is already in use: HTTPRoute shop/web is older and has it with the path /v1, so requests go there; use "
            "another",
            id="a host of an older route",
        ),
    ],
)
def test_a_route_that_leads_nowhere_says_why_and_what_to_do(at: Way, reason: str, words: str) -> None:
    condition = of_http_route(at)
    assert (condition.status, condition.reason) == ("False", reason)
    assert condition.reason in REFUSED_REASONS
    assert words in condition.message


@pytest.mark.parametrize(
    ("at", "status", "reason", "words"),
    [
        pytest.param(
            Way(ingress_class=MISSING, ingress_classes=("nginx", "traefik")),
            "False",
            "MissingIngressClass",
            "IngressClass nginx does not exist, so no controller handles the Ingress; use one of nginx, traefik",
            id="a class that does not exist, also before the Ingress is made",
        ),
        pytest.param(
            Way(made("Ingress"), ingress_class=MISSING, ingress_classes=()),
            "False",
            "MissingIngressClass",
            "install an ingress controller",
            id="no classes at all",
        ),
        pytest.param(
            Way(made("Ingress", spec={"rules": []}), ingress_classes=("nginx",)),
            "False",
            "NoIngressClass",
            "the cluster has no default IngressClass, so no controller handles the Ingress; use nginx",
            id="no class and no default class",
        ),
        pytest.param(
            Way(made("Ingress"), Claim("2025", "default", "web", "Ingress", "llm.example.com", "nginx", "web"), ingress_class=found({})),
            "False",
            "HostTaken",
            "Ingress default/web of AliseEngine default/web is older",
            id="a host of an older Ingress",
        ),
        pytest.param(Way(ingress_class=found({})), "Unknown", "Pending", "the operator to apply it", id="an Ingress that is not there yet"),
        pytest.param(
            Way(made("Ingress"), ingress_class=found({})),
            "True",
            "Applied",
            "Ingress default/tiny (class nginx) exists; it has no address in its status yet. "
            "Many controllers never set one, so this alone is not an error",
            id="no address",
        ),
        pytest.param(Way(made("Ingress")), "True", "Applied", "class nginx", id="a class that may not be read"),
        pytest.param(
            Way(made("Ingress", status={"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}), ingress_class=found({})),
            "True",
            "Accepted",
            "has the address 10.0.0.1",
            id="an address",
        ),
    ],
)
def test_an_ingress_is_judged_by_its_class_and_its_host(at: Way, status: str, reason: str, words: str) -> None:
    condition = of_ingress(at)
    assert (condition.status, condition.reason) == (status, reason)
    assert words in condition.message


def test_an_ingress_whose_class_is_an_annotation_has_a_class() -> None:
    item = made("Ingress", spec={"rules": []})
    item["metadata"] = item["metadata"] | {"annotations": {"kubernetes.io/ingress.class": "nginx"}}
    assert of_ingress(Way(item, ingress_classes=("nginx",))).reason == "Applied"


@pytest.mark.parametrize("error", [MissingApi("install it")], ids=["a kind that is not there"])
def test_a_route_that_cannot_be_created_is_not_ready(error: OperatorError) -> None:
    condition = route_ready(make_spec(route=HTTP_ROUTE), OWNER, Way(), error, None, LATE)
    assert (condition.status, condition.reason) == ("False", "MissingApi")


def older(uid: str) -> Way:
    return Way(older={"metadata": {"name": "tiny", "ownerReferences": [{"uid": uid}]}})


@pytest.mark.parametrize(
    ("way", "status", "reason"),
    [
        pytest.param(older(OWNER.uid), "True", "Applied", id="the Ingress of the last spec serves"),
        pytest.param(older("another"), "False", "MissingApi", id="an Ingress of another owner"),
        pytest.param(Way(), "False", "MissingApi", id="it is gone, or there was none"),
    ],
)
def test_a_route_that_cannot_be_created_leaves_that_of_the_last_spec_as_it_was(way: Way, status: str, reason: str) -> None:
    before = {"status": "True", "reason": "Applied", "message": "the Ingress is there"}
    condition = route_ready(make_spec(route=HTTP_ROUTE), OWNER, way, MissingApi("install it"), before, LATE)
    assert (condition.status, condition.reason) == (status, reason)


def test_a_gateway_that_cannot_be_read_limits_nothing() -> None:
    limits = gateway_limits(make_spec(route=HTTP_ROUTE), OWNER, Way())
    assert limits.allows_namespace
    assert limits.timeouts == {"request", "backendRequest"}
    assert limits.timeouts_refused_by == ""


BAD = InvalidSpec([Problem("spec.x", "is wrong")])


@pytest.mark.parametrize("route", [pytest.param({"type": "None"}, id="no route"), pytest.param(INGRESS, id="an Ingress")])
@pytest.mark.parametrize("way", [pytest.param(None, id="found by the rules"), pytest.param(Way(), id="found by a builder")])
def test_a_first_spec_that_is_wrong_leaves_the_route_unknown(route: dict[str, Any], way: Way | None) -> None:
    condition = route_ready(make_spec(route=route), OWNER, way, BAD, None, LATE)
    assert (condition.status, condition.reason) == ("Unknown", "InvalidSpec")
    assert condition.message == "the operator creates the route once the spec is corrected"


def test_a_route_that_the_cluster_refuses_is_explained_where_it_is_missing() -> None:
    condition = route_ready(make_spec(route=INGRESS), OWNER, Way(), ApplyError("quota"), None, LATE)
    assert (condition.status, condition.message) == ("False", "there is no Ingress default/tiny yet: quota")


def test_an_address_is_not_advertised_as_one_in_use_while_no_pod_is_ready() -> None:
    condition = route_ready(make_spec(), OWNER, Way(), None, None, LATE, serves=False)
    assert condition.message.endswith("clients inside the cluster reach the pods at http://tiny.default.svc/v1 once a pod is ready")


def test_a_missing_gateway_names_the_field_for_one_of_another_namespace() -> None:
    condition = route_ready(make_spec(route=HTTP_ROUTE), OWNER, Way(gateway=Lookup(known=True)), None, None, LATE)
    assert "a Gateway in another namespace needs parentRef.namespace" in condition.message

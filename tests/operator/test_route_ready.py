"""The condition RouteReady: what is wrong with the way in, in whose words, and the way out."""

from datetime import UTC, datetime
from typing import Any

import pytest

from alise_operator.children.route import TIMEOUTS_REFUSED_BY
from alise_operator.conditions import Condition
from alise_operator.errors import ApplyError, InvalidSpec, MissingApi, OperatorError, Problem
from alise_operator.hosts import Claim
from alise_operator.route_ready import REFUSED_REASONS, Lookup, Way, gateway_limits, route_ready
from tests.operator.builders import OWNER, make_spec
from tests.operator.built import HTTP_ROUTE, INGRESS, build

CREATED, SOON, LATE = (datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC) for second in (0, 10, 45))
OPEN = {"allowedRoutes": {"namespaces": {"from": "All"}}}
GATEWAY = {
    "metadata": {"name": "public", "namespace": "edge"},
    "spec": {"gatewayClassName": "envoy", "listeners": [{"name": "https", "hostname": "*.example.com"} | OPEN]},
}
CLASS = {
    "metadata": {"name": "envoy"},
    "spec": {"controllerName": "example.com/envoy"},
    "status": {"conditions": [{"type": "Accepted", "status": "True"}]},
}
MISSING = Lookup(known=True)


def found(item: dict[str, Any]) -> Lookup:
    return Lookup(item, known=True)


def made(kind: str, *, conditions: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """Our route as the API server gives it; with `conditions`, what its Gateway answers."""
    item = build(route=INGRESS if kind == "Ingress" else HTTP_ROUTE)[kind]
    meta = item["metadata"] | {"creationTimestamp": "2026-01-01T12:00:00Z", "generation": 1}
    answers = (
        [{"parentRef": {"name": "public", "namespace": "edge", "sectionName": "https"}, "conditions": conditions}] if conditions else []
    )
    return item | {"metadata": meta, "status": {"parents": answers}} | changes


def said(type_: str, status: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 1}


def without_timeouts(route: dict[str, Any]) -> dict[str, Any]:
    rules = [{key: value for key, value in rule.items() if key != "timeouts"} for rule in route["spec"]["rules"]]
    return route | {"spec": route["spec"] | {"rules": rules}}


ACCEPTED = [said("Accepted", "True"), said("ResolvedRefs", "True")]


def way(**changes: Any) -> Way:
    """A Gateway of a class that exists, which has accepted our HTTPRoute."""
    fields: dict[str, Any] = {"route": made("HTTPRoute", conditions=ACCEPTED), "gateway": found(GATEWAY), "gateway_class": found(CLASS)}
    return Way(**(fields | changes))


def of_http_route(at: Way, now: datetime = LATE, **route: Any) -> Condition:
    return route_ready(make_spec(route=HTTP_ROUTE | route), OWNER, at, None, None, now)


def of_ingress(at: Way, **route: Any) -> Condition:
    return route_ready(make_spec(route=INGRESS | route), OWNER, at, None, None, LATE)


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


def test_a_gateway_that_knows_no_timeouts_is_asked_again_without_them() -> None:
    at = way(route=made("HTTPRoute", conditions=[said("Accepted", "False", "UnsupportedValue", "timeouts are not supported")]))
    condition = of_http_route(at)
    assert (condition.status, condition.reason) == ("Unknown", "Pending")
    assert "to accept it without timeouts, which it refuses" in condition.message
    by_hand = of_http_route(at, timeouts="Set")
    assert (by_hand.status, by_hand.reason) == ("False", "RouteRefused")
    assert by_hand.message.endswith(
        "timeouts are not supported; the Gateway does not support timeouts: set spec.route.timeouts to Auto or Omit; then an answer "
        "that takes longer than the Gateway's own timeout is cut off"
    )


def test_timeouts_are_only_suspected_where_the_gateway_names_something_else() -> None:
    at = way(route=made("HTTPRoute", conditions=[said("Accepted", "False", "UnsupportedValue", "a field is not supported")]))
    assert "; the Gateway may not support timeouts: set spec.route.timeouts to" in of_http_route(at, timeouts="Set").message


def listening(*listeners: dict[str, Any]) -> Lookup:
    return found(GATEWAY | {"spec": {"gatewayClassName": "envoy", "listeners": list(listeners)}})


def kinds(name: str, *allowed: str, **listener: Any) -> dict[str, Any]:
    return {"name": name, "allowedRoutes": {"namespaces": {"from": "All"}, "kinds": [{"kind": kind} for kind in allowed]}} | listener


def refused(reason: str, message: str) -> dict[str, Any]:
    return made("HTTPRoute", conditions=[said("Accepted", "False", reason, message)])


NOT_ALLOWED = "No listeners included by this parent ref allowed this attachment."
ANY = {"parentRef": {"name": "public", "namespace": "edge"}}


@pytest.mark.parametrize(
    ("at", "route", "words"),
    [
        pytest.param(
            way(route=refused("NotAllowedByListeners", NOT_ALLOWED), gateway=listening(kinds("https", "GRPCRoute"))),
            {},
            "allowed this attachment; listener https allows only GRPCRoute: ask the Gateway's owner to add HTTPRoute to "
            "allowedRoutes.kinds, or name another Gateway in spec.route.parentRef",
            id="a listener for another kind of route",
        ),
        pytest.param(
            way(route=refused("NotAllowedByListeners", NOT_ALLOWED), gateway=listening(kinds("https", protocol="TLS"))),
            {},
            "listener https has the protocol TLS, which takes no HTTPRoute: ask the Gateway's owner to add a listener with the protocol "
            "HTTP or HTTPS",
            id="a listener for another protocol",
        ),
        pytest.param(
            way(route=refused("NotAllowedByListeners", NOT_ALLOWED)),
            {},
            "allowed this attachment; ask the Gateway's owner to change allowedRoutes of a listener, or name another Gateway",
            id="a listener that seems to allow it",
        ),
        pytest.param(
            way(route=refused("NoMatchingParent", "No listeners match this parent ref"), gateway=listening(kinds("http"), kinds("web"))),
            {},
            "match this parent ref; spec.route.parentRef.sectionName: the Gateway has no listener https; set it to 'http' or 'web', or "
            "leave it out",
            id="a listener that is not there",
        ),
        pytest.param(
            way(route=refused("NoMatchingParent", "No listeners match this parent ref"), gateway=Lookup()),
            {},
            "the Gateway has no listener https; leave it out",
            id="a listener that is not there, of a Gateway that may not be read",
        ),
        pytest.param(
            way(route=without_timeouts(refused("UnsupportedValue", "path match type is not supported."))),
            {},
            "Gateway edge/public refuses HTTPRoute default/tiny: UnsupportedValue: path match type is not supported; alise needs "
            "only hosts and the path prefix /v1 of a Gateway, and Gateway edge/public (GatewayClass envoy) cannot route these. "
            "Name a "
            "Gateway of another GatewayClass in spec.route.parentRef (kubectl get gateways -A), or remove spec.route.parentRef, set "
            "spec.route.type to Ingress and spec.route.className to one of kubectl get ingressclasses",
            id="a class that does not know what the route needs",
        ),
        pytest.param(
            way(route=refused("Overloaded", "No room.")),
            {},
            "Overloaded: No room; see kubectl describe httproute tiny -n default, and the log of the Gateway's controller",
            id="a reason of the controller's own",
        ),
    ],
)
def test_a_refusal_is_quoted_without_its_full_stop_and_followed_by_a_way_out(at: Way, route: dict[str, Any], words: str) -> None:
    condition = of_http_route(at, **route)
    assert (condition.status, condition.reason) == ("False", "RouteRefused")
    assert words in condition.message


def answered_before(status: str, *, annotations: dict[str, str] | None = None) -> Way:
    """The route's second spec, of which the Gateway has only answered the first."""
    route = made("HTTPRoute", conditions=[said("Accepted", status, "UnsupportedValue" if status == "False" else "Accepted", "no timeouts")])
    meta = route["metadata"] | {"generation": 2, "annotations": annotations or {}}
    return way(route=without_timeouts(route | {"metadata": meta}))


@pytest.mark.parametrize("status", ["True", "False"])
def test_an_answer_to_an_older_spec_of_the_route_is_none(status: str) -> None:
    condition = of_http_route(answered_before(status), now=SOON)
    assert (condition.status, condition.reason) == ("Unknown", "Pending")
    assert condition.message.endswith("is waiting for the controller of Gateway edge/public to process its last change")


def test_timeouts_that_were_just_left_out_wait_for_an_answer() -> None:
    condition = of_http_route(answered_before("False", annotations={TIMEOUTS_REFUSED_BY: "edge/public"}), now=SOON)
    assert (condition.status, condition.reason) == ("Unknown", "Pending")
    assert condition.message == "HTTPRoute default/tiny is waiting for Gateway edge/public to accept it without timeouts, which it refused"


def test_an_older_answer_counts_where_no_newer_one_comes() -> None:
    assert of_http_route(answered_before("True"), now=LATE).status == "True"
    assert of_http_route(answered_before("False"), now=LATE).reason == "RouteRefused"


@pytest.mark.parametrize(
    ("at", "words"),
    [
        pytest.param(way(route=None), "the operator to apply it", id="a route that is not there yet"),
        pytest.param(way(route=made("HTTPRoute")), "the controller of Gateway edge/public to process it", id="a route without an answer"),
        pytest.param(way(route=made("HTTPRoute", conditions=[said("Accepted", "Unknown", "Pending", "soon")])), "soon", id="no word yet"),
    ],
)
def test_a_new_route_waits_for_an_answer(at: Way, words: str) -> None:
    condition = of_http_route(at, now=SOON)
    assert (condition.status, condition.reason) == ("Unknown", "Pending")
    assert words in condition.message


def test_a_route_that_was_changed_waits_again() -> None:
    changed = [{"manager": "alise-operator", "operation": "Apply", "time": "2026-01-01T12:00:40Z"}]
    at = way(route=made("HTTPRoute") | {"metadata": made("HTTPRoute")["metadata"] | {"managedFields": changed}})
    assert of_http_route(at).reason == "Pending"


def test_an_answer_for_another_gateway_is_none() -> None:
    other = {"parents": [{"parentRef": {"name": "old", "namespace": "edge"}, "conditions": ACCEPTED}]}
    assert of_http_route(way(route=made("HTTPRoute", status=other))).reason == "NoController"


def test_one_controller_that_accepts_is_enough() -> None:
    refused = [said("Accepted", "False", "NotAllowed")]
    parents = [{"parentRef": {"name": "public", "namespace": "edge"}, "conditions": answer} for answer in (refused, ACCEPTED)]
    assert of_http_route(way(route=made("HTTPRoute", status={"parents": parents}))).status == "True"


def test_timeouts_that_were_left_out_are_mentioned() -> None:
    route = made("HTTPRoute", conditions=ACCEPTED)
    refused = route | {"metadata": route["metadata"] | {"annotations": {TIMEOUTS_REFUSED_BY: "edge/public"}}}
    said = of_http_route(way(route=refused)).message
    assert "removed the route's timeouts because the Gateway refused them" in said
    assert said.endswith("is cut off: raise that timeout at the Gateway if answers take longer")
    plain = found(CLASS | {"status": {"supportedFeatures": [{"name": "HTTPRoute"}]}})
    assert "timeouts apply; raise them at the Gateway if answers take longer" in of_http_route(way(gateway_class=plain)).message


def test_a_gateway_that_is_not_programmed_is_mentioned() -> None:
    given = GATEWAY | {"status": {"conditions": [said("Programmed", "False", "AddressNotAssigned", "no address")]}}
    condition = of_http_route(way(gateway=found(given)))
    assert condition.status == "True"
    assert "not programmed: AddressNotAssigned: no address" in condition.message


def test_what_a_gateway_said_of_itself_before_it_was_changed_is_not_mentioned() -> None:
    meta = {"name": "public", "namespace": "edge", "generation": 2}
    given = GATEWAY | {"metadata": meta, "status": {"conditions": [said("Programmed", "False", "AddressNotAssigned", "no address")]}}
    assert "not programmed" not in of_http_route(way(gateway=found(given))).message


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
def test_a_route_that_cannot_be_made_is_not_ready(error: OperatorError) -> None:
    condition = route_ready(make_spec(route=HTTP_ROUTE), OWNER, Way(), error, None, LATE)
    assert (condition.status, condition.reason) == ("False", "MissingApi")


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

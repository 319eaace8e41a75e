"""The condition RouteReady of an HTTPRoute: what its Gateway answers, in whose words, and the way out."""

from typing import Any

import pytest

from alise_operator.children.route import TIMEOUTS_REFUSED_BY
from alise_operator.route_ready import Lookup, Way
from tests.operator.ways import ACCEPTED, CLASS, GATEWAY, LATE, SOON, found, made, of_http_route, said, way, without_timeouts


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


def test_what_a_gateway_reported_before_its_last_change_is_not_mentioned() -> None:
    meta = {"name": "public", "namespace": "edge", "generation": 2}
    given = GATEWAY | {"metadata": meta, "status": {"conditions": [said("Programmed", "False", "AddressNotAssigned", "no address")]}}
    assert "not programmed" not in of_http_route(way(gateway=found(given))).message

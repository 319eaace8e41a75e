"""What a Gateway and its class allow, read from them as the API server gives them."""

from typing import Any

import pytest

from alise_operator.children.route import TIMEOUTS, TIMEOUTS_REFUSED_BY
from alise_operator.gateways import allows_namespace, describe_allowed, has_refused_timeouts, supported_timeouts

ML = {"team": "ml"}


def gateway(*listeners: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "public", "namespace": "edge"}, "spec": {"gatewayClassName": "envoy", "listeners": list(listeners)}}


def listener(name: str = "http", namespaces: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"name": name} | ({"allowedRoutes": {"namespaces": namespaces}} if namespaces else {})


ALL = listener(namespaces={"from": "All"})
SELECTED = listener(namespaces={"from": "Selector", "selector": {"matchLabels": ML}})


@pytest.mark.parametrize(
    ("given", "namespace", "labels", "allowed"),
    [
        pytest.param(gateway(ALL), "default", {}, True, id="all namespaces"),
        pytest.param(gateway(listener()), "edge", {}, True, id="the Gateway's own namespace, which is the default"),
        pytest.param(gateway(listener()), "default", {}, False, id="another namespace than the Gateway's"),
        pytest.param(gateway(SELECTED), "default", ML, True, id="a namespace with the labels"),
        pytest.param(gateway(SELECTED), "default", {"team": "web"}, False, id="a namespace with other labels"),
        pytest.param(gateway(SELECTED), "default", None, None, id="labels that cannot be read"),
        pytest.param(gateway(listener(), ALL | {"name": "other"}), "default", {}, True, id="one of two listeners"),
        pytest.param(gateway(), "default", {}, None, id="no listeners"),
        pytest.param(gateway(listener(namespaces={"from": "Later"})), "default", {}, None, id="a rule of a later Gateway API"),
    ],
)
def test_a_gateway_allows_namespaces_by_its_listeners(
    given: dict[str, Any], namespace: str, labels: dict[str, str] | None, allowed: bool | None
) -> None:
    assert allows_namespace(given, None, home="edge", namespace=namespace, labels=labels) is allowed


def test_only_the_listener_that_the_route_names_counts() -> None:
    given = gateway(listener("closed"), ALL | {"name": "open"})
    assert allows_namespace(given, "open", home="edge", namespace="default", labels={}) is True
    assert allows_namespace(given, "closed", home="edge", namespace="default", labels={}) is False
    assert allows_namespace(given, "gone", home="edge", namespace="default", labels={}) is None


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        pytest.param({"key": "team", "operator": "In", "values": ["ml", "web"]}, True, id="one of the values"),
        pytest.param({"key": "team", "operator": "NotIn", "values": ["ml"]}, False, id="none of the values"),
        pytest.param({"key": "team", "operator": "Exists"}, True, id="the label"),
        pytest.param({"key": "team", "operator": "DoesNotExist"}, False, id="not the label"),
        pytest.param({"key": "stage", "operator": "In", "values": ["prod"]}, False, id="a label that is not there"),
    ],
)
def test_expressions_of_a_selector_are_understood(expression: dict[str, Any], fits: bool) -> None:
    given = gateway(listener(namespaces={"from": "Selector", "selector": {"matchExpressions": [expression]}}))
    assert allows_namespace(given, None, home="edge", namespace="default", labels=ML) is fits


def test_what_each_listener_allows_is_described() -> None:
    given = gateway(listener(), SELECTED | {"name": "ml"})
    assert describe_allowed(given, None) == "listener http: from Same, listener ml: from Selector team=ml"


@pytest.mark.parametrize(
    ("features", "fields"),
    [
        pytest.param(None, set(TIMEOUTS), id="a class that lists no features"),
        pytest.param(["HTTPRouteRequestTimeout"], {"request"}, id="names, as before Gateway API 1.2"),
        pytest.param([{"name": "HTTPRouteBackendTimeout"}], {"backendRequest"}, id="objects, as since then"),
        pytest.param([{"name": "HTTPRoute"}], set[str](), id="a class without timeouts"),
    ],
)
def test_timeouts_are_those_that_the_class_implements(features: list[Any] | None, fields: set[str]) -> None:
    assert supported_timeouts({"status": {"supportedFeatures": features}}) == fields


def route(*, timeouts: bool = True, generation: int = 2, refused: bool = True, observed: int = 2, annotation: str = "") -> dict[str, Any]:
    condition = {
        "type": "Accepted",
        "status": "False" if refused else "True",
        "reason": "UnsupportedValue" if refused else "Accepted",
        "observedGeneration": observed,
    }
    meta = {"name": "tiny", "namespace": "default", "generation": generation}
    return {
        "metadata": meta | ({"annotations": {TIMEOUTS_REFUSED_BY: annotation}} if annotation else {}),
        "spec": {"rules": [{"timeouts": {"request": "0s"}} if timeouts else {}]},
        "status": {"parents": [{"parentRef": {"name": "public", "namespace": "edge"}, "conditions": [condition]}]},
    }


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        pytest.param(None, False, id="no route yet"),
        pytest.param(route(), True, id="a route with timeouts that is refused"),
        pytest.param(route(refused=False), False, id="a route with timeouts that is accepted"),
        pytest.param(route(observed=1), False, id="an answer to an older route"),
        pytest.param(route(timeouts=False), False, id="a route that is refused for something else"),
        pytest.param(route(timeouts=False, refused=False, annotation="edge/public"), True, id="a route that was refused before"),
        pytest.param(route(timeouts=False, refused=False, annotation="edge/old"), False, id="a route that another Gateway refused before"),
    ],
)
def test_a_refusal_of_timeouts_is_found_in_the_route(given: dict[str, Any] | None, refused: bool) -> None:
    assert has_refused_timeouts(given, "edge/public") is refused

"""What the test gateway answers to an HTTPRoute."""

from typing import Any

import pytest

from tests.cluster.gateway.answers import accepted, parents
from tests.gateway.builders import make_gateway, make_objects, make_route

ALL = {"allowedRoutes": {"namespaces": {"from": "All"}}}


def answer(gateway: dict[str, Any], **route: Any) -> tuple[str, str]:
    """Status and reason of Accepted."""
    (parent,) = parents(make_route([], **route), [gateway])
    condition = next(one for one in parent["conditions"] if one["type"] == "Accepted")
    return condition["status"], condition["reason"]


def with_listeners(*listeners: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
    made = make_gateway()
    return made | {"metadata": made["metadata"] | {"namespace": namespace}, "spec": made["spec"] | {"listeners": list(listeners)}}


@pytest.mark.parametrize(
    ("listener", "found"),
    [
        pytest.param({"name": "http"}, ("True", "Accepted"), id="any host"),
        pytest.param({"name": "http", "hostname": "*.test"}, ("True", "Accepted"), id="a wildcard"),
        pytest.param({"name": "http", "hostname": "other.test"}, ("False", "NoMatchingListenerHostname"), id="another host"),
    ],
)
def test_a_listener_admits_its_hosts(listener: dict[str, Any], found: tuple[str, str]) -> None:
    assert answer(with_listeners(listener)) == found


def test_a_gateway_without_listeners_takes_all() -> None:
    assert answer(make_gateway()) == ("True", "Accepted")


def test_routes_of_other_namespaces_need_a_listener_that_allows_them() -> None:
    elsewhere = make_route([]) | {}
    elsewhere["spec"]["parentRefs"] = [{"name": "test", "namespace": "infra"}]
    closed, opened = (with_listeners({"name": "http"} | more, namespace="infra") for more in ({}, ALL))
    assert parents(elsewhere, [closed])[0]["conditions"][0]["reason"] == "NotAllowedByListeners"
    assert parents(elsewhere, [opened])[0]["conditions"][0]["reason"] == "Accepted"


def test_a_route_of_another_class_is_not_answered() -> None:
    assert parents(make_route([]), [make_gateway(class_name="other")]) == []


def test_only_routes_that_are_taken_are_routed() -> None:
    objects = make_objects(routes=[make_route([]), make_route([], name="lost", gateway="gone")])
    assert [route["metadata"]["name"] for route in accepted(objects).routes] == ["tiny"]

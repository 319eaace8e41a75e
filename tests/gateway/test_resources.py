"""From Ingress, HTTPRoute, Service and Endpoints to Envoy's resources."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.gateway.resources import Json, Objects, Resources, envoy_resources
from tests.gateway.builders import SERVICE_PORT, make_endpoints, make_gateway, make_ingress, make_objects, make_route, make_service

REF = {"name": "tiny", "port": SERVICE_PORT}


def routes_of(resources: Resources, host: str = "tiny.test") -> list[Json]:
    """The route matches of one host, in Envoy's order."""
    found = [row for row in resources.route_config["virtual_hosts"] if host in row["domains"]]
    return [route["match"] for row in found for route in row["routes"]]


def endpoints_of(resources: Resources, cluster: str = "default.tiny.80") -> list[tuple[str, int]]:
    """(ip, port) of a cluster's endpoints."""
    rows = [item for locality in resources.assignments[cluster]["endpoints"] for item in locality["lb_endpoints"]]
    addresses = [row["endpoint"]["address"]["socket_address"] for row in rows]
    return [(address["address"], address["port_value"]) for address in addresses]


@pytest.mark.parametrize(
    ("path", "kind", "match"),
    [
        pytest.param("/", "Prefix", {"prefix": "/"}, id="the root takes every path"),
        pytest.param("/v1", "Prefix", {"path_separated_prefix": "/v1"}, id="a prefix matches whole path elements"),
        pytest.param("/v1/", "Prefix", {"path_separated_prefix": "/v1"}, id="a trailing slash of a prefix means nothing"),
        pytest.param("/v1", "Exact", {"path": "/v1"}, id="an exact path matches itself only"),
        pytest.param("/v1/", "Exact", {"path": "/v1/"}, id="a trailing slash of an exact path counts"),
        pytest.param("/v1", "ImplementationSpecific", {"path_separated_prefix": "/v1"}, id="an unspecified kind is a prefix"),
    ],
)
def test_ingress_path(path: str, kind: str, match: Json) -> None:
    assert routes_of(envoy_resources(make_objects([make_ingress(paths=[(path, kind)])]))) == [match]


def test_exact_paths_come_first_then_the_longest_prefix() -> None:
    paths = [("/", "Prefix"), ("/v1", "Prefix"), ("/v1/models", "Prefix"), ("/v1", "Exact")]
    found = routes_of(envoy_resources(make_objects([make_ingress(paths=paths)])))
    assert found == [{"path": "/v1"}, {"path_separated_prefix": "/v1/models"}, {"path_separated_prefix": "/v1"}, {"prefix": "/"}]


@pytest.mark.parametrize(
    ("addresses", "not_ready", "expected"),
    [
        pytest.param([], [], [], id="no endpoint, no upstream"),
        pytest.param([("10.0.0.2", 8000), ("10.0.0.1", 8000)], [], [("10.0.0.1", 8000), ("10.0.0.2", 8000)], id="every ready pod, sorted"),
        pytest.param([("10.0.0.1", 8000)], ["10.0.0.9"], [("10.0.0.1", 8000)], id="an unready pod is left out"),
        pytest.param(
            [("10.0.0.1", 8000), ("10.0.0.1", 9000)], [], [("10.0.0.1", 8000), ("10.0.0.1", 9000)], id="pods whose port has another number"
        ),
    ],
)
def test_endpoints(addresses: list[tuple[str, int]], not_ready: list[str], expected: list[tuple[str, int]]) -> None:
    assert endpoints_of(envoy_resources(make_objects([make_ingress()], [make_endpoints(addresses, not_ready)]))) == expected


def test_a_port_is_found_by_the_name_that_service_and_endpoints_share() -> None:
    metrics = make_endpoints([("10.0.0.1", 9400)], port_name="metrics")["subsets"]
    endpoints = make_endpoints([("10.0.0.1", 8000)])
    endpoints["subsets"] += metrics
    assert endpoints_of(envoy_resources(make_objects([make_ingress()], [endpoints]))) == [("10.0.0.1", 8000)]


def test_a_port_without_a_name_is_found() -> None:
    objects = Objects(
        ingresses=[make_ingress()],
        services=[make_service(port_name=None)],
        endpoints=[make_endpoints([("10.0.0.1", 8000)], port_name=None)],
    )
    assert endpoints_of(envoy_resources(objects)) == [("10.0.0.1", 8000)]


def test_a_service_that_is_missing_has_no_endpoints() -> None:
    assert endpoints_of(envoy_resources(Objects(ingresses=[make_ingress()]))) == []


@pytest.mark.parametrize(
    ("ingress", "hosts"),
    [
        pytest.param(make_ingress(), ("tiny.test",), id="our class"),
        pytest.param(make_ingress(class_name="nginx"), (), id="another class"),
        pytest.param(make_ingress(host=""), ("*",), id="no host means every host"),
        pytest.param(make_ingress(host="*.test"), ("*.test",), id="a wildcard host"),
        pytest.param(
            {
                "metadata": {"namespace": "default", "name": "old", "annotations": {"kubernetes.io/ingress.class": "alise-test"}},
                "spec": {"defaultBackend": {"service": {"name": "tiny", "port": {"name": "http"}}}},
            },
            ("*",),
            id="the annotation that came before the class field, with a default backend",
        ),
    ],
)
def test_which_ingresses_are_served(ingress: Json, hosts: tuple[str, ...]) -> None:
    assert envoy_resources(make_objects([ingress])).hosts == hosts


def test_two_ingresses_of_one_host_are_one_virtual_host_and_the_older_one_wins() -> None:
    older = make_ingress("b", paths=[("/", "Prefix")], service="older", created="2026-01-01T00:00:00Z")
    newer = make_ingress("a", paths=[("/", "Prefix"), ("/more", "Prefix")], service="newer", created="2026-02-01T00:00:00Z")
    found = envoy_resources(make_objects([newer, older])).route_config["virtual_hosts"]
    assert [[route["route"]["cluster"] for route in host["routes"]] for host in found] == [["default.newer.80", "default.older.80"]]


def test_a_route_of_our_gateway_is_served() -> None:
    route = make_route([{"matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}], "backendRefs": [REF]}])
    resources = envoy_resources(make_objects(routes=[route], endpoints=[make_endpoints([("10.0.0.1", 8000)])]))
    assert routes_of(resources) == [{"path_separated_prefix": "/v1"}]
    assert endpoints_of(resources) == [("10.0.0.1", 8000)]


def test_a_route_without_matches_takes_every_path() -> None:
    assert routes_of(envoy_resources(make_objects(routes=[make_route([{"backendRefs": [REF]}])]))) == [{"prefix": "/"}]


def test_a_route_of_another_gateway_is_not_served() -> None:
    objects = Objects(gateways=[make_gateway(class_name="other")], routes=[make_route([{"backendRefs": [REF]}])])
    assert envoy_resources(objects).hosts == ()


def test_several_backends_share_by_weight() -> None:
    route = make_route([{"backendRefs": [{**REF, "weight": 9}, {**REF, "name": "next", "weight": 1}]}])
    action = envoy_resources(make_objects(routes=[route])).route_config["virtual_hosts"][0]["routes"][0]["route"]
    weights = [(item["name"], item["weight"]) for item in action["weighted_clusters"]["clusters"]]
    assert weights == [("default.tiny.80", 9), ("default.next.80", 1)]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        pytest.param({"filters": [{"type": "RequestRedirect"}], "backendRefs": [REF]}, "filters", id="filters"),
        pytest.param({"matches": [{"headers": [{"name": "a", "value": "b"}]}], "backendRefs": [REF]}, "headers", id="header match"),
        pytest.param(
            {"matches": [{"path": {"type": "RegularExpression", "value": ".*"}}], "backendRefs": [REF]}, "RegularExpression", id="regex"
        ),
        pytest.param({"backendRefs": []}, "without a Service", id="no backend"),
        pytest.param({"backendRefs": [{**REF, "weight": 0}]}, "without a Service", id="all weights zero"),
    ],
)
def test_a_rule_that_is_not_known_is_left_out_and_told(rule: Json, said: str) -> None:
    resources = envoy_resources(make_objects(routes=[make_route([rule])]))
    assert resources.hosts == ()
    assert len(resources.warnings) == 1
    assert said in resources.warnings[0]


def test_an_answer_may_take_any_time_and_no_request_is_sent_twice() -> None:
    host = envoy_resources(make_objects([make_ingress()])).route_config["virtual_hosts"][0]
    action = host["routes"][0]["route"]
    assert (action["timeout"], action["idle_timeout"]) == ("0s", "0s")
    assert host["retry_policy"]["retry_on"] == "connect-failure,refused-stream"


@given(order=st.randoms(use_true_random=False), data=st.data())
def test_the_order_of_objects_does_not_matter(order: random.Random, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1))
    ingresses = [make_ingress(name, paths=[("/", "Prefix"), (f"/{name}", "Exact")], service=name) for name in names]
    endpoints = [make_endpoints([("10.0.0.1", 8000)], name=name) for name in names]
    shuffled: list[Any] = list(ingresses)
    order.shuffle(shuffled)
    assert envoy_resources(make_objects(shuffled, endpoints)) == envoy_resources(make_objects(ingresses, endpoints))

"""The route to an engine, an Ingress or an HTTPRoute, and the URL that the status shows."""

from typing import Any

import pytest

from alise_operator.children.route import url
from alise_operator.cluster import Cluster
from alise_operator.errors import MissingApi
from tests.operator.builders import GATEWAY_API, OLD, OWNER, make_spec
from tests.operator.built import HTTP_ROUTE, INGRESS, build


def test_an_http_route_without_the_gateway_api_says_what_to_install() -> None:
    with pytest.raises(MissingApi, match="install the Gateway API or use Ingress"):
        build(OLD, route=HTTP_ROUTE)


def test_an_ingress_neither_buffers_nor_times_out() -> None:
    ingress = build(route=INGRESS | {"annotations": {"mine": "1"}})["Ingress"]
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) >= 3600
    assert annotations["mine"] == "1"
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert (path["path"], path["pathType"], path["backend"]["service"]) == ("/v1", "Prefix", {"name": "tiny", "port": {"number": 80}})


def test_an_http_route_has_no_timeout_and_names_its_listener() -> None:
    route = build(route=HTTP_ROUTE)["HTTPRoute"]["spec"]
    assert route["rules"][0]["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    (parent,) = route["parentRefs"]
    assert (parent["name"], parent["namespace"], parent["sectionName"]) == ("public", "edge", "https")


def test_an_http_route_has_no_timeouts_where_the_gateway_api_does_not_know_them() -> None:
    older = Cluster(29, frozenset({GATEWAY_API}), route_timeouts=False)
    assert "timeouts" not in build(older, route=HTTP_ROUTE)["HTTPRoute"]["spec"]["rules"][0]


@pytest.mark.parametrize(
    ("route", "address"),
    [
        pytest.param({}, "http://tiny.default.svc/v1", id="inside the cluster"),
        pytest.param(INGRESS, "http://llm.example.com/v1", id="an Ingress"),
        pytest.param(INGRESS | {"tlsSecret": "cert"}, "https://llm.example.com/v1", id="an Ingress with TLS"),
        pytest.param(
            INGRESS | {"hosts": ["*.example.com", "a.example.com"]}, "http://a.example.com/v1", id="the first that is no wildcard"
        ),
        pytest.param(INGRESS | {"hosts": ["*.example.com"]}, None, id="nothing to name among wildcards"),
    ],
)
def test_the_url_is_where_clients_find_the_api(route: dict[str, Any], address: str | None) -> None:
    assert url(make_spec(route=route).route, OWNER) == address

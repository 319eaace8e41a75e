"""Annotations that a route may have."""

import pytest

from alise_operator.children.annotations import annotation_problems
from alise_operator.cluster import Cluster
from alise_operator.errors import InvalidSpec
from tests.operator.builders import GATEWAY_API
from tests.operator.built import HTTP_ROUTE, INGRESS, build

NGINX = "nginx.ingress.kubernetes.io/"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("owner", "anything; {at} all", id="a name without a prefix, which no controller reads"),
        pytest.param(f"{NGINX}proxy-read-timeout", "3600", id="a timeout"),
        pytest.param(f"{NGINX}whitelist-source-range", "10.0.0.0/8,192.168.1.1", id="who may come in"),
        pytest.param("cert-manager.io/cluster-issuer", "letsencrypt", id="who signs the certificate"),
        pytest.param("kubernetes.io/ingress.class", "nginx", id="the class, as it was named before"),
    ],
)
def test_harmless_annotations_are_allowed(name: str, value: str) -> None:
    assert list(annotation_problems({name: value}, ())) == []


@pytest.mark.parametrize(
    "name",
    [
        *(
            f"{NGINX}{name}"
            for name in ("configuration-snippet", "server-snippet", "auth-url", "auth-tls-secret", "mirror-target", "permanent-redirect")
        ),
        "haproxy.org/backend-config-snippet",
        "traefik.ingress.kubernetes.io/router.middlewares",
        "alb.ingress.kubernetes.io/group.name",
        "alise.dev/timeouts-refused-by",
        "cert-manager.io.example.com/x",
    ],
)
def test_what_controllers_run_or_follow_is_refused_with_the_setting_that_allows_it(name: str) -> None:
    (problem,) = annotation_problems({name: "x"}, ())
    assert problem.field == f"spec.route.annotations[{name}]"
    assert "ALISE_ROUTE_ANNOTATIONS_ALLOW" in problem.text
    assert list(annotation_problems({name: "return 200;"}, {name})) == []
    assert list(annotation_problems({name: "return 200;"}, {name.split("/")[0] + "/*"})) == []


@pytest.mark.parametrize("value", ["60; }", "$http_x", "8k\nlocation /", "`id`", "a'b"], ids=repr)
def test_a_harmless_annotation_cannot_carry_a_directive(value: str) -> None:
    (problem,) = annotation_problems({f"{NGINX}proxy-body-size": value}, ())
    assert "can end a directive" in problem.text


@pytest.mark.parametrize("route", [INGRESS, HTTP_ROUTE], ids=["an Ingress", "an HTTPRoute"])
def test_a_route_with_such_an_annotation_is_not_created(route: dict[str, object]) -> None:
    given = route | {"annotations": {f"{NGINX}server-snippet": "return 200;"}}
    with pytest.raises(InvalidSpec, match="server-snippet"):
        build(route=given)
    allowing = Cluster(34, frozenset({GATEWAY_API}), route_annotations=frozenset({f"{NGINX}*"}))
    assert build(allowing, route=given)


def test_a_refused_annotation_says_where_its_name_is_allowed() -> None:
    (problem,) = annotation_problems({f"{NGINX}configuration-snippet": "x"}, ())
    assert problem.text == (
        "this operator does not allow the annotation, because it can inject configuration into the ingress controller; leave it out. "
        "Otherwise ask the operator's administrator to allow it: add the annotation's name to the comma-separated list "
        "ALISE_ROUTE_ANNOTATIONS_ALLOW in the environment of the operator's Deployment (a name there may end with *)"
    )

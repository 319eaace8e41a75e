"""Who has a host: the older of two that claim it at the same entry."""

from typing import Any

import pytest

from alise_operator.hosts import Claim, by_address, claims, taken_by
from tests.operator.built import HTTP_ROUTE, INGRESS, build

OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def ours(kind: str = "Ingress", *, created: str = NEW) -> dict[str, Any]:
    """Our own route as the API server gives it."""
    built = build(route=INGRESS if kind == "Ingress" else HTTP_ROUTE)[kind]
    return built | {"metadata": built["metadata"] | {"creationTimestamp": created}}


def foreign(item: dict[str, Any], *, created: str = OLD, **changes: Any) -> dict[str, Any]:
    """The same object of another user."""
    return item | {"metadata": {"name": "web", "namespace": "shop", "creationTimestamp": created}} | changes


def ingress(*, host: str = "llm.example.com", path: str = "/v1", kind: str = "Prefix", class_name: str = "nginx") -> dict[str, Any]:
    return {"ingressClassName": class_name, "rules": [{"host": host, "http": {"paths": [{"path": path, "pathType": kind}]}}]}


def rival(kind: str, own: dict[str, Any], other: dict[str, Any]) -> Claim | None:
    return taken_by(claims(kind, own), by_address([*claims(kind, own), *claims(kind, other)]))


@pytest.mark.parametrize(
    ("spec", "taken"),
    [
        pytest.param(ingress(), True, id="the same host and path"),
        pytest.param(ingress(path="/v1/"), True, id="the path with a slash"),
        pytest.param(ingress(path="/"), False, id="the whole host, of which our path is a part"),
        pytest.param(ingress(path="/v1/audio"), False, id="a part of our path"),
        pytest.param(ingress(kind="Exact"), False, id="only the path itself"),
        pytest.param(ingress(host="*.example.com"), False, id="a wildcard, which the host goes before"),
        pytest.param(ingress(class_name="internal"), False, id="the host at another controller"),
        pytest.param({"defaultBackend": {}}, False, id="no rules"),
    ],
)
def test_an_older_ingress_takes_the_host_where_it_has_the_path_of_the_api(spec: dict[str, Any], taken: bool) -> None:
    assert (rival("Ingress", ours(), foreign(ours(), spec=spec)) is not None) is taken


def test_the_older_one_keeps_the_host() -> None:
    assert rival("Ingress", ours(created=OLD), foreign(ours(), created=NEW)) is None


def test_of_the_same_age_the_name_decides() -> None:
    assert rival("Ingress", ours(), foreign(ours(), created=NEW)) is None  # default/tiny is before shop/web
    first = foreign(ours(), created=NEW) | {"metadata": {"name": "a", "namespace": "a", "creationTimestamp": NEW}}
    assert rival("Ingress", ours(), first) is not None


def test_the_one_that_has_the_host_is_named_with_its_aliseengine() -> None:
    other = ours(created=OLD)
    other["metadata"] = other["metadata"] | {
        "namespace": "shop",
        "name": "llm",
        "labels": other["metadata"]["labels"] | {"alise.dev/engine": "llm"},
    }
    assert str(rival("Ingress", ours(), other)) == "Ingress shop/llm of AliseEngine shop/llm"
    assert str(rival("Ingress", ours(), foreign(ours()))) == "Ingress shop/web"


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        pytest.param({}, True, id="the same host, path and Gateway"),
        pytest.param({"parentRefs": [{"name": "public", "namespace": "other"}]}, False, id="another Gateway"),
        pytest.param({"rules": [{"matches": [{"path": {"value": "/v1"}, "method": "GET"}]}]}, False, id="requests of one method"),
        pytest.param({"rules": [{"matches": [{"path": {"value": "/chat"}}]}]}, False, id="another path"),
        pytest.param({"rules": []}, False, id="no rules"),
    ],
)
def test_an_older_http_route_takes_the_host(changes: dict[str, Any], taken: bool) -> None:
    own = ours("HTTPRoute")
    assert (rival("HTTPRoute", own, foreign(own, spec=own["spec"] | changes)) is not None) is taken


def test_a_route_that_its_gateway_refuses_has_no_host() -> None:
    own = ours("HTTPRoute")
    parent = {"parentRef": {"name": "public", "namespace": "edge"}, "conditions": [{"type": "Accepted", "status": "False"}]}
    assert rival("HTTPRoute", own, foreign(own, status={"parents": [parent]})) is None


def test_of_three_that_claim_one_host_the_oldest_is_named_and_keeps_it() -> None:
    found = {name: foreign(ours(), created=f"2026-01-0{day}T00:00:00Z") for day, name in enumerate(("a", "b", "c"), start=1)}
    for name, item in found.items():
        item["metadata"]["name"] = name
    addresses = by_address(claim for name in ("c", "a", "b") for claim in claims("Ingress", found[name]))
    rivals = {name: taken_by(claims("Ingress", item), addresses) for name, item in found.items()}
    assert {name: claim and claim.name for name, claim in rivals.items()} == {"a": None, "b": "a", "c": "a"}

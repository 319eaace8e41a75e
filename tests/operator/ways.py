"""Routes, Gateways and what they answer, for tests of RouteReady. `test_route_ready.py` and `test_gateway_answers.py` build them."""

from datetime import UTC, datetime
from typing import Any

from alise_operator.conditions import Condition
from alise_operator.route_ready import Lookup, Way, route_ready
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

"""Routes through whole reconciles: what a Gateway refuses is left out for good, hosts that are taken are found, rights that are missing
stop nothing."""

from typing import Any

import pytest

from alise_operator.apply import OWNED_KINDS
from alise_operator.children.route import TIMEOUTS_REFUSED_BY
from alise_operator.observe_route import CLAIMS_SECONDS, GATEWAY_CLASSES, GATEWAYS, INGRESS_CLASSES, NAMESPACES, RouteObserver
from alise_operator.reconcile import Key
from tests.operator.builders import CURRENT, OWNER, make_spec, raw_spec
from tests.operator.built import build
from tests.operator.world import World

INGRESSES, HTTP_ROUTES = OWNED_KINDS["Ingress"][0], OWNED_KINDS["HTTPRoute"][0]
ROUTE = {"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "public", "namespace": "edge"}}
INGRESS = {"type": "Ingress", "hosts": ["a.b"], "className": "nginx"}


def put_gateway(world: World, *, allowed: dict[str, Any] | None = None, features: list[str] | None = None) -> None:
    rule = {"namespaces": allowed or {"from": "All"}}
    spec = {"gatewayClassName": "plain", "listeners": [{"name": "http", "allowedRoutes": rule}]}
    world.kube.put(GATEWAYS, {"metadata": {"name": "public", "namespace": "edge"}, "spec": spec})
    status = {"supportedFeatures": [{"name": name} for name in features]} if features is not None else {}
    world.kube.put(GATEWAY_CLASSES, {"metadata": {"name": "plain", "namespace": ""}, "spec": {"controllerName": "x/y"}, "status": status})


def put_class(world: World) -> None:
    world.kube.put(INGRESS_CLASSES, {"metadata": {"name": "nginx", "namespace": ""}})


def route(world: World) -> dict[str, Any]:
    return world.kube.objects[("httproutes", "default", "tiny")]


def answer(world: World, *, refuses_timeouts: bool) -> None:
    """As the Gateway's controller answers the route as it is now."""
    refused = refuses_timeouts and "timeouts" in route(world)["spec"]["rules"][0]
    condition = {
        "type": "Accepted",
        "status": "False" if refused else "True",
        "reason": "UnsupportedValue" if refused else "Accepted",
        "message": "timeouts are not supported" if refused else "",
    }
    route(world)["status"] = {"parents": [{"parentRef": ROUTE["parentRef"], "controllerName": "x/y", "conditions": [condition]}]}


async def test_timeouts_that_the_gateway_refuses_are_left_out_and_stay_out(world: World) -> None:
    put_gateway(world)
    world.kube.put_engine(raw_spec(route=ROUTE))
    await world.reconcile()
    assert route(world)["spec"]["rules"][0]["timeouts"]["request"] == "0s"
    for _ in range(4):
        answer(world, refuses_timeouts=True)
        # A new process knows no more than what the cluster says.
        world.restart()
        conditions = await world.reconcile()
    assert "timeouts" not in route(world)["spec"]["rules"][0]
    assert route(world)["metadata"]["annotations"] == {TIMEOUTS_REFUSED_BY: "edge/public"}
    assert conditions["RouteReady"]["status"] == "True"
    assert "removed the route's timeouts because the Gateway refused them" in conditions["RouteReady"]["message"]


@pytest.mark.parametrize(
    ("timeouts", "written"), [("Omit", None), ("Set", {"request": "0s", "backendRequest": "0s"})], ids=["left out", "set"]
)
async def test_timeouts_by_hand_need_no_answer(world: World, timeouts: str, written: dict[str, str] | None) -> None:
    put_gateway(world, features=[])
    world.kube.put_engine(raw_spec(route=ROUTE | {"timeouts": timeouts}))
    await world.reconcile()
    answer(world, refuses_timeouts=True)
    await world.reconcile()
    assert route(world)["spec"]["rules"][0].get("timeouts") == written


async def test_timeouts_that_the_class_does_not_list_are_never_written(world: World) -> None:
    put_gateway(world, features=["HTTPRoute", "HTTPRouteRequestTimeout"])
    world.kube.put_engine(raw_spec(route=ROUTE))
    await world.reconcile()
    assert route(world)["spec"]["rules"][0]["timeouts"] == {"request": "0s"}


async def test_a_route_to_a_gateway_that_does_not_allow_the_namespace_is_not_created_and_the_pods_are(world: World) -> None:
    put_gateway(world, allowed={"from": "Selector", "selector": {"matchLabels": {"team": "ml"}}})
    world.kube.put(NAMESPACES, {"metadata": {"name": "default", "namespace": "", "labels": {"team": "web"}}})
    world.kube.put_engine(raw_spec(route=ROUTE))
    conditions = await world.reconcile()
    assert world.kube.names("httproutes") == []
    assert world.kube.names("deployments") == ["tiny"]
    assert (conditions["RouteReady"]["reason"], conditions["Degraded"]["reason"]) == ("RouteNotAllowed", "RouteNotAllowed")
    assert "spec.route.parentRef: Gateway edge/public does not allow routes of namespace default" in conditions["RouteReady"]["message"]
    assert "url" not in world.status()
    world.kube.put(NAMESPACES, {"metadata": {"name": "default", "namespace": "", "labels": {"team": "ml"}}})
    await world.reconcile()
    assert world.kube.names("httproutes") == ["tiny"]


@pytest.mark.parametrize("forbidden", [{"gateways"}, {"namespaces"}, {"gatewayclasses"}], ids=lambda plurals: min(plurals))
async def test_what_may_not_be_read_refuses_nothing(world: World, forbidden: set[str]) -> None:
    put_gateway(world, allowed={"from": "Selector", "selector": {"matchLabels": {"team": "ml"}}} if "namespaces" in forbidden else None)
    world.kube.forbidden = forbidden
    world.kube.put_engine(raw_spec(route=ROUTE))
    await world.reconcile()
    assert world.kube.names("httproutes") == ["tiny"]


async def test_a_missing_gateway_is_reported_and_its_creation_is_enough(world: World) -> None:
    world.kube.put_engine(raw_spec(route=ROUTE))
    assert (await world.reconcile())["Degraded"]["reason"] == "MissingGateway"
    put_gateway(world)
    await world.reconcile()
    answer(world, refuses_timeouts=False)
    conditions = await world.reconcile()
    assert (conditions["RouteReady"]["status"], conditions["Degraded"]["status"]) == ("True", "False")
    assert world.status()["url"] == "http://a.b/v1"


async def test_a_missing_ingress_class_is_reported_and_its_creation_is_enough(world: World) -> None:
    world.kube.put_engine(raw_spec(route=INGRESS))
    conditions = await world.reconcile()
    assert (conditions["RouteReady"]["reason"], conditions["Degraded"]["reason"]) == ("MissingIngressClass", "MissingIngressClass")
    put_class(world)
    await world.reconcile()
    conditions = await world.reconcile()
    assert (conditions["RouteReady"]["reason"], conditions["Degraded"]["status"]) == ("Applied", "False")


async def test_of_two_resources_with_one_host_the_newer_one_says_that_it_is_taken(world: World) -> None:
    put_class(world)
    world.kube.put_engine(raw_spec(route=INGRESS))
    world.kube.put_engine(raw_spec(route=INGRESS), name="tiny2")
    for _ in range(2):
        await world.reconcile()
        await world.reconciler.reconcile(Key("default", "tiny2"))
        world.seconds += CLAIMS_SECONDS
    older, newer = (
        {one["type"]: one for one in world.kube.objects[("aliseengines", "default", name)]["status"]["conditions"]}
        for name in ("tiny", "tiny2")
    )
    assert older["RouteReady"]["status"] == "True"
    assert (newer["RouteReady"]["reason"], newer["Degraded"]["reason"]) == ("HostTaken", "HostTaken")
    assert "host a.b is already in use: Ingress default/tiny of AliseEngine default/tiny is older" in newer["RouteReady"]["message"]


async def test_routes_of_the_cluster_are_listed_once_for_many_resources(world: World) -> None:
    put_class(world)
    world.kube.put_engine(raw_spec(route=INGRESS))
    await world.reconcile()
    world.kube.lists.clear()
    for _ in range(5):
        await world.reconcile()
    assert sum(plural == "ingresses" for plural, _ in world.kube.lists) <= 1


@pytest.mark.parametrize(("only", "found"), [("", True), ("default", False)], ids=["of all namespaces", "of one namespace"])
async def test_hosts_are_looked_for_where_the_operator_may_look(world: World, only: str, found: bool) -> None:
    put_class(world)
    spec = make_spec(route=INGRESS)
    ours = build(route=INGRESS)["Ingress"]
    world.kube.put(INGRESSES, ours | {"metadata": ours["metadata"] | {"creationTimestamp": "2026-01-02T00:00:00Z"}})
    older = {"name": "web", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z"}
    world.kube.put(INGRESSES, ours | {"metadata": older})
    way = await RouteObserver(world.kube, namespace=only).look(spec, OWNER, CURRENT)
    assert (way.rival is not None) is found

"""When the operator learns which APIs the cluster serves."""

from alise_operator.cluster import Cluster
from alise_operator.discovery import DISCOVERY_SECONDS, MISSING_API_SECONDS
from tests.operator.builders import GATEWAY_API, raw_spec
from tests.operator.world import World

HTTP_ROUTE = {"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}}


async def test_an_api_that_a_spec_needs_is_found_soon_after_it_is_installed(world: World) -> None:
    world.kube.cluster = Cluster(34, frozenset())
    world.kube.put_engine(raw_spec(route=HTTP_ROUTE))
    assert (await world.reconcile())["Ready"]["reason"] == "MissingApi"
    world.kube.cluster = Cluster(34, frozenset({GATEWAY_API}))
    world.seconds += MISSING_API_SECONDS + 1
    assert (await world.reconcile())["Ready"]["reason"] == "Starting"
    assert world.kube.names("httproutes") == ["tiny"]


async def test_an_api_that_no_spec_needs_is_looked_for_once_a_minute(world: World) -> None:
    await world.reconcile()
    world.kube.cluster = Cluster(34, frozenset())
    world.seconds += MISSING_API_SECONDS + 1
    world.kube.put_engine(raw_spec(route=HTTP_ROUTE), generation=2)
    assert (await world.reconcile())["Ready"]["reason"] == "Starting"
    world.seconds += DISCOVERY_SECONDS
    assert (await world.reconcile())["Degraded"]["reason"] == "MissingApi"

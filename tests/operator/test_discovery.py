"""When the operator learns which APIs the cluster serves."""

import asyncio

from alise_operator.allowed import RESTRICTED
from alise_operator.cluster import Cluster, Images
from alise_operator.discovery import DISCOVERY_SECONDS, MISSING_API_SECONDS, Discovery
from alise_operator.errors import ClusterError
from tests.operator.builders import GATEWAY_API, raw_spec
from tests.operator.fake_kube import FakeKube
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


class CountingKube(FakeKube):
    """The first discovery fails; each lets the other workers ask meanwhile."""

    discoveries = 0

    async def discover(self, images: Images) -> Cluster:
        self.discoveries += 1
        self.away = self.discoveries == 1
        await asyncio.sleep(0)
        return await super().discover(images)


async def test_workers_that_look_at_the_same_time_share_one_discovery() -> None:
    kube = CountingKube()
    discovery = Discovery(kube, Images(), allowed=RESTRICTED, route_annotations=frozenset(), keda=None, namespace="", monotonic=lambda: 0.0)
    failed = await asyncio.gather(*(discovery.cluster() for _ in range(6)), return_exceptions=True)
    assert ({type(one) for one in failed}, kube.discoveries) == ({ClusterError}, 1)
    found = await asyncio.gather(*(discovery.cluster() for _ in range(6)))
    assert (found, kube.discoveries) == ([discovery.known] * 6, 2)

"""An AliseEngine at rest between a reconciler and a cluster that notes what is read. `test_reads.py` and `test_own_status.py` use it."""

from collections.abc import Callable, Sequence
from typing import Any

from alise_operator.children.meta import Manifest
from alise_operator.cluster import Cluster
from alise_operator.kube import Resource
from alise_operator.observe import SECRETS
from alise_operator.observe_route import INGRESS_CLASSES
from alise_operator.reconcile import ENGINES
from tests.operator.builders import CURRENT, raw_spec
from tests.operator.fake_kube import FakeKube
from tests.operator.world import KEY, World

DEPLOYMENTS = Resource("apps/v1", "deployments")
INGRESSES = Resource("networking.k8s.io/v1", "ingresses")


class CountingKube(FakeKube):
    """Notes which AliseEngines are read."""

    def __init__(self, cluster: Cluster = CURRENT) -> None:
        super().__init__(cluster)
        self.gets: list[str] = []
        self.while_reading: Callable[[], None] = lambda: None
        self.before_write: Callable[[], None] = lambda: None
        self.before_answer: Callable[[], None] = lambda: None

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        self.gets.append(resource.plural)
        found = await super().get(resource, namespace, name)
        if resource.plural == ENGINES.plural:
            self.while_reading()
        return found

    async def patch_status(self, resource: Resource, namespace: str, name: str, status: Manifest) -> Manifest:
        self.before_write()
        answer = await super().patch_status(resource, namespace, name, status)
        self.before_answer()
        return answer

    async def list(
        self, resource: Resource, namespace: str, *, labels: str = "", fields: str = "", slim: bool = False
    ) -> Sequence[Manifest]:
        self.gets.append(resource.plural)
        return await super().list(resource, namespace, labels=labels, fields=fields, slim=slim)


def kube_of(world: World) -> CountingKube:
    assert isinstance(world.kube, CountingKube)
    return world.kube


def edited(**changes: Any) -> dict[str, Any]:
    """The spec of an AliseEngine with a route and a certificate."""
    return raw_spec(route={"type": "Ingress", "hosts": ["a.test"], "className": "nginx", "tlsSecret": "cert"}, **changes)


async def at_rest(kube: CountingKube | None = None, **spec: Any) -> World:
    """An AliseEngine whose children are applied, which has been read since, and the lists that say so."""
    world = World(kube=kube or CountingKube())
    world.kube.put(INGRESS_CLASSES, {"metadata": {"name": "nginx", "namespace": ""}})
    world.kube.put(SECRETS, {"metadata": {"name": "cert"}})
    world.kube.put_engine(edited(**spec))
    await world.reconciler.verify()
    await world.reconciler.all_keys()
    # The first one creates the children, which the watch shows; the second one reads them, and the last one looks at what no watch reports.
    await world.reconcile()
    world.reconciler.changed(KEY)
    for _ in range(2):
        await world.reconcile()
    kube_of(world).gets.clear()
    return world


async def reads(world: World) -> list[str]:
    kube_of(world).gets.clear()
    await world.reconcile()
    return kube_of(world).gets


def void(_: object) -> None:
    return None

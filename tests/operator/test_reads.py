"""An AliseEngine at rest is not read again at each round, and each kind of change ends the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from alise_operator.children.meta import Manifest
from alise_operator.cluster import Cluster
from alise_operator.discovery import DISCOVERY_SECONDS
from alise_operator.errors import ClusterError
from alise_operator.kube import Resource
from alise_operator.observe import SECRETS
from alise_operator.observe_route import CLAIMS_SECONDS, INGRESS_CLASSES, SECRET_SECONDS, RouteObserver
from alise_operator.reads import MAX_AGE_SECONDS, VERIFY_SECONDS
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

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        self.gets.append(resource.plural)
        found = await super().get(resource, namespace, name)
        if resource.plural == ENGINES.plural:
            self.while_reading()
        return found

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
    # Two of them write the status, the third one reads what they wrote, and the last one looks at what no watch reports.
    for _ in range(4):
        await world.reconcile()
    kube_of(world).gets.clear()
    return world


async def reads(world: World) -> list[str]:
    kube_of(world).gets.clear()
    await world.reconcile()
    return kube_of(world).gets


async def test_an_engine_at_rest_is_not_read_again() -> None:
    world = await at_rest()
    assert await reads(world) == []


async def test_without_the_lists_of_children_everything_is_read() -> None:
    world = await at_rest()
    world.seconds += 2 * VERIFY_SECONDS + 1
    assert ENGINES.plural in await reads(world)


async def test_nothing_is_remembered_for_ever() -> None:
    world = await at_rest()
    while world.seconds <= MAX_AGE_SECONDS:
        world.seconds += VERIFY_SECONDS
        await world.reconciler.verify()
    assert ENGINES.plural in await reads(world)


def edit_engine(world: World) -> None:
    world.kube.put_engine(raw_spec(replicas=2), generation=2)


def touch(resource: Resource) -> Callable[[World], None]:
    return lambda world: void(world.kube.put(resource, world.kube.objects[(resource.plural, "default", "tiny")]))


def void(_: object) -> None:
    return None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda world: world.reconciler.changed(KEY), id="a watch reported a change of it or of a pod"),
        pytest.param(lambda world: world.reconciler.missed(), id="a watch may have missed changes"),
        pytest.param(edit_engine, id="the list of AliseEngines shows another version"),
        pytest.param(touch(DEPLOYMENTS), id="the list of children shows another version of its Deployment"),
        pytest.param(touch(INGRESSES), id="the list of children shows another version of its route"),
        pytest.param(lambda world: void(world.kube.objects.pop(("ingresses", "default", "tiny"))), id="a child is gone"),
    ],
)
async def test_a_change_is_read(change: Callable[[World], None]) -> None:
    world = await at_rest()
    change(world)
    world.seconds += VERIFY_SECONDS
    await world.reconciler.verify()
    await world.reconciler.all_keys()
    assert ENGINES.plural in await reads(world)


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        pytest.param(lambda world: world.kube.objects.pop(("ingressclasses", "", "nginx")), CLAIMS_SECONDS, id="its Ingress class is gone"),
        pytest.param(lambda world: world.kube.objects.pop(("secrets", "default", "cert")), SECRET_SECONDS, id="its certificate is gone"),
        pytest.param(lambda world: setattr(world.kube, "cluster", Cluster(33, frozenset())), DISCOVERY_SECONDS, id="an API is gone"),
    ],
)
async def test_what_no_watch_reports_is_looked_at(change: Callable[[World], Any], seconds: float) -> None:
    world = await at_rest()
    await world.reconcile()
    change(world)
    world.seconds += seconds + 1
    assert ENGINES.plural in await reads(world)


async def test_a_failure_of_the_server_is_reported_although_the_engine_is_at_rest() -> None:
    class Failing(CountingKube):
        async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
            if resource == INGRESS_CLASSES and self.failing:
                raise ClusterError("conversion webhook failed", status=500)
            return await super().get(resource, namespace, name)

    world = await at_rest(Failing())
    world.kube.failing["ingressclasses"] = 500
    world.seconds += CLAIMS_SECONDS + 1
    assert (await world.reconcile())["Degraded"]["reason"] == "ClusterUnavailable"


async def test_the_engine_is_read_again_after_its_status_was_written() -> None:
    world = await at_rest()
    world.set_ready(1)
    world.reconciler.changed(KEY)
    written = len(world.kube.status_patches)
    assert (await world.reconcile())["Ready"]["status"] == "True"
    assert len(world.kube.status_patches) == written + 1
    assert ENGINES.plural in await reads(world)


async def test_a_route_that_was_not_there_when_it_was_read_is_found_by_the_list_of_children() -> None:
    world = World(kube=CountingKube())
    world.kube.put(INGRESS_CLASSES, {"metadata": {"name": "nginx", "namespace": ""}})
    world.kube.put(SECRETS, {"metadata": {"name": "cert"}})
    world.kube.put_engine(edited())
    await world.reconciler.verify()
    for _ in range(2):
        await world.reconcile()
    route = world.kube.objects.pop(("ingresses", "default", "tiny"))
    world.reconciler.changed(KEY)
    for _ in range(3):
        await world.reconcile()
    assert await reads(world) == []
    world.kube.put(INGRESSES, route)
    world.seconds += VERIFY_SECONDS
    await world.reconciler.verify()
    assert ENGINES.plural in await reads(world)


async def test_what_changes_while_it_is_read_is_read_again() -> None:
    world = await at_rest()
    kube_of(world).while_reading = lambda: world.reconciler.changed(KEY)
    world.reconciler.changed(KEY)
    await world.reconcile()
    kube_of(world).while_reading = lambda: None
    assert ENGINES.plural in await reads(world)


async def test_that_a_certificate_exists_is_remembered_and_its_private_key_is_not() -> None:
    kube = CountingKube()
    kube.put(SECRETS, {"metadata": {"name": "cert"}, "data": {"tls.key": "private"}})
    observer = RouteObserver(kube, monotonic=lambda: 0.0)
    for name, exists in (("cert", True), ("none", False)):
        assert [await observer.has_secret("default", name) for _ in range(2)] == [exists, exists]
    assert kube.gets == [SECRETS.plural, SECRETS.plural]
    assert "private" not in str(observer._lookups)


async def test_a_missing_secret_is_looked_for_at_each_round() -> None:
    world = await at_rest()
    del world.kube.objects[("secrets", "default", "cert")]
    world.reconciler.changed(KEY)
    await world.reconcile()
    assert SECRETS.plural in await reads(world)


async def test_an_edited_child_is_applied_again_by_the_list_of_children() -> None:
    world = await at_rest()
    service = world.kube.objects[("services", "default", "tiny")]
    world.kube.put(Resource("v1", "services"), service | {"spec": {"ports": []}})
    world.seconds += VERIFY_SECONDS
    await world.reconciler.verify()
    world.reconciler.changed(KEY)
    await world.reconcile()
    assert world.kube.objects[("services", "default", "tiny")]["spec"]["ports"]


async def test_children_that_are_as_they_were_are_not_applied_again() -> None:
    world = await at_rest()
    written = len(world.kube.writes)
    for _ in range(10):
        world.seconds += VERIFY_SECONDS
        await world.reconciler.verify()
        world.reconciler.changed(KEY)
        await world.reconcile()
    assert len(world.kube.writes) == written


async def test_a_child_that_is_as_it_was_read_needs_no_reconcile() -> None:
    world = await at_rest()
    deployment = world.deployment() | {"kind": "Deployment"}
    assert not world.reconciler.child_changed("Deployment", deployment, deleted=False)
    newer = world.kube.put(DEPLOYMENTS, deployment | {"status": {"readyReplicas": 1}})
    assert world.reconciler.child_changed("Deployment", newer, deleted=False)


async def test_no_children_are_searched_for_where_there_can_be_none() -> None:
    world = World(kube=CountingKube())
    await world.reconciler.all_keys()
    world.kube.put_engine(raw_spec())
    assert "networkpolicies" not in await reads(world)
    assert world.kube.names("networkpolicies") == ["tiny"]


async def test_an_older_engine_may_have_children() -> None:
    world = World(kube=CountingKube())
    world.kube.put_engine(raw_spec())
    await world.reconciler.all_keys()
    assert "networkpolicies" in await reads(world)


async def test_an_edit_writes_only_the_children_that_differ() -> None:
    world = await at_rest()
    world.kube.writes.clear()
    world.kube.put_engine(edited(drainSeconds=77), generation=2)
    world.reconciler.changed(KEY)
    assert "networkpolicies" not in await reads(world)
    assert world.kube.writes == [("apply", "deployments", "tiny")]


async def test_a_child_that_an_edit_no_longer_wants_is_found_and_deleted() -> None:
    world = await at_rest()
    world.kube.put_engine(raw_spec(), generation=2)
    world.reconciler.changed(KEY)
    await world.reconcile()
    assert world.kube.names("ingresses") == []


async def test_an_edit_restores_a_child_that_was_deleted_meanwhile() -> None:
    world = await at_rest()
    service = world.kube.objects.pop(("services", "default", "tiny"))
    world.reconciler.child_changed("Service", service, deleted=True)
    world.kube.put_engine(edited(drainSeconds=77), generation=2)
    world.reconciler.changed(KEY)
    await world.reconcile()
    assert world.kube.names("services") == ["tiny"]

"""An AliseEngine at rest is not read again at each round, and each kind of change ends the rest."""

from collections.abc import Callable
from typing import Any

import pytest

from alise_operator.app import App
from alise_operator.children.meta import Manifest
from alise_operator.cluster import Cluster
from alise_operator.discovery import DISCOVERY_SECONDS
from alise_operator.errors import ClusterError
from alise_operator.kube import Resource
from alise_operator.observe import SECRETS
from alise_operator.observe_route import CLAIMS_SECONDS, INGRESS_CLASSES, SECRET_SECONDS, RouteObserver
from alise_operator.pods import PODS
from alise_operator.reads import MAX_AGE_SECONDS, VERIFY_SECONDS, Need
from alise_operator.reconcile import ENGINES
from tests.operator.builders import raw_spec
from tests.operator.resting import DEPLOYMENTS, INGRESSES, CountingKube, at_rest, edited, kube_of, reads, void
from tests.operator.world import KEY, World


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
    for _ in range(2):
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
    assert world.reconciler.child_changed("Deployment", newer, deleted=False) is Need.READ
    world.reconciler.changed(KEY)
    assert ENGINES.plural in await reads(world)


def reported(world: World, **status: object) -> Manifest:
    """The Deployment as its controller reports on it."""
    return world.kube.put(DEPLOYMENTS, world.deployment() | {"kind": "Deployment", "status": world.deployment()["status"] | status})


async def test_what_the_deployments_controller_reports_is_taken_from_the_event_and_nothing_is_read() -> None:
    world = await at_rest()
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: small"}
    for status, degraded in (({"conditions": [refused]}, "PodsRefused"), ({"conditions": [], "observedGeneration": 1}, "AsExpected")):
        need = world.reconciler.child_changed("Deployment", newest := reported(world, **status), deleted=False)
        assert need is Need.LOOK
        assert await reads(world) == []
        assert {one["type"]: one["reason"] for one in world.status()["conditions"]}["Degraded"] == degraded
        assert world.reconciler.child_changed("Deployment", newest, deleted=False) is Need.NOTHING
    world.seconds += VERIFY_SECONDS
    await world.reconciler.verify()
    assert set(await reads(world)).isdisjoint({ENGINES.plural, PODS.plural})


@pytest.mark.parametrize("field", ["replicas", "updatedReplicas", "readyReplicas"])
async def test_pods_are_read_again_when_the_deployment_counts_other_ones(field: str) -> None:
    world = await at_rest()
    assert world.reconciler.child_changed("Deployment", reported(world, **{field: 3}), deleted=False) is Need.READ


async def test_an_older_report_of_the_deployments_controller_and_one_of_an_edited_deployment_are_not_taken() -> None:
    world = await at_rest()
    older = reported(world, conditions=[])
    older["metadata"]["resourceVersion"] = "1"
    assert world.reconciler.child_changed("Deployment", older, deleted=False) is Need.READ
    edited_too = world.kube.put(DEPLOYMENTS, reported(world) | {"spec": world.deployment()["spec"] | {"paused": True}})
    assert world.reconciler.child_changed("Deployment", edited_too, deleted=False) is Need.READ


async def test_a_report_of_the_deployments_controller_while_everything_is_read_is_read() -> None:
    world, needs = await at_rest(), list[Need]()
    kube_of(world).while_reading = lambda: needs.append(
        world.reconciler.child_changed("Deployment", reported(world, conditions=[]), deleted=False)
    )
    world.reconciler.changed(KEY)
    await world.reconcile()
    assert needs == [Need.READ]


async def test_a_report_of_the_deployments_controller_while_a_status_is_written_without_reading_is_read() -> None:
    world, needs = await at_rest(), list[Need]()
    report = reported(world, conditions=[{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}])
    kube_of(world).before_answer = lambda: needs.append(
        world.reconciler.child_changed("Deployment", reported(world, conditions=[]), deleted=False)
    )
    assert world.reconciler.child_changed("Deployment", report, deleted=False) is Need.LOOK
    assert await reads(world) == []
    assert needs == [Need.READ]


async def test_a_look_reads_nothing_and_a_need_to_read_forgets_what_was_read() -> None:
    world = await at_rest()
    app = App(world.reconciler, resync_seconds=3600.0)
    app.needs(KEY, Need.NOTHING)
    assert app.queue.waiting == 0
    app.needs(KEY, Need.LOOK)
    assert app.queue.waiting == 1
    assert await reads(world) == []
    app.needs(KEY, Need.READ)
    assert ENGINES.plural in await reads(world)


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

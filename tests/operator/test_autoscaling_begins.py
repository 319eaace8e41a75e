"""A resource gets autoscaling in place of replicas, so that the API server sets the default of 1: no pod that serves is stopped by that."""

from typing import Any

import pytest

from alise_operator.errors import ApplyError, ClusterError
from tests.operator.builders import raw_spec
from tests.operator.built import INGRESS
from tests.operator.world import World

SCALING = {"minReplicas": 1, "maxReplicas": 4}


def deployed(world: World) -> int:
    return int(world.deployment()["spec"]["replicas"])


def requested(world: World) -> int:
    return int(world.kube.objects[("aliseengines", "default", "tiny")]["spec"]["replicas"])


async def three_serve(world: World) -> None:
    """Three pods serve, and then a manifest has autoscaling in place of replicas."""
    world.kube.put_engine(raw_spec(replicas=3, route=INGRESS))
    await world.reconcile()
    world.set_ready(3)
    await world.reconcile()
    assert world.status()["readyReplicas"] == 3
    apply(world)


def apply(world: World, **changes: Any) -> None:
    world.kube.put_engine(raw_spec(replicas=1, route=INGRESS, autoscaling=SCALING) | changes, generation=2)


async def test_the_pods_stay_and_the_resource_gets_their_number(world: World) -> None:
    await three_serve(world)
    await world.reconcile()
    assert (deployed(world), requested(world)) == (3, 3)


@pytest.mark.parametrize("error", [ApplyError("forbidden"), ClusterError("the API server did not answer")], ids=["refused", "no answer"])
async def test_they_stay_where_the_number_cannot_be_set_at_first(world: World, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    await three_serve(world)

    async def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(world.kube, "scale", fail)
        for _ in range(2):
            assert (await world.reconcile())["AutoscalingActive"]["reason"] == "ScaleFailed"
            assert (deployed(world), requested(world)) == (3, 1)
    await world.reconcile()
    assert (deployed(world), requested(world)) == (3, 3)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"autoscaling": SCALING | {"minReplicas": 5}}, id="a rule is broken"),
        pytest.param({"autoscaling": SCALING | {"minReplicas": "one"}}, id="it cannot be read"),
    ],
)
async def test_they_stay_while_the_spec_has_a_mistake_and_after_it_is_corrected(world: World, changes: dict[str, Any]) -> None:
    await three_serve(world)
    apply(world, **changes)
    assert (await world.reconcile())["Degraded"]["reason"] == "InvalidSpec"
    assert deployed(world) == 3
    apply(world)
    await world.reconcile()
    assert (deployed(world), requested(world)) == (3, 3)


async def test_they_stay_where_the_cluster_refuses_a_child(world: World) -> None:
    await three_serve(world)
    world.kube.refused["services"] = "exceeded quota"
    await world.reconcile()
    assert deployed(world) == 3


async def test_they_stay_where_the_server_fails_before_any_child_is_built(world: World) -> None:
    await three_serve(world)
    world.kube.failing["ingresses"] = 500
    await world.reconcile()
    assert deployed(world) == 3


async def test_none_of_them_is_marked_as_one_that_leaves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await three_serve(world)
    marked: list[int] = []

    async def note(*given: Any) -> None:
        marked.append(given[-1])

    monkeypatch.setattr("alise_operator.reconcile.mark_leaving", note)
    world.restart()
    await world.reconcile()
    assert marked == [3]

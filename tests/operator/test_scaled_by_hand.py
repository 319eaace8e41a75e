"""What happens to children that another writer scales, against an API server in memory."""

from typing import Any

from alise_operator.apply import OWNED_KINDS
from tests.operator.builders import raw_spec
from tests.operator.world import World

DEPLOYMENTS = OWNED_KINDS["Deployment"][0]


def scaled(world: World, replicas: int, *, generation: int) -> dict[str, Any]:
    """The Deployment as a watch shows it after another writer has scaled it."""
    before = world.deployment()
    changed = {"metadata": before["metadata"] | {"generation": generation}, "spec": before["spec"] | {"replicas": replicas}}
    return world.kube.put(DEPLOYMENTS, before | changed, writer="kubectl")


async def test_a_deployment_scaled_by_hand_is_set_back_and_an_event_names_the_right_way(world: World) -> None:
    await world.reconcile()
    world.reconciler.child_changed("Deployment", scaled(world, 3, generation=1), deleted=False)
    await world.reconcile()
    assert world.deployment()["spec"]["replicas"] == 1
    (event,) = [one for (plural, _, _), one in world.kube.objects.items() if plural == "events" and one["reason"] == "ReplicasReset"]
    assert event["type"] == "Warning"
    assert "Deployment tiny was scaled to 3 by kubectl and has been reset to 1" in event["message"]
    assert "kubectl scale alise tiny -n default --replicas=3" in event["message"]


async def test_an_autoscaler_of_the_deployment_causes_an_event_now_and_then(world: World) -> None:
    await world.reconcile()
    for round_ in range(1, 41):
        world.seconds += 15
        world.reconciler.child_changed("Deployment", scaled(world, 3, generation=2 * round_), deleted=False)
        await world.reconcile()
    # 600 seconds: at the first, and after each 300.
    assert world.events().count(("Warning", "ReplicasReset")) == 2


async def test_replicas_of_the_resource_itself_are_no_news(world: World) -> None:
    await world.reconcile()
    world.kube.put_engine(raw_spec(replicas=3), generation=2)
    world.reconciler.child_changed("Deployment", scaled(world, 3, generation=1), deleted=False)
    await world.reconcile()
    assert ("Warning", "ReplicasReset") not in world.events()


async def test_a_picker_that_is_scaled_by_hand_is_set_back_and_no_event_tells_to_scale_the_model(world: World) -> None:
    world.kube.put_engine(raw_spec(routing={"endpointPicker": {}}), generation=2)
    await world.reconcile()
    picker = world.kube.objects["deployments", "default", "tiny-picker"]
    changed = picker | {"metadata": picker["metadata"] | {"generation": 9}, "spec": picker["spec"] | {"replicas": 5}}
    world.reconciler.child_changed("Deployment", world.kube.put(DEPLOYMENTS, changed, writer="kubectl"), deleted=False)
    await world.reconcile()
    assert world.kube.objects["deployments", "default", "tiny-picker"]["spec"]["replicas"] == 1
    assert ("Warning", "ReplicasReset") not in world.events()

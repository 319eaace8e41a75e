"""An endpoint picker that does not work is in Degraded, with the cause and what to do, until it works again."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alise_operator.apply import OWNED_KINDS
from alise_operator.observation import Trouble
from alise_operator.picker_ready import REASON, START_SECONDS, unavailable
from alise_operator.pods import PODS, REPLICA_SETS, view
from tests.operator.builders import OWNER, container, deployment_object, pod_object, raw_spec, set_object
from tests.operator.world import World

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
WAITING = {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}
UNAVAILABLE = {"type": "Available", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}
LABELS = {"alise.dev/picker": "tiny"}


def picker_deployment(**status: Any) -> dict[str, Any]:
    found = deployment_object(**status)
    return found | {"metadata": found["metadata"] | {"name": "tiny-picker", "labels": LABELS}}


def picker_pod(state: dict[str, Any], message: str = "") -> dict[str, Any]:
    found = pod_object(containers=[container(state, name="picker")])
    return found | {"metadata": found["metadata"] | {"name": "tiny-picker-1", "labels": LABELS}}


def trouble(deployment: dict[str, Any], *pods: dict[str, Any], seconds: float = 0.0) -> Trouble | None:
    return unavailable(deployment, map(view, pods), OWNER, CREATED + timedelta(seconds=seconds))


def test_a_picker_that_has_just_been_created_may_still_be_starting() -> None:
    deployment = picker_deployment(conditions=[UNAVAILABLE])
    assert trouble(deployment, picker_pod({"running": {}}), seconds=START_SECONDS - 1) is None


@pytest.mark.parametrize(
    ("deployment", "pods", "seconds", "said"),
    [
        pytest.param(picker_deployment(conditions=[UNAVAILABLE]), [], START_SECONDS, "has no ready pod; until it has one", id="too long"),
        pytest.param(
            picker_deployment(),
            [picker_pod(WAITING)],
            0.0,
            "has no ready pod: container picker of pod tiny-picker-1: image 'reg/engine:1': ImagePullBackOff: not found; until it has one",
            id="no image",
        ),
        pytest.param(
            picker_deployment(conditions=[{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: small"}]),
            [],
            0.0,
            "exceeded quota: small",
            id="a quota",
        ),
    ],
)
def test_a_picker_without_a_ready_pod_is_a_trouble_with_its_cause_and_what_it_means(
    deployment: dict[str, Any], pods: list[dict[str, Any]], seconds: float, said: str
) -> None:
    found = trouble(deployment, *pods, seconds=seconds)
    assert found is not None
    assert (found.reason, found.message.partition(" has")[0]) == (REASON, "the endpoint picker tiny-picker")
    assert said in found.message
    assert "gateways balance without predictions" in found.message
    assert "kubectl describe pods -n default -l alise.dev/picker=tiny" in found.message


def test_advice_about_fields_of_the_engine_is_left_out() -> None:
    refusal = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient cpu.",
    }
    pod = pod_object(conditions=[refusal]) | {"spec": {"containers": [{"name": "picker", "resources": {"requests": {"cpu": "100m"}}}]}}
    found = trouble(picker_deployment(), pod)
    assert found is not None
    assert "Insufficient cpu" in found.message
    assert "spec.engine" not in found.message


async def test_degraded_names_the_picker_until_it_is_ready_again() -> None:
    world = World()
    world.kube.put_engine(raw_spec(routing={"endpointPicker": {}}))
    await world.reconcile()
    applied = world.kube.objects[("deployments", "default", "tiny-picker")]
    sets = set_object()
    sets["metadata"] |= {
        "name": "tiny-picker-set",
        "labels": LABELS,
        "ownerReferences": [{"uid": applied["metadata"]["uid"], "controller": True}],
    }
    world.kube.put(REPLICA_SETS, sets)
    world.kube.put(PODS, picker_pod(WAITING))
    degraded = (await world.reconcile())["Degraded"]
    assert (degraded["status"], degraded["reason"]) == ("True", REASON)
    assert "ImagePullBackOff" in degraded["message"]
    world.kube.objects[("deployments", "default", "tiny-picker")]["status"] = {"replicas": 1, "readyReplicas": 1}
    assert (await world.reconcile())["Degraded"]["status"] == "False"


async def test_a_resource_without_a_picker_is_not_asked_about_one() -> None:
    world = World()
    world.kube.put_engine(raw_spec())
    world.kube.put(OWNED_KINDS["Deployment"][0], picker_deployment())
    assert (await world.reconcile())["Degraded"]["status"] == "False"

"""Which pods a scale-down removes, and what is written for it."""

import pytest

from alise_operator.apply import OWNED_KINDS
from alise_operator.children.meta import DELETION_COST_ANNOTATION
from alise_operator.leaving import LEAVES, deletion_costs, mark_leaving
from alise_operator.observation import Pod
from alise_operator.pods import PODS, REPLICA_SETS
from alise_operator.poller import Poller
from alise_operator.predicted_work import Work
from tests.operator.builders import OWNER, deployment_object, make_pod, make_report, pod_object, set_object
from tests.operator.fake_kube import FakeKube


def pod(name: str, backlog: float | None = 0.0, **changes: object) -> Pod:
    work = None if backlog is None else Work(backlog)
    return make_pod(name=name, report=make_report(work=work), **changes)


@pytest.mark.parametrize(
    ("pods", "replicas", "costs"),
    [
        pytest.param([pod("a", 5), pod("b", 1), pod("c", 9)], 2, {"b": LEAVES}, id="the least predicted work"),
        pytest.param([pod("a", 5), pod("b", 1), pod("c", 9)], 1, {"a": LEAVES, "b": LEAVES}, id="two"),
        pytest.param([pod("a", 5), pod("b", None)], 1, {"a": LEAVES}, id="a pod whose work is not known stays"),
        pytest.param([pod("a", 5), pod("b", 1, ready=False)], 1, {}, id="a pod that is not ready leaves by itself"),
        pytest.param([pod("a", 5), pod("b", 1, terminating=True)], 1, {}, id="a pod that leaves already"),
        pytest.param([pod("a", 5, deletion_cost=LEAVES), pod("b", 9)], 1, {}, id="a mark that is still right"),
        pytest.param([pod("a", 9, deletion_cost=LEAVES), pod("b", 5)], 1, {"b": LEAVES, "a": None}, id="a mark of another pod"),
        pytest.param([pod("a", 9, deletion_cost="100"), pod("b", 5)], 1, {"b": LEAVES}, id="a cost that a user set"),
        pytest.param([pod("a"), pod("b")], 1, {"a": LEAVES}, id="equal work: by name"),
        pytest.param([pod("a"), pod("b")], 3, {}, id="more pods"),
        pytest.param([], 1, {}, id="no pods"),
    ],
)
def test_the_marks_that_change(pods: list[Pod], replicas: int, costs: dict[str, str | None]) -> None:
    assert deletion_costs(pods, replicas) == costs


def cluster(*names: str) -> FakeKube:
    kube = FakeKube()
    kube.put(OWNED_KINDS["Deployment"][0], deployment_object())
    kube.put(REPLICA_SETS, set_object())
    for name in names:
        one = pod_object(ready=True)
        kube.put(PODS, one | {"metadata": one["metadata"] | {"name": name, "uid": f"uid-{name}"}, "status": one["status"] | {"podIP": ""}})
    return kube


async def test_the_annotation_is_written_once_and_only_for_fewer_replicas() -> None:
    kube = cluster("a", "b", "c")
    async with Poller() as poller:
        await mark_leaving(kube, poller, OWNER, 3)
        assert kube.writes == []
        await mark_leaving(kube, poller, OWNER, 2)
        await mark_leaving(kube, poller, OWNER, 2)
    assert kube.writes == [("patch", "pods", "a")]
    assert kube.objects[("pods", "default", "a")]["metadata"]["annotations"] == {DELETION_COST_ANNOTATION: "-1"}


async def test_a_scale_down_goes_on_where_pods_may_not_be_written() -> None:
    kube = cluster("a", "b", "c")
    kube.refused["pods"] = "pods is forbidden"
    async with Poller() as poller:
        await mark_leaving(kube, poller, OWNER, 1)
    assert kube.writes == []


async def test_without_a_deployment_there_is_nothing_to_mark() -> None:
    kube = FakeKube()
    async with Poller() as poller:
        await mark_leaving(kube, poller, OWNER, 1)
    assert kube.writes == []

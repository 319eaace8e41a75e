"""What the autoscaler does to the cluster and says about it, in memory and on a clock that the test moves."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alise_operator import metrics
from alise_operator.autoscaler import Autoscaler
from alise_operator.conditions import Condition
from alise_operator.demand import Demands
from alise_operator.errors import ApplyError
from alise_operator.observation import Observation
from alise_operator.predicted_work import Work
from alise_operator.reconcile import ENGINES
from alise_operator.spec import parse
from tests.operator.builders import OWNER, make_pod, make_report, raw_spec
from tests.operator.fake_kube import FakeKube

SCALING = {"minReplicas": 1, "maxReplicas": 4, "scaleDown": {"stabilizationSeconds": 60}}


@dataclass
class Scene:
    """A resource in memory, and its autoscaler."""

    kube: FakeKube = field(default_factory=FakeKube)
    seconds: float = 0.0
    autoscaler: Autoscaler = field(init=False)
    demands: Demands = field(init=False)
    before: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.restart()
        self.set_spec()

    def restart(self) -> None:
        start = datetime(2026, 1, 1, tzinfo=UTC)
        self.demands = Demands(lambda: self.seconds)
        self.autoscaler = Autoscaler(
            self.kube,
            demands=self.demands,
            now=lambda: start + timedelta(seconds=self.seconds),
            monotonic=lambda: self.seconds,
        )

    def set_spec(self, **changes: Any) -> None:
        self.kube.put_engine(raw_spec(replicas=1, autoscaling=SCALING) | changes)

    @property
    def resource(self) -> dict[str, Any]:
        return self.kube.objects[(ENGINES.plural, "default", "tiny")]

    @property
    def replicas(self) -> int:
        return int(self.resource["spec"]["replicas"])

    async def look(self, *works: Work | None, valid: bool = True, by_keda: bool = False, at_first: int = 0) -> Condition | None:
        """One reconcile with ready pods that have this work."""
        pods = tuple(make_pod(name=f"p{n}", uid=f"u{n}", report=make_report(work=work)) for n, work in enumerate(works))
        spec = parse(self.resource["spec"]) if valid else None
        found = await self.autoscaler.follow(
            self.resource, spec, OWNER, Observation(None, pods), self.before, by_keda=by_keda, at_first=at_first
        )
        self.before = None if found is None else {"type": found.type, "status": found.status, "message": found.message}
        self.seconds += 15
        return found

    def events(self) -> list[tuple[str, str, str]]:
        found = [one for (plural, _, _), one in self.kube.objects.items() if plural == "events"]
        return [(one["type"], one["reason"], one["message"]) for one in found]


BUSY, IDLE = Work(30.0, 2.0), Work(0.0, 0.1)


async def test_work_for_three_pods_sets_the_replicas_of_the_resource_and_says_why() -> None:
    scene = Scene()
    condition = await scene.look(BUSY)
    assert scene.replicas == 3
    assert scene.kube.writes == [("scale", "aliseengines", "tiny")]
    why = "arriving requests keep 2.0 pods busy, and the backlog is 30 s of one pod, for a target of 60 s"
    assert scene.events() == [("Normal", "ScaledUp", f"from 1 to 3 replicas: {why}")]
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "PodsStarting")
    assert condition.message.endswith(f"; last step: from 1 to 3 at 00:00:00 UTC, because {why}")


@pytest.mark.parametrize("by_keda", [False, True])
async def test_autoscaling_begins_with_the_pods_that_serve(by_keda: bool) -> None:
    scene = Scene()
    await scene.look(IDLE, IDLE, IDLE, by_keda=by_keda, at_first=3)
    assert scene.replicas == 3
    assert scene.events() == [("Normal", "ScaledUp", "from 1 to 3 replicas: autoscaling begins with the 3 pods that serve requests")]
    for _ in range(3):
        await scene.look(IDLE, IDLE, IDLE, by_keda=by_keda, at_first=1)
    assert scene.replicas == 3


@pytest.mark.parametrize("by_keda", [False, True])
async def test_a_number_that_cannot_be_set_at_first_is_in_the_condition(monkeypatch: pytest.MonkeyPatch, by_keda: bool) -> None:
    scene = Scene()

    async def fail(*_: object) -> None:
        raise ApplyError("forbidden")

    monkeypatch.setattr(scene.kube, "scale", fail)
    condition = await scene.look(IDLE, IDLE, IDLE, by_keda=by_keda, at_first=3)
    assert condition is not None
    assert (condition.reason, "could not be set to 3: forbidden" in condition.message) == ("ScaleFailed", True)


async def test_pods_that_were_there_leave_once_their_work_was_little_for_the_stabilization_time() -> None:
    scene = Scene()
    await scene.look(IDLE, IDLE, IDLE, at_first=3)
    for _ in range(5):
        await scene.look(IDLE, IDLE, IDLE, at_first=1)
    assert scene.replicas == 1


async def test_the_last_step_stays_in_the_condition_also_after_a_restart() -> None:
    scene = Scene()
    await scene.look(BUSY)
    scene.restart()
    condition = await scene.look(BUSY, Work(), Work())
    assert condition is not None
    assert condition.reason == "FollowsWork"
    assert "; last step: from 1 to 3 at 00:00:00 UTC, because " in condition.message


async def test_pods_leave_once_the_work_was_little_for_the_stabilization_time() -> None:
    scene = Scene()
    await scene.look(BUSY)
    for _ in range(4):
        await scene.look(IDLE, Work(), Work())
    assert scene.replicas == 3
    await scene.look(IDLE, Work(), Work())
    assert scene.replicas == 1
    assert [reason for _, reason, _ in scene.events()] == ["ScaledUp", "ScaledDown"]


async def test_settled_pods_cause_no_write_and_no_other_message() -> None:
    scene = Scene()
    first = await scene.look(Work(3.0, 0.5))
    later = [await scene.look(Work(float(number), 0.5)) for number in range(10)]
    assert scene.kube.writes == []
    assert {one.message for one in later if one is not None} == {first.message if first is not None else ""}


async def test_a_number_that_someone_sets_meanwhile_is_not_overwritten() -> None:
    scene = Scene()
    stale = dict(scene.resource)
    scene.set_spec(replicas=4)
    spec = parse(stale["spec"])
    pods = (make_pod(report=make_report(work=BUSY)),)
    condition = await scene.autoscaler.follow(stale, spec, OWNER, Observation(None, pods), None)
    assert condition is not None
    assert (condition.status, condition.reason, scene.replicas) == ("False", "ScaleFailed", 4)
    assert "could not be set to 3: the object has been modified" in condition.message


@pytest.mark.parametrize(
    ("changes", "reason", "what_to_do"),
    [
        pytest.param({"replicas": 0}, "Paused", "scale to 1 or more to resume it", id="scaled to 0 by hand"),
        pytest.param({"suspend": True}, "Suspended", "set it to false", id="suspended"),
    ],
)
async def test_autoscaling_stands_by(changes: dict[str, Any], reason: str, what_to_do: str) -> None:
    scene = Scene()
    scene.set_spec(**changes)
    condition = await scene.look(BUSY)
    assert condition is not None
    assert (condition.status, condition.reason, scene.kube.writes) == ("False", reason, [])
    assert what_to_do in condition.message


async def test_an_invalid_spec_scales_nothing_and_keeps_the_last_step() -> None:
    scene = Scene()
    assert await scene.look(BUSY, valid=False) is None
    await scene.look(BUSY)
    condition = await scene.look(BUSY, valid=False)
    assert condition is not None
    assert (condition.status, condition.reason) == ("False", "InvalidSpec")
    assert "last step: from 1 to 3" in condition.message


async def test_without_autoscaling_there_is_no_condition_and_no_write() -> None:
    scene = Scene()
    scene.kube.put_engine(raw_spec(replicas=1))
    assert await scene.look(BUSY) is None
    assert scene.kube.writes == []


def published() -> list[float | None]:
    labels = {"namespace": "default", "alise_engine": "tiny"}
    names = ("alise_operator_backlog_seconds", "alise_operator_offered_load_pods")
    return [metrics.REGISTRY.get_sample_value(name, labels) for name in names]


async def test_the_work_is_published_until_the_resource_is_gone() -> None:
    scene = Scene()
    scene.kube.put_engine(raw_spec(replicas=2))
    await scene.look(BUSY, Work(15.0, 0.5))
    assert published() == [45.0, 2.5]
    scene.autoscaler.forget("default", "tiny")
    assert published() == [None, None]


@pytest.mark.parametrize("works", [pytest.param((BUSY, None), id="of one pod"), pytest.param((None, None), id="of all pods")])
async def test_work_that_is_not_known_is_not_published_as_none(works: tuple[Work | None, ...]) -> None:
    scene = Scene()
    scene.kube.put_engine(raw_spec(replicas=2))
    await scene.look(BUSY, Work(15.0, 0.5))
    await scene.look(*works)
    assert published() == [None, None]


async def test_without_pods_the_work_is_zero() -> None:
    scene = Scene()
    scene.kube.put_engine(raw_spec(replicas=0))
    await scene.look()
    assert published() == [0.0, 0.0]


async def test_a_pod_without_figures_is_said_and_no_pod_leaves() -> None:
    scene = Scene()
    scene.set_spec(replicas=3)
    conditions = [await scene.look(None, Work(), Work()) for _ in range(10)]
    last = conditions[-1]
    assert last is not None
    assert (last.status, last.reason, scene.replicas) == ("Unknown", "WorkUnknown", 3)


async def test_keda_that_asks_is_said_to_scale() -> None:
    scene = Scene()
    for _ in range(20):
        condition = await scene.look(BUSY, by_keda=True)
        assert condition is not None
        assert (condition.status, condition.reason) == ("True", "ScaledByKEDA")
        assert scene.demands.get("default", "tiny") is not None


async def test_keda_that_does_not_ask_for_two_minutes_is_said_to_be_silent_until_it_asks_again() -> None:
    scene = Scene()
    conditions = [await scene.look(BUSY, by_keda=True) for _ in range(9)]
    assert [one.reason for one in conditions if one is not None] == ["ScaledByKEDA"] * 8 + ["KedaSilent"]
    last = conditions[-1]
    assert last is not None
    assert last.status == "False"
    assert "kubectl describe scaledobject tiny" in last.message
    scene.demands.get("default", "tiny")
    again = await scene.look(BUSY, by_keda=True)
    assert again is not None
    assert again.reason == "ScaledByKEDA"

"""From zero pods and back: the operator asks a real endpoint picker, over HTTP on loopback."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from alise_operator.autoscaler import Autoscaler
from alise_operator.conditions import Condition
from alise_operator.held_requests import HeldRequests, of_a_service, read_count
from alise_operator.kube import Resource
from alise_operator.observation import Observation
from alise_operator.predicted_work import NO_WORK
from alise_operator.reconcile import ENGINES
from alise_operator.spec import parse
from alise_picker import web
from alise_picker.choose import Chosen
from alise_picker.exchange import Asked
from alise_picker.metrics import Metrics
from alise_picker.picker import HoldLimits, Picker
from alise_picker.replicas import Replicas, Target
from tests.operator.builders import OWNER, make_pod, make_report, raw_spec
from tests.operator.fake_kube import FakeKube
from tests.scheduler.pod import until

ASKED = Asked("POST", "/v1/chat/completions", b"{}")
REPLICA = Target("127.0.0.1:1", "127.0.0.1:1")
TO_ZERO = {"minReplicas": 0, "maxReplicas": 2, "idleSeconds": 60}
SERVICES = Resource("v1", "services")


@dataclass
class Sleeper:
    """A resource that may have no pods, its picker and its autoscaler."""

    kube: FakeKube
    picker: Picker
    replicas: Replicas
    autoscaler: Autoscaler
    seconds: float = 0.0

    @property
    def pods(self) -> int:
        return int(self.kube.objects[(ENGINES.plural, "default", "tiny")]["spec"]["replicas"])

    async def look(self) -> Condition:
        """One reconcile, with idle pods that are all ready."""
        resource = self.kube.objects[(ENGINES.plural, "default", "tiny")]
        pods = tuple(make_pod(name=f"p{n}", uid=f"u{n}", report=make_report(work=NO_WORK)) for n in range(self.pods))
        condition = await self.autoscaler.follow(resource, parse(resource["spec"]), OWNER, Observation(None, pods), None)
        assert condition is not None
        self.seconds += 15
        return condition


@asynccontextmanager
async def sleeping(replicas: int) -> AsyncIterator[Sleeper]:
    kube, targets, metrics = FakeKube(), Replicas(), Metrics()
    picker = Picker(targets, metrics, HoldLimits(10, 60.0), settle_seconds=0.0)
    kube.put_engine(raw_spec(replicas=replicas, autoscaling=TO_ZERO, routing={"endpointPicker": {}}))
    kube.put(SERVICES, {"metadata": {"name": "tiny-picker"}, "spec": {"clusterIP": "127.0.0.1"}})
    async with (
        web.serving(picker, targets, metrics, "default/tiny", "127.0.0.1", 0) as port,
        HeldRequests(kube, port, may_ask=lambda _: True) as held,
    ):
        scene = Sleeper(kube, picker, targets, Autoscaler(kube, held=held, monotonic=lambda: scene.seconds))
        yield scene
    await targets.close()


async def test_a_held_request_wakes_the_resource_and_is_answered_when_its_pod_is_ready() -> None:
    async with sleeping(0) as scene:
        assert (await scene.look()).reason == "ScaledToZero"
        woken: list[tuple[str, str]] = []
        waking = asyncio.create_task(scene.autoscaler.wake(lambda *key: woken.append(key), pause_seconds=0.001))
        request = asyncio.create_task(scene.picker.decide(ASKED))
        await until(lambda: woken)
        waking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waking
        assert woken[0] == ("default", "tiny")
        assert (await scene.look()).reason == "PodsStarting"
        assert scene.pods == 1
        scene.replicas.set([REPLICA])
        assert isinstance(await request, Chosen)


async def test_without_a_request_the_resource_sleeps_on() -> None:
    async with sleeping(0) as scene:
        for _ in range(10):
            assert (await scene.look()).reason == "ScaledToZero"
        assert scene.kube.writes == []


async def test_the_last_pod_leaves_after_the_idle_time() -> None:
    async with sleeping(1) as scene:
        for _ in range(4):
            await scene.look()
        assert scene.pods == 1
        await scene.look()
        assert scene.pods == 0


async def test_the_last_pod_stays_while_the_picker_does_not_answer() -> None:
    async with sleeping(1) as scene:
        scene.kube.objects[("services", "default", "tiny-picker")]["spec"]["clusterIP"] = "None"
        for _ in range(10):
            await scene.look()
        assert scene.pods == 1


async def test_a_resource_without_pods_whose_picker_does_not_answer_says_so_and_wakes_after_a_minute() -> None:
    async with sleeping(0) as scene:
        scene.kube.objects[("services", "default", "tiny-picker")]["spec"]["clusterIP"] = "None"
        asleep = [await scene.look() for _ in range(4)]
        assert {(one.status, one.reason) for one in asleep} == {("Unknown", "PickerSilent")}
        assert scene.pods == 0
        await scene.look()
        assert scene.pods == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[1]", id="a list"),
        pytest.param(b'{"default/other": 1}', id="another resource"),
        pytest.param(b'{"default/tiny": -1}', id="a negative number"),
        pytest.param(b'{"default/tiny": true}', id="no number"),
        pytest.param(b'{"default/tiny": 1e300}', id="an absurd number"),
        pytest.param(b"[" * 4000, id="a deep one"),
    ],
)
def test_an_answer_that_makes_no_sense_says_nothing(answer: bytes) -> None:
    with pytest.raises(ValueError):
        read_count(answer, OWNER)


def test_the_answer_of_a_picker_is_a_number() -> None:
    assert read_count(json.dumps({"default/tiny": 3}).encode(), OWNER) == 3


@pytest.mark.parametrize(("text", "asked"), [("10.96.0.7", True), ("fd00::7", True), ("127.0.0.1", False), ("169.254.169.254", False)])
def test_only_addresses_that_a_service_can_have_are_asked(text: str, asked: bool) -> None:
    assert of_a_service(ip_address(text)) is asked

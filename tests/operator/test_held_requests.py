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
from alise_operator.children.meta import Manifest, Owner
from alise_operator.conditions import Condition
from alise_operator.held_requests import AT_ONCE, HeldRequests, counts, of_a_service, read_count
from alise_operator.kube import Resource
from alise_operator.observation import Observation, Trouble
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


class CountingKube(FakeKube):
    """Notes which Services are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        if resource.plural == SERVICES.plural:
            self.reads.append(name)
        return await super().get(resource, namespace, name)


@dataclass
class Sleeper:
    """A resource that may have no pods, its picker and its autoscaler."""

    kube: CountingKube
    held: HeldRequests
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
    kube, targets, metrics = CountingKube(), Replicas(), Metrics()
    picker = Picker(targets, metrics, HoldLimits(10, 60.0), settle_seconds=0.0)
    kube.put_engine(raw_spec(replicas=replicas, autoscaling=TO_ZERO, routing={"endpointPicker": {}}))
    kube.put(SERVICES, {"metadata": {"name": "tiny-picker"}, "spec": {"clusterIP": "127.0.0.1"}})
    async with (
        web.serving(picker, targets, metrics, "default/tiny", "127.0.0.1", 0) as port,
        HeldRequests(kube, port, may_ask=lambda _: True) as held,
    ):
        scene = Sleeper(kube, held, picker, targets, Autoscaler(kube, held=held, monotonic=lambda: scene.seconds))
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


async def test_the_address_of_a_picker_that_answers_is_read_once() -> None:
    async with sleeping(0) as scene:
        for _ in range(5):
            await scene.look()
        assert scene.kube.reads == ["tiny-picker"]


async def test_a_picker_whose_service_was_created_again_is_asked_at_its_new_address() -> None:
    async with sleeping(0) as scene:
        await scene.look()
        # On loopback every address of 127.0.0.0/8 is this machine, and the picker listens at 127.0.0.1 alone.
        scene.held.addresses[OWNER] = "127.0.0.2"
        assert (await scene.look()).reason == "ScaledToZero"
        assert scene.kube.reads == ["tiny-picker"] * 2


async def test_a_bounded_number_of_pickers_is_asked_at_a_time() -> None:
    asking, most = 0, 0

    class Slow(HeldRequests):
        async def count(self, owner: Owner) -> int | None:
            nonlocal asking, most
            asking += 1
            most = max(most, asking)
            await asyncio.sleep(0)
            asking -= 1
            return 0

    owners = [Owner(f"e{number}", "default", f"u{number}") for number in range(3 * AT_ONCE)]
    assert await counts(Slow(FakeKube()), owners) == dict.fromkeys(owners, 0)
    assert most == AT_ONCE


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


async def test_a_picker_that_does_not_answer_for_a_minute_is_in_degraded_until_it_answers() -> None:
    nothing = Observation(None)
    async with sleeping(1) as scene:
        service = scene.kube.objects[("services", "default", "tiny-picker")]["spec"]
        service["clusterIP"] = "None"
        for _ in range(3):
            await scene.look()
            assert scene.autoscaler.troubles(OWNER, nothing) == ()
        await scene.look()
        (found,) = scene.autoscaler.troubles(OWNER, nothing)
        assert found.reason == "PickerUnavailable"
        assert "the operator must reach port 9600 of the Service default/tiny-picker" in found.message
        # The cause is known: the picker has no pod.
        assert scene.autoscaler.troubles(OWNER, Observation(None, troubles=(Trouble("PickerUnavailable", "no pod"),))) == ()
        service["clusterIP"] = "127.0.0.1"
        await scene.look()
        assert scene.autoscaler.troubles(OWNER, nothing) == ()

"""N5: of two operators one acts."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from alise_operator.children.meta import Manifest
from alise_operator.errors import ClusterError, LeaseLost
from alise_operator.kube import Resource
from alise_operator.lease import LEASE_NAME, LEASES, Lease, Seen, Step, decide, look, written
from tests.operator.fake_kube import FakeKube

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def lease(holder: str | None, *, version: str = "7", seconds: int = 15) -> Manifest:
    spec = {"holderIdentity": holder, "leaseDurationSeconds": seconds, "acquireTime": "a", "renewTime": "r", "leaseTransitions": 3}
    return {"metadata": {"name": LEASE_NAME, "namespace": "alise-system", "resourceVersion": version}, "spec": spec}


@pytest.mark.parametrize(
    ("there", "unchanged_seconds", "step"),
    [
        pytest.param(None, 0, Step.CREATE, id="there is none yet"),
        pytest.param(lease("me"), 0, Step.RENEW, id="it is ours"),
        pytest.param(lease("me"), 100, Step.RENEW, id="it is ours and has run out, and no other has taken it"),
        pytest.param(lease("other"), 0, Step.WAIT, id="another one's, seen for the first time"),
        pytest.param(lease("other"), 14.9, Step.WAIT, id="another one's, not over yet"),
        pytest.param(lease("other"), 15, Step.TAKE, id="another one's that was not renewed"),
        pytest.param(lease("other", seconds=60), 15, Step.WAIT, id="another one's that lasts longer than ours would"),
        pytest.param(lease(""), 0, Step.TAKE, id="released"),
        pytest.param(lease(None), 0, Step.TAKE, id="without a holder"),
        pytest.param({"metadata": {"resourceVersion": "7"}}, 0, Step.TAKE, id="without anything in it"),
    ],
)
def test_what_a_candidate_does_with_the_lease(there: Manifest | None, unchanged_seconds: float, step: Step) -> None:
    seen = look(there, None, 1000.0)
    assert decide(there, seen, "me", 1000.0 + unchanged_seconds) is step


def test_a_lease_that_was_renewed_is_young_again_whatever_its_holders_clock_says() -> None:
    first = look(lease("other", version="7"), None, 0.0)
    assert look(lease("other", version="7"), first, 10.0) == Seen("7", 0.0)
    assert look(lease("other", version="8"), first, 10.0) == Seen("8", 10.0)


def test_the_lease_is_written_over_the_version_that_was_read() -> None:
    taken = written(lease("other"), "alise-system", "me", 15, NOW)
    assert taken["metadata"]["resourceVersion"] == "7"
    assert taken["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-01-01T00:00:00.000000Z",
        "renewTime": "2026-01-01T00:00:00.000000Z",
        "leaseTransitions": 4,
    }


def test_a_renewal_keeps_since_when_it_is_held() -> None:
    renewed = written(lease("me"), "alise-system", "me", 15, NOW)["spec"]
    assert (renewed["acquireTime"], renewed["leaseTransitions"]) == ("a", 3)


@dataclass
class World:
    """One API server, and the time of each candidate, which the test moves."""

    kube: FakeKube = field(default_factory=FakeKube)
    seconds: float = 0.0

    def candidate(self, name: str) -> Lease:
        return Lease(self.kube, "alise-system", name, seconds=15, monotonic=lambda: self.seconds, now=lambda: NOW)

    def holder(self) -> Any:
        return self.kube.objects[(LEASES.plural, "alise-system", LEASE_NAME)]["spec"]["holderIdentity"]


async def test_the_first_acts_and_the_second_waits_until_the_lease_has_run_out() -> None:
    world = World()
    first, second = world.candidate("first"), world.candidate("second")
    assert (await first.try_once(), await second.try_once()) == (True, False)
    world.seconds = 9.9
    assert (first.is_held, await second.try_once(), second.is_held) == (True, False, False)
    world.seconds = 14.9
    assert not await second.try_once()
    world.seconds = 15
    assert await second.try_once()
    assert (first.is_held, second.is_held, world.holder()) == (False, True, "second")


async def test_there_is_no_moment_at_which_both_may_act() -> None:
    world = World()
    first, second = world.candidate("first"), world.candidate("second")
    await first.try_once()
    for _ in range(300):
        world.seconds += 0.1
        await second.try_once()
        assert not (first.is_held and second.is_held)
    assert second.is_held


async def test_a_holder_that_renews_keeps_the_lease() -> None:
    world = World()
    first, second = world.candidate("first"), world.candidate("second")
    await first.try_once()
    for _ in range(50):
        world.seconds += 2
        assert (await first.try_once(), await second.try_once()) == (True, False)
    assert first.is_held


async def test_a_holder_that_cannot_renew_stops_before_another_one_begins() -> None:
    world = World()
    first = world.candidate("first")
    await first.try_once()
    world.kube.away = True
    world.seconds = 9.9
    assert not await first.try_once()
    first.require()
    world.seconds = 10
    with pytest.raises(LeaseLost):
        first.require()


async def test_a_holder_whose_lease_was_taken_stops_at_its_next_look() -> None:
    world = World()
    first = world.candidate("first")
    await first.try_once()
    world.kube.put(LEASES, written(lease("first"), "alise-system", "thief", 15, NOW))
    assert not await first.try_once()
    with pytest.raises(LeaseLost):
        first.require()


async def test_a_request_that_hangs_does_not_keep_a_leader_acting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(FakeKube):
        async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(Lease, "_call_seconds", 0.01)
    candidate = Lease(Hanging(), "alise-system", "me", monotonic=lambda: 0.0)
    assert not await asyncio.wait_for(candidate.try_once(), 10)


async def test_of_two_that_take_it_at_once_one_is_refused() -> None:
    world = World()
    first, second = world.candidate("first"), world.candidate("second")
    world.kube.put(LEASES, lease(""))
    before = dict(world.kube.objects)

    async def overtaken(resource: Resource, manifest: Manifest) -> None:
        world.kube.objects = dict(before)
        await type(world.kube).replace(world.kube, resource, manifest | {"spec": manifest["spec"] | {"holderIdentity": "second"}})
        raise ClusterError("the object has been modified", status=409)

    world.kube.replace = overtaken  # type: ignore[method-assign]
    assert not await first.try_once()
    assert (first.is_held, world.holder()) == (False, "second")
    assert not second.is_held


async def test_a_released_lease_is_taken_at_once() -> None:
    world = World()
    first, second = world.candidate("first"), world.candidate("second")
    await first.try_once()
    await second.try_once()
    await first.release()
    assert (first.is_held, world.holder()) == (False, "")
    assert await second.try_once()


async def test_only_the_holder_releases() -> None:
    world = World()
    first, second = world.candidate("first"), world.candidate("second")
    await first.try_once()
    await second.try_once()
    await second.release()
    assert world.holder() == "first"

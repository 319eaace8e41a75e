"""Requests that come while no replica is ready: held within bounds, then answered; through a real Envoy where it says so."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from alise_contract.names import WAITING_PATH
from alise_picker import web
from alise_picker.choose import Chosen, NoEndpoint
from alise_picker.exchange import Asked
from alise_picker.metrics import Metrics
from alise_picker.picker import HoldLimits, Picker
from alise_picker.replicas import Replicas, Target
from alise_picker.server import Server
from tests.cluster.gateway.picker import BUFFERED
from tests.picker.envoy_before import ask, chat, envoy_before, routed
from tests.picker.replica_processes import ready, started, until
from tests.scheduler.pod import until as now

ASKED = Asked("POST", "/v1/chat/completions", b"{}")
TARGET = Target("127.0.0.1:1", "127.0.0.1:1")
OTHER = Target("127.0.0.1:2", "127.0.0.1:2")
# Envoy's own with the picker; enough for its first answer on a busy machine.
PATIENCE_SECONDS = 1.0


def metric(metrics: Metrics, decision: str) -> float:
    return metrics.registry.get_sample_value("alise_picker_decisions_total", {"decision": decision}) or 0.0


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    replicas = Replicas()
    yield replicas
    await replicas.close()


def make_picker(replicas: Replicas, limits: HoldLimits) -> tuple[Picker, Metrics]:
    metrics = Metrics()
    return Picker(replicas, metrics, limits, settle_seconds=0.0), metrics


async def test_a_held_request_is_placed_when_a_replica_is_ready(replicas: Replicas) -> None:
    picker, _ = make_picker(replicas, HoldLimits(10, 60.0))
    held = asyncio.create_task(picker.decide(ASKED))
    await now(lambda: picker.waiting)
    replicas.set([TARGET])
    decision = await held
    assert isinstance(decision, Chosen)
    assert (decision.address, picker.waiting) == (TARGET.address, 0)


class Minute:
    """Replicas and a picker whose clock a test moves. Gateways know a replica three seconds after it became ready."""

    def __init__(self, limits: HoldLimits) -> None:
        self.at = 100.0
        self.replicas, self.metrics = Replicas(clock=lambda: self.at), Metrics()
        self.picker = Picker(self.replicas, self.metrics, limits, clock=lambda: self.at, settle_seconds=3.0)

    def ready(self, *targets: Target, at: float) -> None:
        """These replicas, and no others, are ready from now on."""
        self.at = at
        self.replicas.set(targets)


@pytest.fixture
async def minute(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Minute]:
    monkeypatch.setattr("alise_picker.picker.LOOK_SECONDS", 0.005)
    minute = Minute(getattr(request, "param", HoldLimits(10, 60.0)))
    minute.ready(at=90.0)
    yield minute
    await minute.replicas.close()


async def test_a_held_request_goes_on_as_soon_as_gateways_know_the_replica(minute: Minute) -> None:
    held = asyncio.create_task(minute.picker.decide(ASKED))
    await now(lambda: minute.picker.waiting)
    minute.ready(TARGET, at=100.0)
    minute.at = 102.9
    done, _ = await asyncio.wait([held], timeout=0.1)
    assert not done
    minute.at = 103.0
    assert isinstance(await held, Chosen)


@pytest.mark.parametrize(("held", "waits"), [pytest.param(300.0, 301.0, id="a margin"), pytest.param(3600.0, 3600.0, id="Envoy's limit")])
def test_envoy_is_told_to_wait_a_little_longer_than_a_request_is_held(held: float, waits: float) -> None:
    assert Picker(Replicas(), Metrics(), HoldLimits(1, held)).hold_seconds == waits


@pytest.mark.parametrize(
    ("before", "after", "held"),
    [
        pytest.param((), (TARGET,), True, id="the first replica"),
        pytest.param((OTHER,), (TARGET,), True, id="one instead of another"),
        pytest.param((OTHER,), (OTHER, TARGET), False, id="one beside another, which gateways know"),
    ],
)
async def test_a_request_is_held_where_gateways_know_no_ready_replica(
    minute: Minute, before: tuple[Target, ...], after: tuple[Target, ...], held: bool
) -> None:
    minute.ready(*before, at=90.0)
    minute.ready(*after, at=100.0)
    minute.at = 102.9
    assert minute.picker.must_hold(ASKED) is held
    minute.at = 103.0
    assert not minute.picker.must_hold(ASKED)


async def test_replicas_that_a_picker_finds_at_its_start_are_taken_for_known() -> None:
    minute = Minute(HoldLimits(10, 60.0))
    minute.ready(TARGET, at=100.0)
    assert not minute.picker.must_hold(ASKED)
    await minute.replicas.close()


async def test_a_replica_that_comes_and_goes_does_not_hold_a_request_for_ever(minute: Minute) -> None:
    held = asyncio.create_task(minute.picker.decide(ASKED))
    await now(lambda: minute.picker.waiting)
    for second in range(100, 105):
        minute.ready(at=second)
        minute.ready(TARGET, at=second)
        done, _ = await asyncio.wait([held], timeout=0.1)
        assert bool(done) is (second >= 103)


@pytest.mark.parametrize(
    "minute", [pytest.param(HoldLimits(), id="none is held"), pytest.param(HoldLimits(1, 0.001), id="for a moment")], indirect=True
)
async def test_a_ready_replica_that_gateways_may_not_know_is_better_than_a_refusal(minute: Minute) -> None:
    minute.ready(TARGET, at=100.0)
    assert isinstance(await minute.picker.decide(ASKED), Chosen)
    assert (metric(minute.metrics, "hold_expired"), metric(minute.metrics, "no_endpoint"), minute.picker.waiting) == (0, 0, 0)


async def test_a_picker_that_stops_sends_on_what_only_waits_for_gateways(minute: Minute) -> None:
    minute.ready(TARGET, at=100.0)
    held = asyncio.create_task(minute.picker.decide(ASKED))
    await now(lambda: minute.picker.waiting)
    minute.picker.stop_holding()
    assert isinstance(await held, Chosen)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        pytest.param(HoldLimits(), "no_endpoint", id="nothing is held"),
        pytest.param(HoldLimits(1, 60.0), "hold_full", id="enough are held"),
        pytest.param(HoldLimits(10, 0.001), "hold_expired", id="it took too long"),
    ],
)
async def test_a_request_is_not_held_past(replicas: Replicas, limits: HoldLimits, why: str) -> None:
    picker, metrics = make_picker(replicas, limits)
    first = asyncio.create_task(picker.decide(ASKED))
    if why == "hold_full":
        await now(lambda: picker.waiting)
        assert await picker.decide(ASKED) == NoEndpoint()
        first.cancel()
    else:
        assert await first == NoEndpoint()
    assert metric(metrics, why) == 1


@pytest.mark.parametrize(
    ("asked", "needs_key"),
    [
        pytest.param(Asked("GET", "/health", b""), False, id="a probe"),
        pytest.param(Asked("GET", "/v1/models", b""), False, id="a list of models"),
        pytest.param(Asked("GET", "/v1/chat/completions", b""), False, id="not sent"),
        pytest.param(Asked("POST", "/tokenize", b"{}"), False, id="no work for the engine"),
        pytest.param(Asked("POST", "/wp-login.php", b""), False, id="a scan"),
        pytest.param(ASKED, True, id="no key where there are keys"),
    ],
)
async def test_a_request_that_is_not_worth_a_replica_is_refused_at_once(replicas: Replicas, asked: Asked, needs_key: bool) -> None:
    picker, metrics = make_picker(replicas, HoldLimits(10, 60.0, needs_key))
    assert not picker.must_hold(asked)
    assert await picker.decide(asked) == NoEndpoint()
    assert metric(metrics, "no_endpoint") == 1


async def test_a_request_whose_body_has_no_room_is_not_held(replicas: Replicas) -> None:
    picker, metrics = make_picker(replicas, HoldLimits(10, 60.0))
    assert await picker.decide(replace(ASKED, crowded=True)) == NoEndpoint()
    assert metric(metrics, "hold_full") == 1


async def test_a_request_whose_body_has_no_room_is_placed_without_a_prediction(replicas: Replicas) -> None:
    picker, metrics = make_picker(replicas, HoldLimits())
    replicas.set([TARGET])
    assert isinstance(await picker.decide(replace(ASKED, crowded=True)), Chosen)
    assert metrics.registry.get_sample_value("alise_picker_predictions_total", {"outcome": "no_room"}) == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions?x=1", "/v1/embeddings", "/inference/v1/generate"])
def test_a_request_that_generates_is_held(replicas: Replicas, path: str) -> None:
    picker, _ = make_picker(replicas, HoldLimits(10, 60.0, needs_key=True))
    assert picker.must_hold(Asked("POST", path, b"{}", has_key=True))


async def test_a_client_that_goes_away_is_not_counted_as_waiting(replicas: Replicas) -> None:
    picker, _ = make_picker(replicas, HoldLimits(10, 60.0))
    held = asyncio.create_task(picker.decide(ASKED))
    await now(lambda: picker.waiting)
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    assert picker.waiting == 0


@pytest.mark.process
@pytest.mark.parametrize("mode", [pytest.param("FULL_DUPLEX_STREAMED", id="full duplex"), pytest.param(BUFFERED, id="buffered")])
async def test_envoy_waits_for_a_replica_and_then_gets_the_answer(replicas: Replicas, tmp_path: Path, mode: str) -> None:
    metrics = Metrics()
    picker = Picker(replicas, metrics, HoldLimits(1, 60.0), settle_seconds=0.0)
    server = Server(picker, "127.0.0.1")
    replicas.set([])
    async with AsyncExitStack() as stack:
        processes = stack.enter_context(started(tmp_path)).replicas(1)
        await ready(processes)
        port = await server.start(0)
        stack.push_async_callback(server.stop, 0)
        http_port = await stack.enter_async_context(web.serving(picker, replicas, metrics, "default/tiny", "127.0.0.1", 0))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        envoy = stack.enter_context(envoy_before(tmp_path, routed(processes, port, mode), PATIENCE_SECONDS))
        held = asyncio.create_task(ask(client, envoy.url, chat()))

        async def is_held() -> bool:
            return picker.waiting == 1

        await until(is_held, "the request is held")
        async with client.get(f"http://127.0.0.1:{http_port}{WAITING_PATH}") as answer:
            assert json.loads(await answer.text()) == {"default/tiny": 1}
        refused = await ask(client, envoy.url, chat())
        assert (refused.status, refused.headers["retry-after"]) == (503, "10")
        # Longer than Envoy's own patience with a picker.
        assert await asyncio.wait({held}, timeout=2 * PATIENCE_SECONDS) == (set(), {held})
        replicas.set([Target(processes[0].address, f"127.0.0.1:{processes[0].lengths_port}")])
        answered = await held
    assert (answered.status, answered.chunks, answered.upstream) == (200, 4, processes[0].address)

"""Real Envoy, the picker, and two and four replicas with real sidecars: who gets a request, and what happens when a part fails.

Where a test asks for the picker's own choice, Envoy waits for it: a slow machine must not make Envoy balance by itself.
The four replicas are shared, because starting them takes most of the time. Those that drain or hang for a test are used by no later one.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from tests.cluster.gateway.picker import BUFFERED
from tests.cluster.gateway.resources import UPSTREAM_HEADER
from tests.picker.envoy_before import HOST, SECONDS, Answer, ask, chat, envoy_before, routed
from tests.picker.replica_processes import PickerProcess, ReplicaProcess, Started, ready, started, until

pytestmark = pytest.mark.process

FULL_DUPLEX = "FULL_DUPLEX_STREAMED"
MODES = [pytest.param(FULL_DUPLEX, id="full duplex"), pytest.param(BUFFERED, id="buffered")]
LONG_TOKENS = 150
# Longer than any test takes.
ENDLESS_TOKENS = 8000


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with started(tmp_path_factory.mktemp("picker")) as block:
        yield block


@pytest.fixture(scope="module")
def four(processes: Started) -> list[ReplicaProcess]:
    """They refuse a request that would wait for more than five seconds."""
    return processes.replicas(4, max_wait_seconds="5")


@pytest.fixture(scope="module")
def shared_picker(processes: Started, four: list[ReplicaProcess]) -> PickerProcess:
    return processes.picker(four)


@pytest.fixture
async def picker(shared_picker: PickerProcess, four: list[ReplicaProcess]) -> PickerProcess:
    await idle(four)
    await ready(four, shared_picker)
    return shared_picker


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


async def idle(replicas: Sequence[ReplicaProcess]) -> None:
    async def is_idle() -> bool:
        return not any([(await one.load()).levels for one in replicas])

    await until(is_idle, "what the test before sent has ended")


def stream(client: aiohttp.ClientSession, url: str) -> "AbstractAsyncContextManager[aiohttp.ClientResponse]":
    """An answer that lasts until it is closed."""
    return client.post(f"{url}/v1/chat/completions", json=chat(max_tokens=ENDLESS_TOKENS), headers=HOST)


def upstreams(answers: Sequence[Answer]) -> Counter[str]:
    assert [one.text for one in answers if one.status != 200] == []
    return Counter(one.upstream for one in answers)


@pytest.mark.parametrize("mode", MODES)
async def test_requests_avoid_the_replica_with_a_queue(
    client: aiohttp.ClientSession, tmp_path: Path, picker: PickerProcess, four: list[ReplicaProcess], mode: str
) -> None:
    async def knows_of_the_queue() -> bool:
        return await picker.metric("alise_picker_free_slots") == 6

    with envoy_before(tmp_path, routed(four, picker.port, mode), SECONDS) as envoy:
        # Predicted to be as long as the others, and as long as the test.
        long, endless = chat(max_tokens=LONG_TOKENS), ENDLESS_TOKENS
        behind = [asyncio.create_task(ask(client, f"http://{four[0].address}", long, answer_tokens=endless)) for _ in range(3)]
        await until(knows_of_the_queue, "the picker knows that three replicas have two free slots each")
        answers = [await ask(client, envoy.url, chat(max_tokens=LONG_TOKENS), answer_tokens=2) for _ in range(6)]
    for task in behind:
        task.cancel()
    assert four[0].address not in upstreams(answers)
    assert {one.chunks for one in answers} == {2}


async def test_a_burst_is_spread_over_all_replicas(
    client: aiohttp.ClientSession, tmp_path: Path, picker: PickerProcess, four: list[ReplicaProcess]
) -> None:
    with envoy_before(tmp_path, routed(four, picker.port), SECONDS) as envoy:
        async with asyncio.timeout(SECONDS), AsyncExitStack() as open_answers:
            # None ends before all are placed: a slot that is free again would rightly get another one.
            answers = await asyncio.gather(*(open_answers.enter_async_context(stream(client, envoy.url)) for _ in range(8)))
            assert Counter(one.headers.get(UPSTREAM_HEADER) for one in answers) == {one.address: 2 for one in four}


@pytest.mark.parametrize("mode", MODES)
async def test_a_large_body_arrives_whole(
    client: aiohttp.ClientSession, tmp_path: Path, picker: PickerProcess, four: list[ReplicaProcess], mode: str
) -> None:
    with envoy_before(tmp_path, routed(four, picker.port, mode), SECONDS) as envoy:
        # The replica parses it: a byte that was lost or doubled would be a 400.
        answer = await ask(client, envoy.url, chat(prompt="x" * 5_000 + "é" * 10_000 + "x" * 80_000), answer_tokens=3)
    assert (answer.status, answer.chunks) == (200, 3)


async def test_a_conversation_stays_on_its_replica(
    client: aiohttp.ClientSession, tmp_path: Path, picker: PickerProcess, four: list[ReplicaProcess]
) -> None:
    turns, homes = [{"role": "user", "content": "one"}], []
    with envoy_before(tmp_path, routed(four, picker.port), SECONDS) as envoy:
        for _ in range(5):
            homes.append(await ask(client, envoy.url, chat(messages=turns)))
            turns += [{"role": "assistant", "content": "x x x x"}, {"role": "user", "content": "more"}]
    assert len(upstreams(homes)) == 1
    assert await picker.metric("alise_picker_decisions_total", decision="home") == 4


async def test_a_request_that_every_replica_would_refuse_is_429(
    client: aiohttp.ClientSession, tmp_path: Path, picker: PickerProcess, four: list[ReplicaProcess]
) -> None:
    tasks: list[asyncio.Task[Answer]] = []

    def shed() -> list[Answer]:
        # A replica that refuses by itself says so in other words.
        return [one.result() for one in tasks if one.done() and "on every replica" in one.result().text]

    async def is_shed() -> bool:
        tasks.extend(asyncio.create_task(ask(client, envoy.url, chat(max_tokens=4000))) for _ in range(8))
        await asyncio.wait(tasks[-8:], timeout=0.3)
        return bool(shed())

    with envoy_before(tmp_path, routed(four, picker.port), SECONDS) as envoy:
        await until(is_shed, "the picker sheds")
        refused = shed()[0]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert refused.status == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert await picker.metric("alise_picker_predictions_total", outcome="ok") > 0


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, id="killed"), pytest.param(signal.SIGSTOP, id="does not answer")])
async def test_without_the_picker_envoy_balances_by_itself(
    processes: Started, client: aiohttp.ClientSession, tmp_path: Path, four: list[ReplicaProcess], how: signal.Signals
) -> None:
    await idle(four)
    two = four[:2]
    its_own = processes.picker(two)
    await ready(two, its_own)
    with envoy_before(tmp_path, routed(two, its_own.port)) as envoy:
        assert (await ask(client, envoy.url, chat())).status == 200
        its_own.process.send_signal(how)
        answers = await asyncio.gather(*(ask(client, envoy.url, chat()) for _ in range(12)))
    assert set(upstreams(answers)) == {one.address for one in two}


async def test_a_replica_that_drains_gets_nothing(
    client: aiohttp.ClientSession, tmp_path: Path, picker: PickerProcess, four: list[ReplicaProcess]
) -> None:
    await four[3].drain()

    async def is_known() -> bool:
        return await picker.metric("alise_picker_replicas", state="draining") == 1

    await until(is_known, "the picker knows of the drain")
    with envoy_before(tmp_path, routed(four, picker.port), SECONDS) as envoy:
        answers = await asyncio.gather(*(ask(client, envoy.url, chat()) for _ in range(6)))
    assert four[3].address not in upstreams(answers)


async def test_a_replica_that_hangs_gets_nothing_once_its_figures_are_old(
    client: aiohttp.ClientSession, tmp_path: Path, shared_picker: PickerProcess, four: list[ReplicaProcess]
) -> None:
    four[2].hang()

    async def is_known() -> bool:
        return await shared_picker.metric("alise_picker_replicas", state="stale") == 1

    await until(is_known, "the picker has no fresh figures of it")
    with envoy_before(tmp_path, routed(four, shared_picker.port), SECONDS) as envoy:
        answers = await asyncio.gather(*(ask(client, envoy.url, chat()) for _ in range(6)))
    assert not {four[2].address, four[3].address} & set(upstreams(answers))

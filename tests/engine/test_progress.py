"""The poll of EngineCore goes on whatever happens in it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from alise_engine.api.control import progress as module
from alise_engine.api.control.progress import Progress
from alise_engine.api.metrics import CoreView
from alise_engine.api.open_requests import OpenRequests
from alise_engine.errors import CoreUnavailable
from alise_engine.wire.calls import Call, Counters, PollCall, RequestRow, SnapshotCall
from alise_engine.wire.terms import PHASE_RUNNING, PHASE_WAITING
from tests.engine.api_fakes import SHAPE, FakeCore, eventually, make_finished, make_row


class Listener:
    """Hears of rows, and fails while a test wants it to."""

    def __init__(self) -> None:
        self.failing = False
        self.failures = 0
        self.ended: list[str] = []

    def rows(self, changed: Sequence[RequestRow], ended_jobs: Sequence[str]) -> None:
        if self.failing and (changed or ended_jobs):
            raise ZeroDivisionError("a mistake")
        self.ended += ended_jobs

    def failed(self) -> None:
        self.failures += 1
        self.failing = False


@asynccontextmanager
async def polling(core: FakeCore, listener: Listener) -> AsyncIterator[Progress]:
    """A poll that runs, with a request open as long as it does."""
    requests = OpenRequests()
    progress = Progress(core, requests, CoreView(), listener.rows, listener.failed)
    running = asyncio.create_task(progress.run())
    with requests.entered():
        yield progress
        assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)


def live(progress: Progress, count: int) -> Callable[[], bool]:
    return lambda: progress.live_count == count


async def test_a_mistake_is_counted_and_the_poll_goes_on() -> None:
    core, listener = FakeCore(), Listener()
    async with polling(core, listener) as progress:
        listener.failing = True
        core.put(make_row("r1"))
        await eventually(lambda: listener.failures == 1, "the failure is told")
        core.put(make_row("r2"))
        await eventually(live(progress, 2), "the next rows are learnt")


async def test_an_ending_that_was_lost_by_a_mistake_is_learnt_again() -> None:
    core, listener = FakeCore(), Listener()
    async with polling(core, listener) as progress:
        core.put(make_row("r1"))
        core.put(make_row("r2"))
        await eventually(live(progress, 2), "both are alive")
        listener.failing = True
        core.end(make_finished("r1"))
        await eventually(live(progress, 1), "one has ended")


async def test_an_ending_in_an_answer_that_cannot_be_encoded_is_learnt_from_a_snapshot() -> None:
    core, listener = FakeCore(), Listener()
    async with polling(core, listener) as progress:
        core.put(make_row("r1"))
        await eventually(live(progress, 1), "it is alive")
        core.end(make_finished("r1"))
        core.put(make_row("r2", hint="\ud800"))
        await eventually(lambda: listener.failures > 0, "the answer was not encoded")
        core.end(make_finished("r2"))
        await eventually(live(progress, 0), "a snapshot has come")
    assert "job-r1" in listener.ended


async def test_a_watch_that_may_have_missed_something_ends() -> None:
    core, listener = FakeCore(), Listener()
    async with polling(core, listener) as progress:
        watcher = await progress.watch()
        listener.failing = True
        core.put(make_row("r1"))
        with pytest.raises(CoreUnavailable, match="a mistake"):
            async for _ in watcher.changes():
                pass


async def test_an_ending_between_the_last_poll_and_the_snapshot_of_a_watch_is_told() -> None:
    """The snapshot starts the engine's deltas afresh: no later poll names the ending."""

    class EndsBeforeTheSnapshot(FakeCore):
        async def call(self, call: Call) -> bytes:
            if isinstance(call, SnapshotCall) and "r1" in self.live:
                self.live.clear()
            return await super().call(call)

    core, listener = EndsBeforeTheSnapshot(), Listener()
    async with polling(core, listener) as progress:
        core.put(make_row("r1"))
        await eventually(live(progress, 1), "it is alive")
        await progress.watch()
    assert listener.ended == ["job-r1"]


async def test_an_engine_that_is_down_is_no_mistake() -> None:
    core, listener = FakeCore(), Listener()
    async with polling(core, listener):
        core.down = True
        calls = len(core.calls)
        await eventually(lambda: len(core.calls) > calls + 3, "it is asked again")
    assert listener.failures == 0


@pytest.fixture
def never_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a request that may begin a queue, there is no further poll."""
    monkeypatch.setattr(module, "CALM_LOOKS", 1_000_000)
    monkeypatch.setattr(module, "FULL_LOOKS", 1_000_000)


@pytest.mark.usefixtures("never_by_time")
@pytest.mark.parametrize(
    ("free_blocks", "phase", "is_polled"),
    [
        pytest.param(SHAPE.num_device_blocks, PHASE_RUNNING, False, id="there is room"),
        pytest.param(1, PHASE_RUNNING, True, id="few blocks are free"),
        pytest.param(1, PHASE_WAITING, False, id="others wait already"),
    ],
)
async def test_a_request_that_comes_is_looked_for_at_once_where_it_may_begin_a_queue(free_blocks: int, phase: str, is_polled: bool) -> None:
    core, requests = FakeCore(counters=Counters(free_device_blocks=free_blocks)), OpenRequests()
    progress = Progress(core, requests, CoreView())
    await progress.learn()
    running = asyncio.create_task(progress.run())
    core.put(make_row("r1", phase=phase))
    with requests.entered():
        await eventually(live(progress, 1), "the first one is known")
        await asyncio.sleep(0.01)
        calls = core.count(PollCall)
        with requests.entered():
            if is_polled:
                await eventually(lambda: core.count(PollCall) > calls, "the second one is looked for")
            else:
                await asyncio.sleep(0.05)
                assert core.count(PollCall) == calls
    running.cancel()


@pytest.mark.parametrize(
    ("free_blocks", "is_polled"),
    [pytest.param(SHAPE.num_device_blocks, False, id="there is room"), pytest.param(1, True, id="few blocks are free")],
)
async def test_polls_are_closer_together_while_the_engine_is_full(
    monkeypatch: pytest.MonkeyPatch, free_blocks: int, is_polled: bool
) -> None:
    monkeypatch.setattr(module, "CALM_LOOKS", 1_000_000)
    core, requests = FakeCore(counters=Counters(free_device_blocks=free_blocks)), OpenRequests()
    progress = Progress(core, requests, CoreView())
    await progress.learn()
    running = asyncio.create_task(progress.run())
    core.put(make_row("r1", phase=PHASE_RUNNING))
    with requests.entered():
        await eventually(live(progress, 1), "the request is known")
        calls = core.count(PollCall)
        if is_polled:
            await eventually(lambda: core.count(PollCall) > calls, "it is polled again")
        else:
            await asyncio.sleep(0.05)
            assert core.count(PollCall) == calls
    running.cancel()

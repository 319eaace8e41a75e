"""Each resource has one reconciliation at a time, in turns, with a backoff after errors."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from alise_operator import metrics
from alise_operator.workqueue import BURST, LAST_RETRY_SECONDS, MOST_IN_A_ROW, SPACING_SECONDS, WorkQueue


@dataclass
class ManualClock:
    """Callbacks that the test fires, and a time that it moves."""

    pending: list["ManualTimer"] = field(default_factory=list)
    seconds: float = 0.0

    def now(self) -> float:
        return self.seconds

    def pass_seconds(self, seconds: float) -> None:
        """Fires what is due by then."""
        self.seconds += seconds
        due = [timer for timer in self.pending if timer.at_seconds <= self.seconds]
        self.pending = [timer for timer in self.pending if timer.at_seconds > self.seconds]
        for timer in due:
            if not timer.cancelled:
                timer.call()

    def call_later(self, seconds: float, call: Callable[[], None]) -> "ManualTimer":
        timer = ManualTimer(seconds, call, self.seconds + seconds)
        self.pending.append(timer)
        return timer

    def fire(self) -> None:
        for timer in self.pending:
            if not timer.cancelled:
                timer.call()
        self.pending.clear()


@dataclass
class ManualTimer:
    seconds: float
    call: Callable[[], None]
    at_seconds: float = 0.0
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


async def drained(queue: WorkQueue[str]) -> list[str]:
    """All keys that wait, each worked on once."""
    taken = []
    while queue.waiting:
        key = await queue.take()
        taken.append(key)
        queue.done(key)
    return taken


async def test_a_key_added_twice_is_worked_on_once() -> None:
    queue: WorkQueue[str] = WorkQueue(ManualClock().call_later)
    for key in ("a", "b", "a"):
        queue.add(key)
    assert await drained(queue) == ["a", "b"]


async def test_a_key_added_during_its_work_is_worked_on_again_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue(ManualClock().call_later)
    queue.add("a")
    key = await queue.take()
    queue.add("a")
    assert queue.waiting == 0, "no second worker may take it now"
    queue.done(key)
    assert await drained(queue) == ["a"]


async def test_a_failed_key_comes_back_after_its_pause() -> None:
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue(clock.call_later)
    queue.retry("a")
    assert queue.waiting == 0
    clock.fire()
    assert await drained(queue) == ["a"]


def test_pauses_double_up_to_a_minute_and_start_over_after_a_success() -> None:
    queue: WorkQueue[str] = WorkQueue(ManualClock().call_later)
    pauses = [queue.retry("a") for _ in range(40)]
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(pauses) == LAST_RETRY_SECONDS
    queue.succeeded("a")
    assert queue.retry("a") == 1.0


async def test_a_success_calls_off_the_retry() -> None:
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue(clock.call_later)
    queue.retry("a")
    queue.succeeded("a")
    clock.fire()
    assert queue.waiting == 0


async def test_closing_calls_off_all_retries() -> None:
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue(clock.call_later)
    queue.retry("a")
    queue.close()
    clock.fire()
    assert queue.waiting == 0


async def test_closing_lets_go_of_keys_that_wait_and_of_those_who_wait_for_them() -> None:
    clock = ManualClock()
    queue = hasty(clock)
    await worked(queue, "held", BURST)
    for key in ("held", "a", "b"):
        queue.add(key, first=key == "a")
    assert queue.waiting == 3
    patient = asyncio.create_task(queue.fewer_than(1))
    await asyncio.sleep(0)
    queue.close()
    await asyncio.wait_for(patient, 10)
    clock.pass_seconds(BURST * SPACING_SECONDS)
    assert (queue.waiting, queue._next(), metrics.REGISTRY.get_sample_value("alise_operator_queue_length")) == (0, None, 0)


async def test_a_closed_queue_takes_no_more_keys() -> None:
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue(clock.call_later)
    queue.add("a")
    key = await queue.take()
    queue.add("a")
    queue.close()
    queue.retry(key)
    queue.done(key)
    queue.add("b")
    assert (queue.waiting, queue._next(), clock.pending) == (0, None, [])


async def test_a_failed_edit_goes_first_again() -> None:
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue(clock.call_later)
    queue.add("edited", first=True)
    key = await queue.take()
    queue.retry(key)
    queue.done(key)
    for number in range(100):
        queue.add(f"resync-{number}")
    clock.fire()
    assert await queue.take() == "edited"


async def test_a_round_that_fails_as_well_does_not_end_that_an_edit_goes_first() -> None:
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue(clock.call_later)
    for first in (True, False):
        queue.add("edited", first=first)
        queue.retry(await queue.take())
        queue.done("edited")
    queue.add("a")
    clock.fire()
    assert await drained(queue) == ["edited", "a"]


@pytest.mark.parametrize(
    ("ending", "order"),
    [
        pytest.param(lambda queue: [queue.retry("edited") for _ in range(10)], ["a", "edited"], id="it fails for minutes"),
        pytest.param(lambda queue: queue.succeeded("edited"), ["a", "edited"], id="it succeeded"),
        pytest.param(lambda queue: [queue.retry("edited") for _ in range(3)], ["edited", "a"], id="it fails for seconds"),
    ],
)
async def test_an_edit_goes_first_until_it_succeeds_or_fails_for_minutes(
    ending: Callable[[WorkQueue[str]], object], order: list[str]
) -> None:
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue(clock.call_later)
    queue.add("edited", first=True)
    key = await queue.take()
    ending(queue)
    queue.done(key)
    queue.retry(key)
    queue.add("a")
    clock.fire()
    assert await drained(queue) == order


def hasty(clock: ManualClock) -> WorkQueue[str]:
    return WorkQueue(clock.call_later, now=clock.now)


async def worked(queue: WorkQueue[str], key: str, times: int) -> None:
    """Adds the key and works on it that often in a row, without any pause."""
    for _ in range(times):
        queue.add(key)
        queue.done(await queue.take())


async def test_a_key_that_changes_all_the_time_is_worked_on_at_its_rate() -> None:
    clock = ManualClock()
    queue = hasty(clock)
    await worked(queue, "edited", BURST)
    queue.add("edited")
    queue.add("edited")
    assert (queue.waiting, [timer.seconds for timer in clock.pending]) == (1, [SPACING_SECONDS])
    queue.add("other")
    assert await queue.take() == "other"
    clock.pass_seconds(SPACING_SECONDS)
    assert await queue.take() == "edited"


async def test_in_the_long_run_a_key_is_worked_on_once_per_spacing() -> None:
    clock = ManualClock()
    queue, turns = hasty(clock), 0
    for _ in range(10_000):
        queue.add("edited")
        clock.pass_seconds(0.01)
        while queue.waiting and not clock.pending:
            turns += 1
            queue.done(await queue.take())
    assert turns == pytest.approx(100 / SPACING_SECONDS + BURST, abs=2)


async def test_after_a_quiet_time_a_key_may_be_hasty_again() -> None:
    clock = ManualClock()
    queue = hasty(clock)
    await worked(queue, "edited", BURST)
    clock.pass_seconds(BURST * SPACING_SECONDS)
    await worked(queue, "edited", BURST)
    assert queue.waiting == 0


async def test_a_change_while_a_key_is_held_is_not_lost() -> None:
    clock = ManualClock()
    queue = hasty(clock)
    await worked(queue, "edited", BURST)
    queue.add("edited")
    assert clock.pending
    clock.pass_seconds(SPACING_SECONDS)
    assert await drained(queue) == ["edited"]
    assert clock.pending == []


async def test_what_is_remembered_of_rates_does_not_grow_without_end() -> None:
    clock = ManualClock()
    queue = hasty(clock)
    for number in range(5_000):
        await worked(queue, f"key-{number}", 1)
        clock.pass_seconds(SPACING_SECONDS)
    assert len(queue._full_at) <= 1_001


def by_namespace(at_a_time: int | None = None) -> WorkQueue[str]:
    return WorkQueue(ManualClock().call_later, group_of=lambda key: key.split("/")[0], at_a_time=at_a_time, now=lambda: 0.0)


async def test_namespaces_take_turns() -> None:
    queue = by_namespace()
    for key in ("crowd/1", "crowd/2", "crowd/3", "crowd/4", "few/1", "one/1", "few/2"):
        queue.add(key)
    assert await drained(queue) == ["crowd/1", "few/1", "one/1", "crowd/2", "few/2", "crowd/3", "crowd/4"]


async def test_a_namespace_that_comes_while_others_wait_has_its_turn_in_the_next_round() -> None:
    queue = by_namespace()
    for number in range(1_000):
        queue.add(f"crowd/{number}")
    assert await queue.take() == "crowd/0"
    queue.add("late/1")
    assert {await queue.take(), await queue.take()} == {"crowd/1", "late/1"}


async def test_a_key_that_goes_first_is_worked_on_before_all_that_wait() -> None:
    queue: WorkQueue[str] = WorkQueue(ManualClock().call_later)
    for number in range(1_000):
        queue.add(f"resync-{number}")
    queue.add("edited", first=True)
    assert await queue.take() == "edited"


async def test_a_key_that_waits_already_goes_first_once_it_is_edited() -> None:
    queue: WorkQueue[str] = WorkQueue(ManualClock().call_later)
    for key in ("a", "b", "edited"):
        queue.add(key)
    queue.add("edited", first=True)
    queue.add("edited")
    assert await drained(queue) == ["edited", "a", "b"]


async def test_a_key_that_is_edited_during_its_work_goes_first_afterwards() -> None:
    queue: WorkQueue[str] = WorkQueue(ManualClock().call_later)
    queue.add("edited")
    key = await queue.take()
    queue.add("a")
    queue.add("edited", first=True)
    queue.add("edited")
    queue.done(key)
    assert await drained(queue) == ["edited", "a"]


async def test_a_held_key_that_is_edited_goes_first_as_soon_as_its_rate_allows() -> None:
    clock = ManualClock()
    queue = hasty(clock)
    await worked(queue, "edited", BURST)
    queue.add("edited")
    queue.add("a")
    queue.add("edited", first=True)
    clock.pass_seconds(SPACING_SECONDS)
    assert await drained(queue) == ["edited", "a"]


async def test_keys_that_do_not_go_first_still_have_their_share() -> None:
    queue: WorkQueue[str] = WorkQueue(ManualClock().call_later)
    queue.add("resync")
    for number in range(100):
        queue.add(f"edited-{number}", first=True)
    taken = [await queue.take() for _ in range(MOST_IN_A_ROW + 1)]
    assert taken[-1] == "resync"


async def test_one_namespace_never_has_all_workers() -> None:
    queue = by_namespace(at_a_time=2)
    for number in range(5):
        queue.add(f"crowd/{number}")
    taken = [await queue.take(), await queue.take()]
    assert queue._next() is None, "a third worker may not begin"
    queue.add("few/1")
    assert await queue.take() == "few/1"
    queue.done(taken[0])
    assert await queue.take() == "crowd/2"


async def test_a_worker_that_waits_for_its_namespaces_turn_is_woken() -> None:
    queue = by_namespace(at_a_time=1)
    for key in ("a/1", "a/2"):
        queue.add(key)
    first = await queue.take()
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done(first)
    assert await asyncio.wait_for(waiting, 10) == "a/2"


async def test_a_worker_that_is_stopped_while_it_waits_takes_no_key_with_it() -> None:
    queue = by_namespace()
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(0)
    queue.add("a/1")
    waiting.cancel()
    await asyncio.wait({waiting})
    assert await asyncio.wait_for(queue.take(), 10) == "a/1"

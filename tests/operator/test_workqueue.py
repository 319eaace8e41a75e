from collections.abc import Callable
from dataclasses import dataclass, field

from alise_operator.workqueue import LAST_RETRY_SECONDS, WorkQueue


@dataclass
class ManualClock:
    """Callbacks that the test fires."""

    pending: list["ManualTimer"] = field(default_factory=list)

    def call_later(self, seconds: float, call: Callable[[], None]) -> "ManualTimer":
        timer = ManualTimer(seconds, call)
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

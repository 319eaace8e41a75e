"""A work queue for keys, with a rate for each key, turns for groups of keys, and a lane for keys that go first.

app.py owns the queue; it knows nothing of Kubernetes. Its guarantees are those of client-go: a key is queued at most once, one worker at a
time processes it, and a key that is added meanwhile is processed again. Handlers only add keys, because a reconcile reads everything and
does not depend on what happened. No key and no group of keys can block the others: a key that is added again and again is processed BURST
times at once and then once per spacing, groups (namespaces) take turns, and one group never occupies all workers. What a person waits for
goes first, however many other keys wait, and these still get a share of the workers.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

from alise_operator import metrics

K = TypeVar("K", bound=Hashable)

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 60.0
# An edit causes up to three events: its own, those of the children and that of the status. Two edits in a row are processed at once.
BURST: Final = 6
SPACING_SECONDS: Final = 2.0
# While other keys wait, one of them is taken after this many that go first.
MOST_IN_A_ROW: Final = 4
# When more keys than this are remembered, those with their full burst are forgotten.
_REMEMBERED: Final = 1000


class Timer(Protocol):
    def cancel(self) -> None: ...


# Calls back after a number of seconds; asyncio's `loop.call_later`, or a test's own clock.
CallLater = Callable[[float, Callable[[], None]], Timer]


class _Lane(Generic[K]):
    """Keys by group. The group whose turn it is comes first; a group without waiting keys has no entry."""

    def __init__(self) -> None:
        self._groups: dict[Hashable, deque[K]] = {}

    def append(self, group: Hashable, key: K) -> None:
        self._groups.setdefault(group, deque()).append(key)

    def remove(self, group: Hashable, key: K) -> None:
        self._groups[group].remove(key)
        if not self._groups[group]:
            del self._groups[group]

    def pop(self, may_have_a_worker: Callable[[Hashable], bool]) -> K | None:
        """Returns the oldest key of the first group that may have another worker, and moves that group to the end."""
        for group, keys in self._groups.items():
            if may_have_a_worker(group):
                key = keys.popleft()
                del self._groups[group]
                if keys:
                    self._groups[group] = keys
                return key
        return None


class WorkQueue(Generic[K]):
    def __init__(
        self,
        call_later: CallLater,
        *,
        group_of: Callable[[K], Hashable] = lambda _: None,
        at_a_time: int | None = None,
        spacing_seconds: float = SPACING_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`at_a_time` is the number of keys of one group that are processed at the same time; None for no limit."""
        self._call_later = call_later
        self._group_of = group_of
        self._at_a_time = at_a_time
        self._spacing_seconds = spacing_seconds
        self._now = now
        # Keys that may be taken: those that go first, and the others.
        self._lanes = _Lane[K](), _Lane[K]()
        self._in_a_row = 0
        # Waiting keys that go first, and those that were taken first and have not succeeded since.
        self._first: set[K] = set()
        self._unfinished: set[K] = set()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._busy: Counter[Hashable] = Counter()
        # Keys that were added while they were processed, and whether they go first.
        self._again: dict[K, bool] = {}
        self._failures: dict[K, int] = {}
        self._timers: dict[K, Timer] = {}
        # Keys that wait for their rate; and the time at which each recent key has its full burst again.
        self._held: dict[K, Timer] = {}
        self._full_at: dict[K, float] = {}
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """The number of keys that no worker has taken yet."""
        return len(self._waiting)

    def add(self, key: K, *, first: bool = False) -> None:
        """Queues the key, now or as soon as its rate allows. A key that goes `first` is taken before those that do not."""
        if self._is_closed:
            return
        if key in self._working:
            self._again[key] = first or self._again.get(key, False)
        elif key in self._waiting:
            if first and key not in self._first:
                self._first.add(key)
                if key not in self._held:
                    self._lanes[1].remove(self._group_of(key), key)
                    self._make_ready(key)
        else:
            self._waiting.add(key)
            if first:
                self._first.add(key)
            metrics.QUEUE_LENGTH.set(self.waiting)
            pause_seconds = self._full_at.get(key, 0.0) - (BURST - 1) * self._spacing_seconds - self._now()
            if pause_seconds > 0:
                metrics.HELD.inc()
                self._held[key] = self._call_later(pause_seconds, lambda: self._release(key))
            else:
                self._make_ready(key)

    async def take(self) -> K:
        """Returns the next key. The caller must call `done` with it."""
        while (key := self._next()) is None:
            self._changed.clear()
            await self._changed.wait()
        self._waiting.discard(key)
        if key in self._first:
            self._first.discard(key)
            self._unfinished.add(key)
        self._taken.set()
        self._working.add(key)
        self._busy[self._group_of(key)] += 1
        self._spend(key)
        metrics.QUEUE_LENGTH.set(self.waiting)
        return key

    async def fewer_than(self, most: int) -> None:
        """Waits until fewer keys than this wait."""
        while self.waiting >= most:
            self._taken.clear()
            await self._taken.wait()

    def done(self, key: K) -> None:
        self._working.discard(key)
        group = self._group_of(key)
        self._busy[group] -= 1
        if not self._busy[group]:
            del self._busy[group]
        self._changed.set()
        if key in self._again:
            self.add(key, first=self._again.pop(key))

    def retry(self, key: K) -> float:
        """Queues the key after a pause that doubles with every consecutive failure, and returns the pause in seconds.

        A key that went first does so again until its pauses are the longest: what fails for good must not be in the way of later edits.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause_seconds = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * float(1 << min(failures, 16)))
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if self._is_closed:
            return pause_seconds
        if pause_seconds >= LAST_RETRY_SECONDS:
            self._unfinished.discard(key)
        first = key in self._unfinished
        self._timers[key] = self._call_later(pause_seconds, lambda: self.add(key, first=first))
        return pause_seconds

    def succeeded(self, key: K) -> None:
        """Forgets the failures of the key, and cancels its retry."""
        self._failures.pop(key, None)
        self._unfinished.discard(key)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Forgets all keys but those that are processed, lets those go that wait in `fewer_than`, and takes no more keys."""
        self._is_closed = True
        for timer in (*self._timers.values(), *self._held.values()):
            timer.cancel()
        self._lanes = _Lane[K](), _Lane[K]()
        for kept in (self._timers, self._held, self._waiting, self._first, self._unfinished, self._again, self._failures):
            kept.clear()
        metrics.QUEUE_LENGTH.set(self.waiting)
        self._taken.set()

    def _release(self, key: K) -> None:
        self._held.pop(key, None)
        self._make_ready(key)

    def _make_ready(self, key: K) -> None:
        self._lanes[0 if key in self._first else 1].append(self._group_of(key), key)
        self._changed.set()

    def _next(self) -> K | None:
        """Returns the key that the next free worker takes; None if none may be taken."""
        first, others = self._lanes
        for lane in (first, others) if self._in_a_row < MOST_IN_A_ROW else (others, first):
            key = lane.pop(lambda group: self._at_a_time is None or self._busy[group] < self._at_a_time)
            if key is not None:
                self._in_a_row = self._in_a_row + 1 if lane is first else 0
                return key
        return None

    def _spend(self, key: K) -> None:
        now = self._now()
        if len(self._full_at) > _REMEMBERED:
            self._full_at = {one: at for one, at in self._full_at.items() if at > now}
        self._full_at[key] = max(self._full_at.get(key, now), now) + self._spacing_seconds

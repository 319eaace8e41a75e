"""A work queue with the guarantees of client-go's: a key waits at most once, is worked on by one worker at a time, and is worked on again
when it was added meanwhile. Handlers only add keys; what happened in between does not matter, because a reconcile looks at everything.
"""

import asyncio
from collections.abc import Callable, Hashable
from typing import Final, Generic, Protocol, TypeVar

from alise_operator import metrics

K = TypeVar("K", bound=Hashable)

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 60.0


class Timer(Protocol):
    def cancel(self) -> None: ...


# Calls back after so many seconds; asyncio's `loop.call_later`, or a test's own clock.
CallLater = Callable[[float, Callable[[], None]], Timer]


class WorkQueue(Generic[K]):
    def __init__(self, call_later: CallLater) -> None:
        self._call_later = call_later
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._waiting: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, Timer] = {}

    @property
    def waiting(self) -> int:
        """Keys that nobody works on yet."""
        return len(self._waiting)

    def add(self, key: K) -> None:
        """Asks for a reconcile of the key now."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)
            metrics.QUEUE_LENGTH.set(self.waiting)

    async def take(self) -> K:
        """The next key; the caller must call `done` with it."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        metrics.QUEUE_LENGTH.set(self.waiting)
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def retry(self, key: K) -> float:
        """Asks for a reconcile after a pause that doubles with every failure in a row; the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        pause_seconds = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * float(1 << min(failures, 16)))
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._timers[key] = self._call_later(pause_seconds, lambda: self.add(key))
        return pause_seconds

    def succeeded(self, key: K) -> None:
        """Forgets the key's failures, and the retry that was asked for."""
        self._failures.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

"""The thread between the predictor and the stores. Writes are queued, bounded and a moment late; a failing store affects nothing else.

The local store belongs to the pod. The shared one, where a resource names a database, also brings what other replicas learned. Each may
become unavailable and return: meanwhile the newest MAX_WAITING samples wait, and reading continues where it stopped.

`start.py` builds the `Archive`; the predictor calls `keep`, and `training/loop.py` calls `arrived` and `save_head`.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, Protocol, TypeVar

from ...errors import HistoryError
from ..training.samples import Sample
from .sqlite import HistoryStore

log = logging.getLogger(__name__)

# A write takes about as long for one sample as for twenty.
WRITE_SECONDS: Final = 1.0
READ_SECONDS: Final = 2.0
RETRY_SECONDS: Final = 5.0
MAX_WAITING: Final = 5000
MAX_BATCH: Final = 500
POSITION_NOTE: Final = "shared position"
_CLOSE_SECONDS: Final = 3.0


class SharedStore(HistoryStore, Protocol):
    """A store that other replicas write, too."""

    def newer(self, position: int | None, rows: int) -> tuple[list[Sample], int]:
        """Up to `rows` that others wrote past `position`, oldest first, and the position after them; None: begin at the newest history."""


Store = TypeVar("Store", bound=HistoryStore)


class Outlet(Generic[Store]):
    """One store, its queue, and its ups and downs. Only the thread calls it, except for `put` and `put_head`."""

    def __init__(self, name: str, store: Store | None, reopen: Callable[[], Store] | None) -> None:
        self.name = name
        self.store = store
        self._reopen = reopen
        self.dropped = 0
        # Unexpected errors.
        self.failures = 0
        self._waiting: deque[Sample] = deque()
        self._head: tuple[int, bytes] | None = None
        self._notes: dict[str, str] = {}
        self._retry_at = 0.0

    @property
    def up(self) -> bool:
        return self.store is not None

    def put(self, sample: Sample) -> None:
        self._waiting.append(sample)
        if len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1

    def put_head(self, version: int, data: bytes) -> None:
        self._head = (version, data)

    def put_note(self, key: str, value: str) -> None:
        self._notes[key] = value

    def work(self, at: float, reads: Callable[[Store], None] | None = None) -> None:
        """Opens the store, writes what waits, and reads. A failure closes the store for RETRY_SECONDS."""
        try:
            if self.store is None:
                if self._reopen is None or at < self._retry_at:
                    return
                self.store = self._reopen()
                log.info("history store is back", extra={"store": self.name})
            while self._waiting:
                batch = [self._waiting[number] for number in range(min(len(self._waiting), MAX_BATCH))]
                self.store.append(batch)
                # Other threads append, and drop from this end when it is full, so what was written may already be gone.
                written = {id(sample) for sample in batch}
                while self._waiting and id(self._waiting[0]) in written:
                    self._waiting.popleft()
            if self._head is not None:
                self.store.save_head(*self._head)
                self._head = None
            for key, value in list(self._notes.items()):
                self.store.save_note(key, value)
                del self._notes[key]
            if reads is not None:
                reads(self.store)
        except HistoryError as error:
            log.warning("history store fails", extra={"store": self.name, "detail": str(error), "waiting": len(self._waiting)})
            self._give_up(at)
        except Exception:
            # An unexpected error is no reason to stop writing: the store is opened again like one that was down.
            log.exception("history store fails", extra={"store": self.name, "waiting": len(self._waiting)})
            self.failures += 1
            self._give_up(at)

    def _give_up(self, at: float) -> None:
        store, self.store = self.store, None
        self._retry_at = at + RETRY_SECONDS
        if store is not None:
            with contextlib.suppress(Exception):
                store.close()


class Archive:
    """The stores and their thread. `keep`, `arrived` and `save_head` may be called from the event loop; they never block on a store."""

    def __init__(
        self,
        local: HistoryStore | None,
        reopen_local: Callable[[], HistoryStore] | None,
        open_shared: Callable[[], SharedStore] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.local = Outlet[HistoryStore]("local", local, reopen_local)
        self.shared = Outlet[SharedStore]("shared", None, open_shared) if open_shared is not None else None
        self._clock = clock
        self._arrived: deque[Sample] = deque(maxlen=MAX_WAITING * 4)
        self._read_at = 0.0
        self._position: int | None = None
        self._positioned = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        # Unexpected errors of the thread, beside those of the stores.
        self.failures = 0

    def start(self) -> None:
        """Starts the thread, or starts it again if it ended unexpectedly."""
        if self.alive or self._stop.is_set():
            return
        if self._thread is not None:
            log.error("the history's thread has ended: starting it again")
            self.failures += 1
        self._thread = threading.Thread(target=self._run, name="archive", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def keep(self, sample: Sample) -> None:
        """Writes a sample soon."""
        self.local.put(sample)
        if self.shared is not None:
            self.shared.put(sample)

    def save_head(self, version: int, data: bytes) -> None:
        self.local.put_head(version, data)
        if self.shared is not None:
            self.shared.put_head(version, data)

    def outlets(self) -> tuple[Outlet[Any], ...]:
        """Returns the stores that are configured."""
        return (self.local,) if self.shared is None else (self.local, self.shared)

    def arrived(self, most: int) -> list[Sample]:
        """Returns samples of other replicas, each once, oldest first."""
        result: list[Sample] = []
        while self._arrived and len(result) < most:
            result.append(self._arrived.popleft())
        return result

    def close(self) -> None:
        """Writes what waits, once, and ends the thread."""
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    def step(self) -> None:
        """One round of the thread."""
        at = self._clock()
        self.local.work(at)
        if self.shared is not None:
            self.shared.work(at, self._read if at >= self._read_at else None)

    def _read(self, store: SharedStore) -> None:
        local = self.local.store
        if not self._positioned and local is not None:
            noted = local.note(POSITION_NOTE)
            self._position = int(noted) if noted else None
        self._positioned = True
        samples, position = store.newer(self._position, MAX_BATCH)
        # They go to the local store as well, so that a restart without the database starts with them.
        for sample in samples:
            self._arrived.append(sample)
            self.local.put(sample)
        if position != self._position:
            self._position = position
            self.local.put_note(POSITION_NOTE, str(position))
        self._read_at = self._clock() + (0.0 if len(samples) == MAX_BATCH else READ_SECONDS)

    def _run(self) -> None:
        while not self._stop.wait(WRITE_SECONDS):
            self._try_step()
        self._try_step()
        for store in (self.local.store, self.shared.store if self.shared is not None else None):
            if store is not None:
                store.close()

    def _try_step(self) -> None:
        try:
            self.step()
        except Exception:
            log.exception("the history's thread failed and goes on")
            self.failures += 1

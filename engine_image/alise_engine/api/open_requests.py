"""Counts open HTTP requests; the drain waits for them, and a new one wakes the poll of the engine. `engine_api.py` owns it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class OpenRequests:
    def __init__(self) -> None:
        self._count = 0
        self._on_open: list[Callable[[], None]] = []

    @property
    def count(self) -> int:
        return self._count

    def on_open(self, call: Callable[[], None]) -> None:
        """`call` runs whenever a request opens; it must not block."""
        self._on_open.append(call)

    @contextmanager
    def entered(self) -> Iterator[None]:
        self._count += 1
        try:
            for call in self._on_open:
                call()
            yield
        finally:
            self._count -= 1

"""Encoding beside the event loop: one thread, one text at a time, with a bound on how long an admission waits for it.

What is late or too much is left out: the prediction then rests on the features, which costs accuracy and never a request.
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from typing import Final

from .detail import Row
from .encoder import Encoder

MAX_WAITING: Final = 128


class EncodeQueue:
    """Encodes for many callers of one loop."""

    def __init__(self, encoder: Encoder, timeout_seconds: float, count: Callable[[str], None] = lambda outcome: None) -> None:
        self._encoder = encoder
        self._timeout_seconds = timeout_seconds
        self._count = count
        self._waiting = 0
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def encode(self, text: str) -> Row | None:
        """The text's vector, [EMBEDDING]; None when it says nothing or there was no time."""
        if not text:
            return None
        if self._waiting >= MAX_WAITING:
            self._count("busy")
            return None
        self._waiting += 1
        deadline = time.monotonic() + self._timeout_seconds
        work = asyncio.get_running_loop().run_in_executor(self._pool, self._work, text, deadline)
        work.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                vector = await asyncio.shield(work)
        except TimeoutError:
            self._count("late")
            return None
        except Exception:  # the encoder is not ours: an answer without it is better than none
            self._count("failed")
            return None
        self._count("late" if vector is None else "encoded")
        return vector

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _work(self, text: str, deadline: float) -> Row | None:
        """In the thread. What nobody waits for any more is not worked on."""
        return None if time.monotonic() > deadline else self._encoder.encode([text])[0]

    def _done(self, work: "asyncio.Future[Row | None]") -> None:
        self._waiting -= 1
        # Looked at, so that a failure after the caller has gone is not reported as never retrieved.
        if not work.cancelled():
            work.exception()

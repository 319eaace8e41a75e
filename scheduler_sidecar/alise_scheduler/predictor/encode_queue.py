"""Embeds prompts for the event loop, with a bound on how long an admission waits for it.

A text that comes alone is encoded on the loop, if the encoder has been quick lately: on a busy core, handing it to a thread and being woken
takes as long again. While others wait, or right after another text, it goes to a thread and the loop stays free. A text that is late, or
one too many, is left out: its prediction then rests on the features alone.

`run.py` creates it. `rpc/admission.py` calls `encode` for each admission, and `rpc/lengths.py` `encode_aside` for each question of an
endpoint picker. Those of endpoint pickers take at most ASIDE_SHARE of the thread's time.
"""

import asyncio
import concurrent.futures
import logging
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from .features.row import Row
from .models.encoder import Encoder

log = logging.getLogger(__name__)

MAX_WAITING: Final = 128
# After a text the loop encodes nothing for as long as that one took, and nothing while a recent text took more than this part of the
# timeout.
_LOOP_TIMEOUT_SHARE: Final = 0.25
_SMOOTHING: Final = 0.2
# The part of the last second that less urgent texts may take in the thread. More are left out.
ASIDE_SHARE: Final = 0.1


def _one_thread() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="encoder")


class EncodeQueue:
    """Encodes for many callers of one loop."""

    def __init__(
        self,
        encoder: Encoder | None,
        timeout_seconds: float,
        count: Callable[[str], None] = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] = time.thread_time,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_failure = on_failure
        # None: there is none, or it is being loaded.
        self.encoder = encoder
        self._timeout_seconds = timeout_seconds
        self._count = count
        self._clock = clock
        # CPU time of the calling thread: on a busy core a text takes longer wherever it is encoded.
        self._work_clock = work_clock
        self._waiting = 0
        self._loop_free_at = 0.0
        # The longest recent time, which decays; unknown before the first text.
        self._usual_seconds = math.inf
        self._last_seconds = 0.0
        self._pool = _one_thread()
        # When each less urgent text of the last second was encoded, and the CPU time that it took. The thread appends.
        self._aside: deque[tuple[float, float]] = deque()

    async def encode(self, text: str) -> Row | None:
        """Returns the text's vector, [EMBEDDING]; None for an empty text or if there was no time."""
        encoder = self.encoder
        if encoder is None or not text:
            return None
        began = self._clock()
        quick = self._usual_seconds <= _LOOP_TIMEOUT_SHARE * self._timeout_seconds
        if quick and not self._waiting and began >= self._loop_free_at:
            return self._on_loop(encoder, text)
        return await self._in_thread(self._work, encoder, text, began)

    async def encode_aside(self, text: str) -> Row | None:
        """Returns the vector of a text that is less urgent than an admission's, as `encode` does; None while any other text waits, and
        while such texts took more than ASIDE_SHARE of the last second.

        So an admission waits for one such text at most. It is encoded in the thread, never on the loop.
        """
        if self.encoder is None or not text or self._waiting:
            return None
        if self._aside_seconds() > ASIDE_SHARE:
            self._count("busy")
            return None
        return await self._in_thread(self._work_aside, self.encoder, text, self._clock())

    def _aside_seconds(self) -> float:
        """The CPU time of less urgent texts in the last second."""
        oldest = self._clock() - 1.0
        while self._aside and self._aside[0][0] <= oldest:
            self._aside.popleft()
        return sum(seconds for _, seconds in tuple(self._aside))

    async def _in_thread(
        self, work_on: Callable[[Encoder, str, float], Row | None], encoder: Encoder, text: str, began: float
    ) -> Row | None:
        if self._waiting >= MAX_WAITING:
            self._count("busy")
            return None
        try:
            work = asyncio.get_running_loop().run_in_executor(self._pool, work_on, encoder, text, began + self._timeout_seconds)
        except RuntimeError:
            # No thread can be started, or the pool has been shut down: another one, and no embedding for this request.
            log.exception("the thread of the encoder has ended; a new one starts")
            self._pool = _one_thread()
            self._count("failed")
            self._on_failure()
            return None
        self._waiting += 1
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

    def _on_loop(self, encoder: Encoder, text: str) -> Row | None:
        began = self._clock()
        try:
            vector = self._timed(encoder, text)
        except Exception:  # as above
            self._count("failed")
            return None
        now = self._clock()
        self._loop_free_at = now + self._last_seconds
        self._count("late" if now - began > self._timeout_seconds else "encoded")
        return vector

    def _work(self, encoder: Encoder, text: str, deadline: float) -> Row | None:
        """Runs in the thread. A text whose caller has stopped waiting is not encoded."""
        return None if self._clock() > deadline else self._timed(encoder, text)

    def _work_aside(self, encoder: Encoder, text: str, deadline: float) -> Row | None:
        """As `_work`, and notes how long it took."""
        began = self._work_clock()
        try:
            return self._work(encoder, text, deadline)
        finally:
            self._aside.append((self._clock(), self._work_clock() - began))

    def _timed(self, encoder: Encoder, text: str) -> Row:
        began = self._work_clock()
        vector: Row = encoder.encode([text])[0]
        self._last_seconds = self._work_clock() - began
        usual = self._usual_seconds
        faded = self._last_seconds if usual == math.inf else usual + _SMOOTHING * (self._last_seconds - usual)
        self._usual_seconds = max(self._last_seconds, faded)
        return vector

    def _done(self, work: "asyncio.Future[Row | None]") -> None:
        self._waiting -= 1
        # Retrieved, so that a failure after the caller has gone is not reported as never retrieved.
        if not work.cancelled():
            work.exception()

"""Counts events over the last minute, in one-second buckets. `status.py` reports the counts."""

from typing import Final

WINDOW_SECONDS: Final = 60


class RecentCount:
    def __init__(self) -> None:
        self._counts = [0] * WINDOW_SECONDS
        # The second each bucket stands for; an older one is empty whatever it holds.
        self._seconds = [-1] * WINDOW_SECONDS

    def add(self, now_seconds: float) -> None:
        second = int(now_seconds)
        at = second % WINDOW_SECONDS
        if self._seconds[at] != second:
            self._seconds[at], self._counts[at] = second, 0
        self._counts[at] += 1

    def total(self, now_seconds: float) -> int:
        newest = int(now_seconds)
        return sum(count for count, second in zip(self._counts, self._seconds, strict=True) if newest - WINDOW_SECONDS < second <= newest)

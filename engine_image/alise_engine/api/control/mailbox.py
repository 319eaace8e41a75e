"""Merges what one watcher has not read yet: a slow watcher gets the newest state, not a growing queue.

Its size is bounded by the active requests and MAX_FINISHED unread endings; beyond that the watcher has to start from a new snapshot.
`progress.py` puts rows in, and `server.py` reads them.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from ...errors import WatcherTooSlow
from ...wire.calls import MAX_STEPS_PER_POLL, Counters, FinishedRow, PollAnswer, RequestRow, StepRow

MAX_FINISHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Changes:
    requests: tuple[RequestRow, ...]
    finished: tuple[FinishedRow, ...]
    steps: tuple[StepRow, ...]
    counters: Counters
    draining: bool


class Mailbox:
    def __init__(self, announced: frozenset[str], counters: Counters, draining: bool) -> None:
        # Requests the watcher knows, from the snapshot or an update: their hint is not sent again.
        self._announced = set(announced)
        self._requests: dict[str, RequestRow] = {}
        self._finished: list[FinishedRow] = []
        self._steps: deque[StepRow] = deque(maxlen=MAX_STEPS_PER_POLL)
        self._counters = counters
        self._draining = draining
        self._changed = False

    @property
    def changed(self) -> bool:
        return self._changed

    def put(self, answer: PollAnswer) -> None:
        """Raises WatcherTooSlow when too many endings are unread."""
        for row in answer.requests:
            self._requests[row.request_id] = self._with_hint(row)
        for ending in answer.finished:
            # A request that began and ended between two updates is still sent with its hint: a restarted sidecar has no other source.
            if ending.request_id in self._announced:
                self._requests.pop(ending.request_id, None)
        self._finished.extend(answer.finished)
        self._steps.extend(answer.steps)
        self._changed |= bool(answer.requests or answer.finished or answer.steps) or answer.counters != self._counters
        self._counters = answer.counters
        if len(self._finished) > MAX_FINISHED:
            raise WatcherTooSlow(f"{len(self._finished)} endings were not read; open a new Watch and start from its snapshot")

    def put_draining(self, draining: bool) -> None:
        self._changed |= draining != self._draining
        self._draining = draining

    def take(self) -> Changes:
        """Returns everything unread, merged, and empties the box."""
        changes = Changes(tuple(self._requests.values()), tuple(self._finished), tuple(self._steps), self._counters, self._draining)
        self._announced.update(self._requests)
        self._announced.difference_update(ending.request_id for ending in self._finished)
        self._requests, self._finished, self._changed = {}, [], False
        self._steps.clear()
        return changes

    def _with_hint(self, row: RequestRow) -> RequestRow:
        if row.request_id in self._announced:
            return replace(row, hint="") if row.hint else row
        # The core names the hint once; a row that overtakes it unread keeps it.
        unread = self._requests.get(row.request_id)
        return replace(row, hint=unread.hint) if unread is not None and not row.hint else row

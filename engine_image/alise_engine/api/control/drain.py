"""Drains the pod: accepts requests a little longer, then refuses them, then waits until every open one has finished.

    SERVING ──begin──▶ ACCEPTING ──time has run out──▶ REFUSING

Endpoints take time to forget a terminating pod, so requests still arrive for seconds after the drain began: refusing them at once would
cost requests that another pod would have served. There is no way back: a pod that drains is about to end. `server.py` calls it, and
`engine_api.py` asks whether new requests are accepted.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from ...errors import InvalidCall
from ..open_requests import OpenRequests

CHECK_SECONDS: Final = 0.050


class Phase(Enum):
    SERVING = "serving"
    ACCEPTING = "accepting"
    REFUSING = "refusing"


class Event(Enum):
    BEGIN = "begin"
    REFUSE = "refuse"


# A second drain of the same pod changes nothing but may bring the refusing forward.
TRANSITIONS: Final = {
    (Phase.SERVING, Event.BEGIN): Phase.ACCEPTING,
    (Phase.ACCEPTING, Event.BEGIN): Phase.ACCEPTING,
    (Phase.REFUSING, Event.BEGIN): Phase.REFUSING,
    (Phase.ACCEPTING, Event.REFUSE): Phase.REFUSING,
    (Phase.REFUSING, Event.REFUSE): Phase.REFUSING,
}


@dataclass(frozen=True, slots=True)
class Drained:
    finished: bool
    open_requests: int
    waited_seconds: float


class Drain:
    def __init__(
        self,
        open_requests: OpenRequests,
        live_count: Callable[[], Awaitable[int]],
        on_refusing: Callable[[], None],
    ) -> None:
        """`live_count` asks the engine what it still has: a background response outlives its HTTP request."""
        self._open_requests = open_requests
        self._live_count = live_count
        self._on_refusing = on_refusing
        self._phase = Phase.SERVING

    @property
    def draining(self) -> bool:
        return self._phase is not Phase.SERVING

    @property
    def refusing(self) -> bool:
        return self._phase is Phase.REFUSING

    async def drain(self, accept_seconds: float, timeout_seconds: float) -> Drained:
        """Returns when every request has finished or `timeout_seconds` have passed. Raises InvalidCall for negative or infinite times."""
        for name, seconds in (("accept_seconds", accept_seconds), ("timeout_seconds", timeout_seconds)):
            if not math.isfinite(seconds) or seconds < 0:
                raise InvalidCall(f"{name} is {seconds}: expected a number of seconds, 0 or more")
        started = time.monotonic()
        self._move(Event.BEGIN)
        # The pod is ending even when the caller gives up on the drain, so the refusing does not depend on this coroutine.
        asyncio.get_running_loop().call_later(min(accept_seconds, timeout_seconds), self._refuse)
        while True:
            waited = time.monotonic() - started
            if self.refusing and await self._ended_within(max(CHECK_SECONDS, timeout_seconds - waited)):
                return Drained(True, self._open_requests.count, waited)
            waited = time.monotonic() - started
            if waited >= timeout_seconds and self.refusing:
                return Drained(False, self._open_requests.count, waited)
            await asyncio.sleep(CHECK_SECONDS)

    async def _ended_within(self, seconds: float) -> bool:
        """Returns whether every request finished in time. The drain ends in time even if the engine is stuck and does not answer."""
        try:
            return await asyncio.wait_for(self._ended(), seconds)
        except TimeoutError:
            return False

    async def _ended(self) -> bool:
        return self._open_requests.count == 0 and await self._live_count() == 0 and self._open_requests.count == 0

    def _refuse(self) -> None:
        self._move(Event.REFUSE)
        self._on_refusing()

    def _move(self, event: Event) -> None:
        self._phase = TRANSITIONS[self._phase, event]

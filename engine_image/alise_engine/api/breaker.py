"""Circuit breaker before the sidecar; pure. After several failures in a row it is not asked for a short time: a dead sidecar costs ~0 ms.

            TRIPPED             PROBED
    CLOSED ─────────▶ OPEN ─────────────▶ HALF_OPEN
       ▲                ▲                  │    │
       │                └ FAILED, ABANDONED┘    │
       └──────────────── ANSWERED ──────────────┘

In HALF_OPEN exactly one request asks; the others go in at the neutral level. `admission.py` keeps the state.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

FAILURES_TO_OPEN: Final = 5
OPEN_SECONDS: Final = 1.0


class Phase(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(Enum):
    # The sidecar decided, whatever it decided.
    ANSWERED = "answered"
    # It did not, and that is not yet too often.
    FAILED = "failed"
    # It did not, once too often.
    TRIPPED = "tripped"
    # The client went away before there was an answer, which is no failure of the sidecar.
    ABANDONED = "abandoned"
    # The open time has passed, and one request tries.
    PROBED = "probed"


# Answers and failures of requests that asked before it opened arrive late: an answer is a sign of life, a failure is no news.
TRANSITIONS: Final = {
    (Phase.CLOSED, Event.ANSWERED): Phase.CLOSED,
    (Phase.CLOSED, Event.FAILED): Phase.CLOSED,
    (Phase.CLOSED, Event.TRIPPED): Phase.OPEN,
    (Phase.OPEN, Event.ANSWERED): Phase.CLOSED,
    (Phase.OPEN, Event.FAILED): Phase.OPEN,
    (Phase.OPEN, Event.PROBED): Phase.HALF_OPEN,
    (Phase.HALF_OPEN, Event.ANSWERED): Phase.CLOSED,
    (Phase.HALF_OPEN, Event.FAILED): Phase.OPEN,
    (Phase.CLOSED, Event.ABANDONED): Phase.CLOSED,
    (Phase.OPEN, Event.ABANDONED): Phase.OPEN,
    # The next request asks at once: the client of this probe has gone.
    (Phase.HALF_OPEN, Event.ABANDONED): Phase.OPEN,
}


@dataclass(frozen=True, slots=True)
class Breaker:
    phase: Phase = Phase.CLOSED
    # In a row.
    failures: int = 0
    # Monotonic; of the last time it opened.
    opened_at_seconds: float = 0.0


def asked(breaker: Breaker, now_seconds: float) -> tuple[Breaker, bool]:
    """Returns whether the next request may ask the sidecar, and the breaker after that."""
    match breaker.phase:
        case Phase.CLOSED:
            return breaker, True
        case Phase.OPEN if now_seconds - breaker.opened_at_seconds >= OPEN_SECONDS:
            return _moved(breaker, Event.PROBED), True
        case _:
            return breaker, False


def answered(breaker: Breaker) -> Breaker:
    return replace(_moved(breaker, Event.ANSWERED), failures=0)


def abandoned(breaker: Breaker) -> Breaker:
    """Returns the breaker after the client went away: no failure is counted."""
    return _moved(breaker, Event.ABANDONED)


def failed(breaker: Breaker, now_seconds: float) -> Breaker:
    failures = breaker.failures + 1
    trips = breaker.phase is Phase.CLOSED and failures >= FAILURES_TO_OPEN
    after = replace(_moved(breaker, Event.TRIPPED if trips else Event.FAILED), failures=failures)
    # A late failure must not push the next probe away; a failed probe starts the time again.
    opened = after.phase is Phase.OPEN and breaker.phase is not Phase.OPEN
    return replace(after, opened_at_seconds=now_seconds) if opened else after


def _moved(breaker: Breaker, event: Event) -> Breaker:
    """Raises KeyError, and changes nothing, for a move that is not in the table."""
    return replace(breaker, phase=TRANSITIONS[breaker.phase, event])

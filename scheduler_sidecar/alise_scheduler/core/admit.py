"""Decide whether a request may queue: compare its predicted wait with the server's limit and with the request's own objective.

`state.py` calls it for every admission. A `Rejected` request was never queued. Its message says how long it would wait, how many requests
are ahead of it and when to send it again. The number of waiting requests (`maxPending`) is limited by the engine's API server, not here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from alise_contract.names import MIN_LEVEL

from .admission_wait import Wait
from .lengths import Floats

LEVELS: Final = 256
MAX_RETRY_SECONDS: Final = 600
_DRAINING_RETRY_SECONDS: Final = 5


class Reason(Enum):
    WAIT_TOO_LONG = "wait_too_long"
    # The first token would come later than the request's or its class's objective.
    OBJECTIVE = "objective"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: Reason
    message: str
    retry_after_seconds: int


@dataclass(frozen=True, slots=True)
class AdmitLimits:
    """Limits of the server. 0 means no limit."""

    max_wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the engine is, as the last decision and the admissions since have it."""

    # Active jobs, from admission to their end.
    live: int = 0
    # Remaining seconds of work at each level, [LEVELS]; index 0 is MIN_LEVEL.
    work_seconds: Floats | None = None
    slots: float = 1.0
    draining: bool = False
    # Tenants that use more than their share of the slots.
    crowding: frozenset[str] = frozenset()

    def backlog_seconds(self) -> float:
        """Seconds until all of it is done."""
        return 0.0 if self.work_seconds is None else float(self.work_seconds.sum()) / self.slots


def work_by_level(levels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], work_seconds: Floats) -> Floats:
    """Seconds of work at each level, [LEVELS]."""
    return np.bincount(levels - MIN_LEVEL, weights=work_seconds, minlength=LEVELS).astype(np.float64)


def admit(slo_ttft_ms: int, draining: bool, limits: AdmitLimits, wait: Callable[[], Wait]) -> Rejected | None:
    """Return the reason to reject a request, or None to admit it. The wait is predicted only if a limit needs it."""
    # 1. Is the pod draining?
    if draining:
        return Rejected(Reason.DRAINING, "this replica is draining; try again", _DRAINING_RETRY_SECONDS)
    if not limits.max_wait_seconds and not slo_ttft_ms:
        return None
    predicted = wait()
    # 2. Would it wait longer than the server allows?
    if limits.max_wait_seconds and predicted.seconds > limits.max_wait_seconds:
        again = retry_after(predicted.seconds_until(limits.max_wait_seconds))
        what = f"this request would wait about {predicted.seconds:.0f} s and this server refuses those that would wait longer than"
        return Rejected(Reason.WAIT_TOO_LONG, f"{what} {round(limits.max_wait_seconds, 3):g} s{_what_to_do(predicted, again)}", again)
    # 3. Would its first token miss its objective?
    if slo_ttft_ms and predicted.turn_seconds > slo_ttft_ms / 1000:
        again = retry_after(predicted.turn_seconds - slo_ttft_ms / 1000)
        what = f"the first token would come after about {predicted.turn_seconds:.1f} s and this request asks for it within"
        return Rejected(Reason.OBJECTIVE, f"{what} {slo_ttft_ms / 1000:g} s{_what_to_do(predicted, again)}", again)
    return None


def _what_to_do(wait: Wait, again: int) -> str:
    whose = "requests are" if wait.shared else "requests of the same client are"
    shorter = ", or now with a smaller max_tokens, which gets a turn sooner" if wait.by_length else ""
    return f", because {wait.ahead} {whose} ahead of it; send it again in {again} s{shorter}"


def retry_after(seconds: float) -> int:
    """Whole seconds in [1, MAX_RETRY_SECONDS]; 1 for NaN and infinity."""
    return min(max(1, math.ceil(seconds)), MAX_RETRY_SECONDS) if math.isfinite(seconds) else 1

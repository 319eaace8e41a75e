"""May a request queue here? Its predicted wait is compared with what the server allows and with what the request can use.

A `Rejected` was never queued; it hears how long it would wait, for how many requests, and when to come again. How many requests may wait
is not decided here: the engine's API server counts them and enforces `maxPending`.
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
    # The first token would come later than the request, or its class, asks for.
    OBJECTIVE = "objective"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: Reason
    message: str
    retry_after_seconds: int


@dataclass(frozen=True, slots=True)
class AdmitLimits:
    """0: no limit."""

    max_wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """How busy the engine is."""

    # All live jobs, from admission on, the running ones included.
    live: int = 0
    # Seconds of work left by level, [LEVELS], index 0 is MIN_LEVEL.
    work_seconds: Floats | None = None
    slots: float = 1.0
    draining: bool = False
    # Tenants that ask for more than their share of the slots.
    crowding: frozenset[str] = frozenset()

    def backlog_seconds(self) -> float:
        """Time to clear everything."""
        return 0.0 if self.work_seconds is None else float(self.work_seconds.sum()) / self.slots


def work_by_level(levels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], work_seconds: Floats) -> Floats:
    """Seconds of work at each level, [LEVELS]."""
    return np.bincount(levels - MIN_LEVEL, weights=work_seconds, minlength=LEVELS).astype(np.float64)


def admit(slo_ttft_ms: int, draining: bool, limits: AdmitLimits, wait: Callable[[], Wait]) -> Rejected | None:
    """Why not, or None: it may come in. The wait is predicted only where it decides."""
    # 1. Is the pod going away?
    if draining:
        return Rejected(Reason.DRAINING, "this replica is draining; another one will answer", _DRAINING_RETRY_SECONDS)
    if not limits.max_wait_seconds and not slo_ttft_ms:
        return None
    predicted = wait()
    # 2. Would it wait longer than any request may?
    if limits.max_wait_seconds and predicted.seconds > limits.max_wait_seconds:
        again = retry_after(predicted.seconds_until(limits.max_wait_seconds))
        what = f"this request would wait about {predicted.seconds:.0f} s and this server refuses those that would wait longer than"
        return Rejected(Reason.WAIT_TOO_LONG, f"{what} {round(limits.max_wait_seconds, 3):g} s{_what_to_do(predicted, again)}", again)
    # 3. Or longer than it can use?
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
    """Whole seconds in [1, MAX_RETRY_SECONDS]; 1 for anything that is no number."""
    return min(max(1, math.ceil(seconds)), MAX_RETRY_SECONDS) if math.isfinite(seconds) else 1

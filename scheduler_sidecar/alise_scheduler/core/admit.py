"""May a request queue here? Limits of the predicted wait, answered with a predicted time to try again.

A `Rejected` was never queued. The load is what the last decision saw plus what was admitted since. How many requests may wait is not
decided here: the engine's API server counts them and enforces `maxPending`.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from alise_contract.names import MIN_LEVEL

from .lengths import Floats

LEVELS: Final = 256
MAX_RETRY_SECONDS: Final = 600
_DRAINING_RETRY_SECONDS: Final = 5


class Reason(Enum):
    WAIT_TOO_LONG = "wait_too_long"
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

    def wait_seconds(self, level: int) -> float:
        """Predicted wait of a job that arrives now at this level: the work of its level and better ones over the slots."""
        if self.work_seconds is None or self.live < self.slots:
            return 0.0
        return float(self.work_seconds[: level - MIN_LEVEL + 1].sum()) / self.slots

    def backlog_seconds(self) -> float:
        """Time to clear everything."""
        return 0.0 if self.work_seconds is None else float(self.work_seconds.sum()) / self.slots


def work_by_level(levels: np.ndarray[tuple[int, ...], np.dtype[np.int64]], work_seconds: Floats) -> Floats:
    """Seconds of work at each level, [LEVELS]."""
    return np.bincount(levels - MIN_LEVEL, weights=work_seconds, minlength=LEVELS).astype(np.float64)


def admit(level: int, slo_ttft_ms: int, load: Load, limits: AdmitLimits) -> Rejected | None:
    """Why not, or None: it may come in."""
    # 1. Is the pod going away?
    if load.draining:
        return Rejected(Reason.DRAINING, "this replica is draining; another one will answer", _DRAINING_RETRY_SECONDS)
    # 2. Would it wait longer than anyone may, or than it can use?
    wait = load.wait_seconds(level)
    allowed = min(limits.max_wait_seconds or math.inf, slo_ttft_ms / 1000 if slo_ttft_ms else math.inf)
    if wait > allowed:
        message = f"the predicted wait is {wait:.1f} s and the limit is {allowed:.1f} s"
        return Rejected(Reason.WAIT_TOO_LONG, message, retry_after(wait - allowed))
    return None


def retry_after(seconds: float) -> int:
    """Whole seconds in [1, MAX_RETRY_SECONDS]; 1 for anything that is no number."""
    return min(max(1, math.ceil(seconds)), MAX_RETRY_SECONDS) if math.isfinite(seconds) else 1

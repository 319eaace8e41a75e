"""What the engine is told, and the difference to what it was told before: only that travels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SHORTEST_MS: Final = 64
_LONGEST_SECONDS: Final = 1e7


@dataclass(frozen=True, slots=True)
class Rank:
    """Place of a job. Lower (level, order) runs first."""

    level: int
    order: int
    hold: bool = False
    # Expected wait until its turn, made coarse so that it is sent when it changed, not always.
    ewt_ms: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    preempt_levels: int
    min_quantum_steps: int
    int8_ewt_ms: int
    int8_host_fraction: float
    host_budget_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Ranks that changed, and the limits when they did."""

    ranks: Mapping[str, Rank] = field(default_factory=dict)
    limits: Limits | None = None


def coarse_ms(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Milliseconds rounded down to one and a half binary digits (64, 96, 128, 192, ...); 0 below 64 and for what is no number."""
    ms = np.floor(np.clip(np.nan_to_num(seconds, nan=0.0), 0.0, _LONGEST_SECONDS) * 1000)
    top = np.ldexp(1.0, np.frexp(np.maximum(ms, 1.0))[1] - 1)
    return np.where(ms < _SHORTEST_MS, 0.0, np.where(ms >= 1.5 * top, 1.5 * top, top)).astype(np.int64)


def diff(wanted: Mapping[str, Rank], limits: Limits, sent: Mapping[str, Rank], sent_limits: Limits | None) -> Plan:
    """The plan that takes the engine from what was sent to what is wanted."""
    return Plan(
        ranks={job: rank for job, rank in wanted.items() if sent.get(job) != rank},
        limits=None if limits == sent_limits else limits,
    )

"""What the engine is told, and the difference to what it was told before: only that travels."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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


def coarse_ms(seconds: float) -> int:
    """Milliseconds rounded down to one and a half binary digits (1, 1.5, 2, 3, 4, 6, ...) of 64 ms; 0 below that."""
    ms = int(min(max(seconds, 0.0), 1e7) * 1000) if seconds == seconds else 0
    if ms < 64:
        return 0
    top = 1 << (ms.bit_length() - 1)
    return top + top // 2 if ms >= top + top // 2 else top


def diff(wanted: Mapping[str, Rank], limits: Limits, sent: Mapping[str, Rank], sent_limits: Limits | None) -> Plan:
    """The plan that takes the engine from what was sent to what is wanted."""
    return Plan(
        ranks={job: rank for job, rank in wanted.items() if sent.get(job) != rank},
        limits=None if limits == sent_limits else limits,
    )

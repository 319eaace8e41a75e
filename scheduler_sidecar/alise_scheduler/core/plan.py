"""The plan that is sent to the engine, and its difference from what was sent before: only changes travel.

`decide.py` builds plans, `engine/convert.py` turns them into messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

_SHORTEST_MS: Final = 64
_LONGEST_MS: Final = 1e10
# Stands for "never sent" in a column of sent values.
NEVER_SENT: Final = -(1 << 40)

_Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rank:
    """The rank of a job. The lowest (level, order) runs first."""

    level: int
    order: int
    # Expected wait until its turn, rounded coarsely so that it is sent only when it really changes.
    ewt_ms: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    preempt_levels: int
    min_quantum_steps: int
    int8_ewt_ms: int
    int8_host_fraction: float
    host_budget_bytes: int
    # Running jobs of this many of the best levels keep their slot and KV memory (core/turnover.py).
    spared_levels: int = 0


@dataclass(frozen=True, slots=True)
class PredictedWork:
    """The predicted work of this pod, in its own time (core/predicted_work.py). Autoscalers read it."""

    # How long the pod needs for all requests that it has: predicted remaining work divided by the measured service rate.
    backlog_seconds: float = 0.0
    # Predicted seconds of the whole pod for the requests admitted in a second, the mean of a minute at most. Above 1, the backlog grows.
    offered_load: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """The ranks that changed, and the limits if they changed."""

    ranks: Mapping[str, Rank] = field(default_factory=dict)
    limits: Limits | None = None
    # What the engine reports in its status. None until `state.py` has added it.
    work: PredictedWork | None = None


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks as columns of J rows. `known` marks the jobs that an Apply can name."""

    jobs: tuple[str, ...]
    level: _Ints
    order: _Ints
    ewt_ms: _Ints
    known: NDArray[np.bool_]

    def at(self, rows: NDArray[np.bool_]) -> dict[str, Rank]:
        """The ranks of the marked rows, by job id."""
        (chosen,) = rows.nonzero()
        columns = (self.level[chosen].tolist(), self.order[chosen].tolist(), self.ewt_ms[chosen].tolist())
        jobs = self.jobs
        return {jobs[row]: Rank(level, order, ms) for row, level, order, ms in zip(chosen.tolist(), *columns, strict=True)}


def coarse_ms(seconds: NDArray[np.float64]) -> _Ints:
    """Milliseconds, rounded down to one and a half binary digits (64, 96, 128, 192, …). Values below 64 and NaN become 0."""
    with np.errstate(invalid="ignore"):
        ms = np.minimum(np.floor(seconds * 1000.0), _LONGEST_MS)
        ms = np.where(ms >= _SHORTEST_MS, ms, 0.0)
    fraction, exponent = np.frexp(ms)
    result: _Ints = np.ldexp(np.where(fraction >= 0.75, 0.75, np.where(fraction > 0, 0.5, 0.0)), exponent).astype(np.int64)
    return result


def sent_columns(jobs: tuple[str, ...], sent: Mapping[str, Rank]) -> _Ints:
    """The level, order and wait last sent for each job, NEVER_SENT where none was. Shape [3, J]."""
    never = (NEVER_SENT, NEVER_SENT, NEVER_SENT)
    known = (sent.get(job) for job in jobs)
    rows = [never if rank is None else (rank.level, rank.order, rank.ewt_ms) for rank in known]
    return np.ascontiguousarray(np.array(rows, dtype=np.int64).reshape(len(jobs), 3).T)


def diff(ranks: Ranks, limits: Limits, sent: _Ints, sent_limits: Limits | None) -> Plan:
    """The plan that takes the engine from the sent values, [3, J], to these ranks and limits."""
    changed = (ranks.level != sent[0]) | (ranks.order != sent[1]) | (ranks.ewt_ms != sent[2])
    return Plan(ranks=ranks.at(changed & ranks.known), limits=None if limits == sent_limits else limits)

"""Who goes first: remaining work as a level, promoted by waiting.

A level is a logarithm of seconds of work: `level = 4·log2(seconds / (neutral_seconds · weight))`, so four levels are a factor of two and
level 0 is the typical job. Requests that enter without an answer from here (level 0) are thereby treated as average. Base levels are
clipped to [-BASE_SPAN, BASE_SPAN], a thousand times shorter or longer than typical.

Ageing subtracts `4·waiting_seconds / promote_seconds`: one factor of two for each `promote_seconds` waited. These adapt to load: a
fixed rate turns any long queue into first come, first served:
`promote_seconds = clip(backlog_seconds, ageing.seconds, ageing.max_seconds)`.

No starvation. With ageing, a job that has waited BOUND_LEVELS/4 · ageing.max_seconds longer than another is never behind it, whatever
their lengths: base levels differ by at most 2·BASE_SPAN and each doubling's wait pays four. At the end of the scale (MIN_LEVEL) the
order is arrival. So only jobs that arrived at most `starvation_bound_seconds()` later can ever be ahead of a waiting job.

Policies, each a plain function from a View to seconds:
    alise    expected remaining seconds, conditioned on what was generated (shortest remaining first)
    gittins  the inverse Gittins index of the remaining distribution: the best ratio of expected effort to the chance of being done
    sjf      expected total seconds; blind to progress, never preempts
    fcfs     the same for all: order of arrival, never preempts, never ages
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np

from alise_contract.names import MAX_LEVEL, MIN_LEVEL

from .job import Ints, Snapshot
from .lengths import Floats, remaining_mean, remaining_points
from .memory import MemoryLimits

LEVELS_PER_DOUBLING: Final = 4
BASE_SPAN: Final = 40
# Ageing levels after which no base level makes up any more; one for rounding.
BOUND_LEVELS: Final = 2 * BASE_SPAN + 1
_ORDER_SPAN: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class AgeingRule:
    """Waiting `seconds` pays for a factor of two at low load, at most `max_seconds` at any."""

    seconds: float
    max_seconds: float


@dataclass(frozen=True, slots=True)
class PreemptionRule:
    # 0: never preempt by rank.
    levels: int
    min_quantum_steps: int


@dataclass(frozen=True, slots=True)
class Policy:
    name: str = "alise"
    ageing: AgeingRule | None = field(default_factory=lambda: AgeingRule(10.0, 60.0))
    preemption: PreemptionRule = field(default_factory=lambda: PreemptionRule(4, 16))
    memory: MemoryLimits = field(default_factory=MemoryLimits)


@dataclass(frozen=True, slots=True)
class View:
    """What a policy looks at; columns of J rows."""

    snapshot: Snapshot
    # Expected seconds of work left.
    remaining_seconds: Floats


def alise_seconds(view: View) -> Floats:
    """Expected remaining seconds."""
    return view.remaining_seconds


def sjf_seconds(view: View) -> Floats:
    """Expected seconds from start to end, as if nothing were done yet."""
    s = view.snapshot
    total = remaining_mean(s.lengths, np.zeros(len(s)), s.limit_tokens)
    return s.cost.seconds_left(s.prompt_tokens, total, s.prompt_tokens)


def fcfs_seconds(view: View) -> Floats:
    """The same for all."""
    return np.full(len(view.snapshot), view.snapshot.neutral_seconds)


def gittins_seconds(view: View) -> Floats:
    """Inverse Gittins index, in seconds: over all lengths d that a job might still take, the least E[min(rest, d)] / P(rest <= d).

    For a known length it is that length; for a spread-out one it is shorter than the mean while an early end is likely.
    """
    s = view.snapshot
    points, weights = remaining_points(s.lengths, s.generated_tokens, s.limit_tokens)
    done = np.cumsum(weights, axis=1)
    spent = np.cumsum(weights * points, axis=1) + points * (1.0 - done)
    ratio = np.where(weights > 0, spent / np.maximum(done, 1e-9), np.inf)
    return s.cost.seconds_left(prefill_tokens(s), ratio.min(axis=1), s.prompt_tokens + s.generated_tokens)


POLICIES: Final[Mapping[str, Callable[[View], Floats]]] = {
    "alise": alise_seconds,
    "gittins": gittins_seconds,
    "sjf": sjf_seconds,
    "fcfs": fcfs_seconds,
}


def prefill_tokens(s: Snapshot) -> Floats:
    """Tokens whose KV is nowhere and must be computed before the next one comes, per job."""
    sequences = s.samples * s.generated_tokens + s.prompt_tokens
    return np.maximum(sequences - s.device_tokens - s.host_tokens, 0.0)


def base_levels(seconds: Floats, weight: Floats, neutral_seconds: float) -> Floats:
    """Levels before ageing, in [-BASE_SPAN, BASE_SPAN], not rounded."""
    ratio = np.maximum(seconds, 1e-9) / (max(neutral_seconds, 1e-9) * weight)
    clipped: Floats = np.clip(LEVELS_PER_DOUBLING * np.log2(ratio), -BASE_SPAN, BASE_SPAN)
    return clipped


def level_of(seconds: float, weight: float, neutral_seconds: float) -> int:
    """Level of one job that has not waited yet."""
    return round(float(base_levels(np.array([seconds]), np.array([weight]), neutral_seconds)[0]))


def promote_seconds(rule: AgeingRule, backlog_seconds: float) -> float:
    """Waiting that pays for a factor of two at this load."""
    return min(max(backlog_seconds, rule.seconds), rule.max_seconds)


def starvation_bound_seconds(rule: AgeingRule) -> float:
    """A job that waited this much longer than another one is not behind it."""
    return BOUND_LEVELS / LEVELS_PER_DOUBLING * rule.max_seconds


_Order = TypeVar("_Order", int, Ints)


def order_of(arrival: _Order) -> _Order:
    """The order within a level, in [0, 2^31): arrivals, counted around."""
    return arrival % _ORDER_SPAN


def levels(view: View, policy: Policy, backlog_seconds: float) -> Ints:
    """The level of each job. Shape [J]; a longer wait never gives a higher (worse) one."""
    s = view.snapshot
    if policy.name == "fcfs":
        return np.zeros(len(s), dtype=np.int64)
    aged = base_levels(POLICIES[policy.name](view), s.weight, s.neutral_seconds)
    if policy.ageing is not None:
        aged = aged - LEVELS_PER_DOUBLING * s.waiting_seconds / promote_seconds(policy.ageing, backlog_seconds)
    result: Ints = np.clip(np.rint(aged), MIN_LEVEL, MAX_LEVEL).astype(np.int64)
    return result


def neutral_after(neutral: float, work: float, rate: float = 0.02) -> float:
    """The typical job's work after one more admission: a slow geometric mean, so that one outlier moves little. Any unit."""
    if not (math.isfinite(work) and work > 0):
        return neutral
    return float(neutral * (work / neutral) ** rate)

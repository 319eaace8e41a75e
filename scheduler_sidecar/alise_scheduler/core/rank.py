"""Order jobs by level: remaining work on a logarithmic scale, improved by age. `decide.py` calls it for every plan.

For example, a job with four times the work of the typical job has level 8, and one with a quarter of it has level -8: the level is
`4·log2(seconds / (neutral_seconds · weight))`, so four levels are a factor of two. Lower levels run first. A request that failed open has
level 0, so it is treated as a typical job. Levels before ageing are clipped to [-BASE_SPAN, BASE_SPAN], which is a factor of a thousand in
each direction.

Ageing subtracts `4·age_seconds / promote_seconds`. Age is the time since arrival, whether the job ran or waited: one factor of two for each
`promote_seconds`. Counting the whole age lets a long job that has run for a while finish instead of yielding to each new arrival, which
accounts for most of the tail latency. The rate adapts to the load, because a fixed rate turns any long queue into first come, first served:
`promote_seconds = min(max(ageing.jobs · neutral_seconds, ageing.backlog · backlog_seconds), ageing.max_seconds)`.

A policy is a plain function from a View to seconds:
    boost    the Gittins index, which stops growing from about `promote_seconds` on (the default)
    alise    expected remaining seconds, given the tokens generated so far (shortest remaining time first)
    gittins  the inverse Gittins index of the remaining distribution: the least expected effort per probability of completion
    sjf      expected total seconds; ignores progress and never preempts
    fcfs     equal for all jobs: order of arrival, no preemption, no ageing

`boost` orders by `arrival - b(s)` with b(s) = ln(1/(1 - exp(-γs)))/γ, which is optimal for the tail of a light-tailed queue whose delays
decay like exp(-γt). Here γ is ln 2 / promote_seconds. Short jobs (γs « 1) are ordered as by `gittins`. The curve is flat for long jobs,
whose level is bounded by promote_seconds, so among them arrival decides. Preemption compares the same levels.

Overload. When more work arrives than the engine can do, no order keeps every request fast, and ageing alone makes every request late. So a
job is late when it can no longer finish within `lateness.slowdown` times its time on an idle engine; it is never late before
`lateness.busy_slowdown` times its time on an engine at its usual load. The age of a late job no longer counts, and it ranks as if it were
eight times as long (`lateness.levels`), behind most jobs that can still finish in time. Below saturation hardly any job is late, so the
rule changes nothing. A job older than `lateness.overdue_seconds` is overdue. The oldest overdue jobs, up to `lateness.overdue_share` of the
slots, rank before all others.

No starvation, with lateness. Claim: the oldest active job runs next once it is older than `overdue_seconds`, for any length, progress,
weight and load; and an overdue job waits no longer than the jobs that arrived before it take on `overdue_share` of the slots. Proof: the
overdue jobs that rank first are the oldest ones, in the order of arrival, at a level that no other job can have (MIN_LEVEL; all others are
clipped to MIN_LEVEL + 1 and above). A job that arrives later is younger, so it never enters that set before an older overdue job does.
Hence the jobs ahead of an overdue job in that set are a subset of the jobs older than it. No job joins them, each leaves when it finishes,
and the set always has at least one slot, so their remaining work is served in finite time. (The work is finite because the context bounds
the length of an answer.)

No starvation, with ageing alone. Claim: a job is never behind one that arrived more than D = (2·BASE_SPAN + 1)/4 · ageing.max_seconds
later, for any lengths, progress, weights and load. Proof: let i arrive D' > D before j. Both levels are computed in one decide(), so with
one p = promote_seconds <= ageing.max_seconds. Before clipping, level(i) - level(j) = base(i) - base(j) - 4·D'/p <= 2·BASE_SPAN - 4·D'/p <
2·BASE_SPAN - (2·BASE_SPAN + 1) = -1. Rounding is monotone and moves each level by at most a half, so level(i) <= level(j). Clipping to
[MIN_LEVEL, MAX_LEVEL] preserves this, and equal levels are ordered by arrival. So only the work of jobs that arrived up to D later can be
served ahead of i. That work is finite, hence so is the wait while the engine works.

core/fairness.py shares the slots between tenants. There both claims hold among the jobs of one tenant, and every tenant always has a share.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from alise_contract.names import MAX_LEVEL, MIN_LEVEL

from .job import Ints, Snapshot
from .lengths import Floats, remaining_mean, remaining_points
from .level import COLUMNS, EARLY_DIVISOR, EARLY_PROBABILITY, LEVELS_PER_DOUBLING, bounded, gittins_index, level_of
from .memory import MemoryLimits

_ORDER_SPAN: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class AgeingRule:
    """How much age makes up for twice the work: the time of `jobs` typical jobs, or of `backlog` times the backlog if that is longer.

    It is never more than `max_seconds`.
    """

    jobs: float = 3.0
    backlog: float = 3.0
    max_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class LatenessRule:
    """Which jobs wait in overload, and for how long at most. ADR 55 and ADR 57 have the measurements."""

    # A job is in time if it finishes within this many times its unloaded time.
    slowdown: float = 6.0
    # It is never late before this many times its time in a batch of the usual size.
    busy_slowdown: float = 2.0
    # Added to the level of a late job: three doublings of its work.
    levels: int = 12
    # From this age on a job ranks before all jobs that are not overdue, oldest first.
    overdue_seconds: float = 165.0
    # The share of the slots that overdue jobs may take.
    overdue_share: float = 0.5


@dataclass(frozen=True, slots=True)
class PreemptionRule:
    # How many levels better a job must be to preempt. 0 disables preemption by rank.
    levels: int = 6
    min_quantum_steps: int = 4
    # Jobs preempt for slots and KV memory only where a slot takes longer than this share of a typical job's time to come free (ADR 67).
    turn_share: float = 0.015


@dataclass(frozen=True, slots=True)
class Policy:
    name: str = "boost"
    ageing: AgeingRule | None = field(default_factory=AgeingRule)
    # Applies to boost, alise and gittins; sjf and fcfs define the whole order themselves.
    lateness: LatenessRule | None = field(default_factory=LatenessRule)
    preemption: PreemptionRule = field(default_factory=PreemptionRule)
    memory: MemoryLimits = field(default_factory=MemoryLimits)


@dataclass(frozen=True, slots=True)
class View:
    """The input of a policy, as columns of J rows."""

    snapshot: Snapshot
    # Possible remaining tokens of each job, ascending, and their probabilities; [J, QUANTILES + 1].
    points: Floats
    probabilities: Floats
    # Expected remaining tokens and seconds of work.
    left_tokens: Floats
    remaining_seconds: Floats


def view_of(snapshot: Snapshot) -> View:
    """The distribution of each job's remaining length, given the tokens it has generated."""
    points, probabilities = remaining_points(snapshot.lengths, snapshot.generated_tokens, snapshot.limit_tokens)
    context = snapshot.prompt_tokens + snapshot.generated_tokens
    left = np.einsum("jq,jq->j", points, probabilities)
    return View(snapshot, points, probabilities, left, snapshot.cost.seconds_left(prefill_tokens(snapshot), left, context))


def alise_seconds(view: View) -> Floats:
    """Expected remaining seconds."""
    return view.remaining_seconds


def sjf_seconds(view: View) -> Floats:
    """Expected total seconds, ignoring progress."""
    s = view.snapshot
    total = remaining_mean(s.lengths, np.zeros(len(s)), s.limit_tokens)
    return s.cost.seconds_left(s.prompt_tokens, total, s.prompt_tokens)


def fcfs_seconds(view: View) -> Floats:
    """The same number for all jobs."""
    return np.full(len(view.snapshot), view.snapshot.neutral_seconds)


def gittins_seconds(view: View) -> Floats:
    """The inverse Gittins index in seconds: the least expected effort per probability of completion (see `level.gittins_index`).

    For a known length it is about the remaining time. For a wide distribution it is shorter than the mean while an early end is likely. The
    remaining prefill counts as effort, so a long prompt is not started on a small probability of a short answer.

    Quantiles carry no information below the lowest one, so an unexpectedly short answer would wait like a long one and cost more per token
    than any other. Therefore a job gets a small probability to finish at a fraction of its lowest quantile, until it has passed that point.
    """
    s = view.snapshot
    prefill = s.cost.coefficients.prefill_seconds * prefill_tokens(s)
    token = s.cost.seconds_left(np.zeros(len(s)), np.ones(len(s)), s.prompt_tokens + s.generated_tokens)
    early = np.maximum(s.lengths[:, 0] / EARLY_DIVISOR, 1.0)
    early_probability = np.where(early > s.generated_tokens, EARLY_PROBABILITY, 0.0)
    early_tokens = np.maximum(early - s.generated_tokens, 1.0)
    points, probabilities = np.ascontiguousarray(view.points.T), np.ascontiguousarray(view.probabilities.T)
    # A point that the job has passed has probability 0. Where no probability has accumulated yet, the ratio is infinite.
    with np.errstate(divide="ignore"):
        return gittins_index(points, probabilities, early_tokens, early_probability, token, prefill, COLUMNS)


POLICIES: Final[Mapping[str, Callable[[View], Floats]]] = {
    "boost": gittins_seconds,
    "alise": alise_seconds,
    "gittins": gittins_seconds,
    "sjf": sjf_seconds,
    "fcfs": fcfs_seconds,
}


def prefill_tokens(s: Snapshot) -> Floats:
    """Tokens of each job whose KV is neither on the device nor on the host, so that prefill must compute it first."""
    sequences = s.samples * s.generated_tokens + s.prompt_tokens
    return np.maximum(sequences - s.device_tokens - s.host_tokens, 0.0)


def base_levels(seconds: Floats, weight: Floats, neutral_seconds: float, ends_at_seconds: float = math.inf) -> Floats:
    """Levels before ageing, in [-BASE_SPAN, BASE_SPAN], not rounded. Work beyond about `ends_at_seconds` no longer raises a level."""
    return bounded(level_of(seconds, weight, neutral_seconds, ends_at_seconds, COLUMNS), COLUMNS)


def promote_seconds(rule: AgeingRule, backlog_seconds: float, neutral_seconds: float) -> float:
    """The age that makes up for twice the work at this load."""
    wanted = max(rule.jobs * neutral_seconds, rule.backlog * backlog_seconds, 1e-3)
    return min(wanted, rule.max_seconds)


_Order = TypeVar("_Order", int, Ints)


def order_of(arrival: _Order) -> _Order:
    """The order within a level, in [0, 2^31): the number of the arrival, which wraps around."""
    return arrival % _ORDER_SPAN


def lateness_of(policy: Policy) -> LatenessRule | None:
    """The lateness rule of a policy; None if it has none."""
    return policy.lateness if policy.name in ("boost", "alise", "gittins") else None


def late(view: View, rule: LatenessRule | None) -> NDArray[np.bool_]:
    """Marks the jobs that could not finish within `slowdown` times their unloaded time even alone on the engine. Shape [J].

    On an engine that runs many requests at once, a large batch alone can take that long, and no order can change that. So a job is not late
    before `busy_slowdown` times its time in a batch of the usual size. A job that exceeds its prediction is expected to be longer, and so
    may be in time again.
    """
    s = view.snapshot
    if rule is None:
        return np.zeros(len(s), dtype=np.bool_)
    c, left = s.cost.coefficients, view.left_tokens
    context, total = s.prompt_tokens + s.generated_tokens, s.generated_tokens + left
    rest = c.alone_seconds(prefill_tokens(s), left, context)
    alone = c.alone_seconds(s.prompt_tokens, total, context)
    beside = s.cost.seconds_left(s.prompt_tokens, total, s.prompt_tokens)
    result: NDArray[np.bool_] = s.age_seconds + rest > np.maximum(rule.slowdown * alone, rule.busy_slowdown * beside)
    return result


def overdue(snapshot: Snapshot, rule: LatenessRule | None, slots: float) -> Ints:
    """Rows of the oldest overdue jobs: as many as their share of the slots holds, and at least one."""
    if rule is None:
        return np.zeros(0, dtype=np.int64)
    (rows,) = (snapshot.age_seconds > rule.overdue_seconds).nonzero()
    rows = rows[np.argsort(snapshot.order[rows], kind="stable")]
    samples = snapshot.samples[rows]
    fits: Ints = rows[np.cumsum(samples) - samples < max(1.0, rule.overdue_share * slots)]
    return fits


def levels(view: View, policy: Policy, backlog_seconds: float, slots: float, is_late: NDArray[np.bool_]) -> Ints:
    """The level of each job. Shape [J]. For a job that is in time, age never makes it worse. `is_late` is the result of `late`."""
    s = view.snapshot
    if policy.name == "fcfs":
        return np.zeros(len(s), dtype=np.int64)
    promote = math.inf if policy.ageing is None else promote_seconds(policy.ageing, backlog_seconds, s.neutral_seconds)
    seconds = POLICIES[policy.name](view)
    base = base_levels(seconds, s.weight, s.neutral_seconds, promote if policy.name == "boost" else math.inf)
    wanted = base - s.age_seconds * (LEVELS_PER_DOUBLING / promote)
    rule = lateness_of(policy)
    if rule is not None and is_late.any():
        wanted = np.where(is_late, base_levels(seconds, s.weight, s.neutral_seconds) + rule.levels, wanted)
    result: Ints = np.rint(np.minimum(np.maximum(wanted, MIN_LEVEL if rule is None else MIN_LEVEL + 1), MAX_LEVEL)).astype(np.int64)
    result[overdue(s, rule, slots)] = MIN_LEVEL
    return result


def neutral_after(neutral: float, work: float, rate: float = 0.02) -> float:
    """The typical job's work after one more admission, in any unit: a slow geometric mean, so that one outlier changes it little."""
    if not (math.isfinite(work) and work > 0):
        return neutral
    return float(neutral * (work / neutral) ** rate)

"""Who goes first: remaining work as a level, promoted by age.

A level is a logarithm of seconds of work: `base = 4·log2(seconds / (neutral_seconds · weight))`, so four levels are a factor of two and
level 0 is the typical job. Requests that enter without an answer from here (level 0) are thereby treated as average. Base levels are
clipped to [-BASE_SPAN, BASE_SPAN], a thousand times shorter or longer than typical.

Ageing subtracts `4·age_seconds / promote_seconds`, age being the time since arrival, running or not: one factor of two for each
`promote_seconds`. Counting all of the age lets a long job that has run for a while finish, instead of yielding to every newcomer, and
that is most of what the tail of the latencies is. The rate adapts to the load: a fixed one turns any long queue into first come, first
served, `promote_seconds = min(max(ageing.jobs · neutral_seconds, ageing.backlog · backlog_seconds), ageing.max_seconds)`.

Policies, each a plain function from a View to seconds:
    boost    the Gittins index again, but from about `promote_seconds` on longer is no worse (the default)
    alise    expected remaining seconds, conditioned on what was generated (shortest remaining first)
    gittins  the inverse Gittins index of the remaining distribution: the best ratio of expected effort to the chance of being done
    sjf      expected total seconds; blind to progress, never preempts
    fcfs     the same for all: order of arrival, never preempts, never ages

`boost` orders by `arrival - b(s)` with b(s) = ln(1/(1 - exp(-γs)))/γ, which is optimal for the tail of a light-tailed queue whose delays
decay like exp(-γt). Our γ is ln 2 / promote_seconds. Short jobs (γs « 1) are ordered as by `gittins`; the curve is flat for long ones,
whose level is bounded by promote_seconds, so that among them arrival decides. Preemption compares the same levels.

Overload. No order serves everybody soon when more work arrives than the engine can do; ageing alone then makes everybody late. So a job
that can no longer end within `lateness.slowdown` times what it would take on an idle engine is late (but never before twice what it takes
on an engine that is as busy as usual): its age counts no more, and it ranks
as if it were eight times as long (`lateness.levels`), behind most of those that can still be in time. Below saturation hardly a job is
ever late, and nothing changes. A job that is older than `lateness.overdue_seconds` is overdue, and the oldest of the overdue, as many as
`lateness.overdue_share` of the slots hold, rank before everybody.

No starvation, with lateness. Claim: the oldest live job runs next once it is older than `overdue_seconds`, whatever its length, progress
and weight and whatever the load; and a job that is overdue waits no longer than the work of the jobs that arrived before it takes on
`overdue_share` of the slots. Proof: the overdue jobs that rank first are the oldest ones, at a level that no other job can have
(MIN_LEVEL; all others are clipped to MIN_LEVEL + 1 and above), in the order of arrival. A job that arrives later is younger, so it never
enters that set before an older overdue job does. Hence the jobs ahead of an overdue job in that set are a part of those older than it;
no job joins them, each leaves when it ends, and the set always takes at least one slot, so it works off their remaining work, which is
finite. (A limit on the answer's length makes it so: the context.)

No starvation, with ageing alone. Claim: a job is never behind one that arrived more than D = (2·BASE_SPAN + 1)/4 · ageing.max_seconds
later, whatever their lengths, progress and weights and whatever the load. Proof: let i arrive D' > D before j. Both levels are made in
one decide(), so with one p = promote_seconds <= ageing.max_seconds. Before clipping, level(i) - level(j) = base(i) - base(j) - 4·D'/p <=
2·BASE_SPAN - 4·D'/p < 2·BASE_SPAN - (2·BASE_SPAN + 1) = -1. Rounding is monotone and moves each by at most a half, so level(i) <=
level(j); the clip to [MIN_LEVEL, MAX_LEVEL] keeps that; and where they are equal, the order is arrival. So only the work of jobs that
arrived up to D later can be served ahead of i, which is finite, hence so is its wait while the engine works.

Between tenants see core/fairness.py: there both claims hold among the jobs of one tenant, and every tenant always has a share.
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
    """Waiting as long as `jobs` typical jobs take, or as `backlog` times the backlog takes, pays for a factor of two.

    At most `max_seconds`, at any load.
    """

    jobs: float = 3.0
    backlog: float = 3.0
    max_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class LatenessRule:
    """Who waits in overload, and how long at most. Figures behind the numbers: ADR 55 and ADR 57."""

    # Times its unloaded time within which a job should end.
    slowdown: float = 6.0
    # Times its time beside as many others as usual that it has in any case.
    busy_slowdown: float = 2.0
    # Levels that a late job is worse: three doublings of its work.
    levels: int = 12
    # Age from which a job goes before all that are not overdue, oldest first.
    overdue_seconds: float = 165.0
    # Of the slots, for overdue jobs.
    overdue_share: float = 0.5


@dataclass(frozen=True, slots=True)
class PreemptionRule:
    # 0: never preempt by rank.
    levels: int = 6
    min_quantum_steps: int = 4


@dataclass(frozen=True, slots=True)
class Policy:
    name: str = "boost"
    ageing: AgeingRule | None = field(default_factory=AgeingRule)
    # For boost, alise and gittins; the others promise an order of their own.
    lateness: LatenessRule | None = field(default_factory=LatenessRule)
    preemption: PreemptionRule = field(default_factory=PreemptionRule)
    memory: MemoryLimits = field(default_factory=MemoryLimits)


@dataclass(frozen=True, slots=True)
class View:
    """What a policy looks at; columns of J rows."""

    snapshot: Snapshot
    # What may be left of each job in tokens, ascending, and how likely; [J, QUANTILES + 1].
    points: Floats
    chances: Floats
    # Expected tokens and seconds of work left.
    left_tokens: Floats
    remaining_seconds: Floats


def look(snapshot: Snapshot) -> View:
    """The remaining distribution of each job, given what it has generated."""
    points, chances = remaining_points(snapshot.lengths, snapshot.generated_tokens, snapshot.limit_tokens)
    context = snapshot.prompt_tokens + snapshot.generated_tokens
    left = np.einsum("jq,jq->j", points, chances)
    return View(snapshot, points, chances, left, snapshot.cost.seconds_left(prefill_tokens(snapshot), left, context))


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
    """Inverse Gittins index, in seconds: over all lengths d that a job might still take, the least effort for d over P(rest <= d).

    The effort is E[min(rest, d)] tokens and, before them, the prefill that is still to be done: a long prompt is not worth a gamble. For a
    known length the index is about the time left; for a spread-out one it is shorter than the mean while an early end is likely.
    Quantiles say nothing of what is below the lowest, so that a very short answer that nobody foresaw would wait like a long one, and cost
    more per token than any other: until it has passed there, a job is given a small chance to end at a fraction of its lowest quantile.
    """
    s = view.snapshot
    prefill = s.cost.coefficients.prefill_seconds * prefill_tokens(s)
    token = s.cost.seconds_left(np.zeros(len(s)), np.ones(len(s)), s.prompt_tokens + s.generated_tokens)
    early = np.maximum(s.lengths[:, 0] / EARLY_DIVISOR, 1.0)
    early_probability = np.where(early > s.generated_tokens, EARLY_PROBABILITY, 0.0)
    early_tokens = np.maximum(early - s.generated_tokens, 1.0)
    points, chances = np.ascontiguousarray(view.points.T), np.ascontiguousarray(view.chances.T)
    # A point that is passed has no probability; where nothing has been passed yet, the ratio is infinite and loses to every other.
    with np.errstate(divide="ignore"):
        return gittins_index(points, chances, early_tokens, early_probability, token, prefill, COLUMNS)


POLICIES: Final[Mapping[str, Callable[[View], Floats]]] = {
    "boost": gittins_seconds,
    "alise": alise_seconds,
    "gittins": gittins_seconds,
    "sjf": sjf_seconds,
    "fcfs": fcfs_seconds,
}


def prefill_tokens(s: Snapshot) -> Floats:
    """Tokens whose KV is nowhere and must be computed before the next one comes, per job."""
    sequences = s.samples * s.generated_tokens + s.prompt_tokens
    return np.maximum(sequences - s.device_tokens - s.host_tokens, 0.0)


def base_levels(seconds: Floats, weight: Floats, neutral_seconds: float, ends_at_seconds: float = math.inf) -> Floats:
    """Levels before ageing, in [-BASE_SPAN, BASE_SPAN], not rounded; from about `ends_at_seconds` on longer is no worse."""
    return bounded(level_of(seconds, weight, neutral_seconds, ends_at_seconds, COLUMNS), COLUMNS)


def promote_seconds(rule: AgeingRule, backlog_seconds: float, neutral_seconds: float) -> float:
    """Waiting that pays for a factor of two at this load."""
    wanted = max(rule.jobs * neutral_seconds, rule.backlog * backlog_seconds, 1e-3)
    return min(wanted, rule.max_seconds)


_Order = TypeVar("_Order", int, Ints)


def order_of(arrival: _Order) -> _Order:
    """The order within a level, in [0, 2^31): arrivals, counted around."""
    return arrival % _ORDER_SPAN


def lateness_of(policy: Policy) -> LatenessRule | None:
    """The rule that holds for this policy."""
    return policy.lateness if policy.name in ("boost", "alise", "gittins") else None


def late(view: View, rule: LatenessRule | None) -> NDArray[np.bool_]:
    """Which jobs cannot end within `slowdown` times their unloaded time even if they ran alone from now on. Shape [J].

    On an engine that runs many at once, a large batch alone can take that long, and no order mends it: a job is not late before it has
    taken `busy_slowdown` times what it takes beside as many others as usual. A job that has said more than was expected of it is expected
    to be longer, and may be in time again.
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
    """Rows of the oldest jobs beyond the bound, as many as their share of the slots holds and at least one."""
    if rule is None:
        return np.zeros(0, dtype=np.int64)
    (rows,) = (snapshot.age_seconds > rule.overdue_seconds).nonzero()
    rows = rows[np.argsort(snapshot.order[rows], kind="stable")]
    samples = snapshot.samples[rows]
    fits: Ints = rows[np.cumsum(samples) - samples < max(1.0, rule.overdue_share * slots)]
    return fits


def levels(view: View, policy: Policy, backlog_seconds: float, slots: float, is_late: NDArray[np.bool_]) -> Ints:
    """The level of each job. Shape [J]; of jobs in time, a greater age never gives a higher (worse) one. `is_late` is what `late` says."""
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
    """The typical job's work after one more admission: a slow geometric mean, so that one outlier moves little. Any unit."""
    if not (math.isfinite(work) and work > 0):
        return neutral
    return float(neutral * (work / neutral) ** rate)

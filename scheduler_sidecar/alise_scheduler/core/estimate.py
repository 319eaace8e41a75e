"""Estimate the level and the work of an arriving request, in plain numbers. `state.py` calls it for every admission.

The result is what `rank.py` computes for the same job alone; both call the formulas of `level.py`, and a property test compares them.
Arrays of one row would take ten times as long, which is a twentieth of an Admit.
"""

import math
from dataclasses import dataclass

from .exec_time import LEAST_WORK_SECONDS, CostModel
from .job import Job, limit_tokens
from .lengths import QUANTILES, TAIL_FACTOR, TAIL_TOKENS, TAIL_WEIGHT
from .level import EARLY_DIVISOR, EARLY_PROBABILITY, NUMBERS, bounded, gittins_index, level_of
from .predicted_work import pod_seconds
from .rank import Policy, promote_seconds
from .reports import EngineShape

_PROBABILITY = 1.0 / (QUANTILES + TAIL_WEIGHT)
_PROBABILITIES = (_PROBABILITY,) * QUANTILES + (TAIL_WEIGHT * _PROBABILITY,)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The level of a request that has not started, and the expected seconds of work for one of its answers."""

    level: int
    work_seconds: float
    # Seconds for the same answer on an idle engine.
    alone_seconds: float
    # Seconds that a full pod spends on it (core/predicted_work.py).
    pod_seconds: float = 0.0


def estimate(job: Job, policy: Policy, engine: EngineShape, cost: CostModel, neutral_seconds: float, backlog_seconds: float) -> Estimate:
    """The estimate for a job that arrives now and has no engine requests yet."""
    limit = max(limit_tokens(job, engine), 1.0)
    tail = TAIL_FACTOR * job.lengths.tokens[-1] + TAIL_TOKENS
    points = [tokens if tokens < limit else limit for tokens in (*job.lengths.tokens, tail)]
    left = (sum(points[:-1]) + TAIL_WEIGHT * points[-1]) * _PROBABILITY
    work = max(cost.work_seconds(job.prompt_tokens, left, job.prompt_tokens), LEAST_WORK_SECONDS)
    alone = cost.coefficients.alone_seconds(job.prompt_tokens, left, job.prompt_tokens)
    pod = float(pod_seconds(cost.coefficients, engine, job.prompt_tokens, left, job.prompt_tokens))
    if policy.name == "fcfs":
        return Estimate(0, work, alone, pod)
    seconds, ends_at = work, math.inf
    if policy.name in ("boost", "gittins"):
        token = max(cost.work_seconds(0.0, 1.0, job.prompt_tokens), LEAST_WORK_SECONDS)
        prefill = cost.coefficients.prefill_seconds * job.prompt_tokens
        early = max(job.lengths.tokens[0] / EARLY_DIVISOR, 1.0)
        seconds = gittins_index(points, _PROBABILITIES, early, EARLY_PROBABILITY, token, prefill, NUMBERS)
    if policy.name == "boost" and policy.ageing is not None:
        ends_at = promote_seconds(policy.ageing, backlog_seconds, neutral_seconds)
    level = level_of(seconds, job.weight, neutral_seconds, ends_at, NUMBERS)
    # A job whose numbers are not finite counts as an average one, which does the least harm.
    return Estimate(round(bounded(level, NUMBERS)) if math.isfinite(level) else 0, work, alone, pod)

"""The level of one job that has not started, for its admission: what `rank.py` says of it alone, in plain numbers.

Columns of one row would say the same, in ten times the time, which is a twentieth of an Admit; a property test holds the two together.
"""

import math
from dataclasses import dataclass

from alise_contract.names import MAX_LEVEL, MIN_LEVEL

from .exec_time import CostModel
from .job import Job, limit_tokens
from .lengths import QUANTILES, TAIL_FACTOR, TAIL_TOKENS, TAIL_WEIGHT
from .rank import BASE_SPAN, EARLY_CHANCE, EARLY_DIVISOR, LEVELS_PER_DOUBLING, Policy, promote_seconds
from .reports import EngineShape

_CHANCE = 1.0 / (QUANTILES + TAIL_WEIGHT)


@dataclass(frozen=True, slots=True)
class Newcomer:
    """What a job that has not started is worth: its level, and the seconds of work expected of one of its answers."""

    level: int
    work_seconds: float
    # The same on an idle engine.
    alone_seconds: float


def newcomer(job: Job, policy: Policy, engine: EngineShape, cost: CostModel, neutral_seconds: float, backlog_seconds: float) -> Newcomer:
    """`job` has no requests and arrives now."""
    limit = max(limit_tokens(job, engine), 1.0)
    points = [max(min(tokens, limit), 1.0) for tokens in (*job.lengths.tokens, TAIL_FACTOR * job.lengths.tokens[-1] + TAIL_TOKENS)]
    left = (sum(points[:-1]) + TAIL_WEIGHT * points[-1]) * _CHANCE
    prefill = cost.coefficients.prefill_seconds * job.prompt_tokens
    work = max(prefill + left * _token_seconds(cost, job.prompt_tokens, left), 1e-6)
    c = cost.coefficients
    alone = prefill + left * (c.step_seconds + c.decode_seconds + c.context_seconds * job.prompt_tokens)
    if policy.name == "fcfs":
        return Newcomer(0, work, alone)
    seconds = _gittins_seconds(job, cost, prefill, points) if policy.name in ("boost", "gittins") else work
    weighted = max(seconds, 1e-9) / job.weight
    if policy.name == "boost" and policy.ageing is not None:
        rate = math.log(2) / promote_seconds(policy.ageing, backlog_seconds, neutral_seconds)
        weighted = -math.expm1(-rate * weighted) / rate
    base = LEVELS_PER_DOUBLING * math.log2(weighted / max(neutral_seconds, 1e-9))
    if not math.isfinite(base):
        # Of numbers that are none an average job is the least harm.
        return Newcomer(0, work, alone)
    return Newcomer(round(min(max(base, -BASE_SPAN, MIN_LEVEL), BASE_SPAN, MAX_LEVEL)), work, alone)


def _token_seconds(cost: CostModel, context_tokens: float, tokens: float) -> float:
    return cost.decode_step_seconds() + cost.coefficients.context_seconds * (context_tokens + tokens / 2)


def _gittins_seconds(job: Job, cost: CostModel, prefill: float, points: list[float]) -> float:
    """See `rank.gittins_seconds`."""
    token = max(_token_seconds(cost, job.prompt_tokens, 1.0), 1e-6)
    first = max(job.lengths.tokens[0] / EARLY_DIVISOR, 1.0)
    best = (prefill + first * token) / EARLY_CHANCE
    done, spent = EARLY_CHANCE, EARLY_CHANCE * first
    for number, point in enumerate(points):
        chance = (1.0 - EARLY_CHANCE) * _CHANCE * (1.0 if number < QUANTILES else TAIL_WEIGHT)
        done += chance
        spent += chance * point
        best = min(best, ((spent + point * (1.0 - done)) * token + prefill) / done)
    return max(best, 1e-6)

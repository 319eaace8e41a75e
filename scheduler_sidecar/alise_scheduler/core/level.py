"""The formulas of a level, written once for one job in plain numbers and for columns of jobs.

For example, `level_of(2.0, 1.0, 1.0, math.inf, NUMBERS)` is 4.0: twice the work of the typical job is four levels. `rank.py` calls these
functions with arrays for all jobs of a plan. `estimate.py` and the simulator call them with floats for a single request, where arrays
would take ten times as long. The functions that arithmetic operators do not cover come in a `Maths`. Nothing here depends on a policy,
a job or a clock.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic

import numpy as np

from .lengths import Floats, Number

LEVELS_PER_DOUBLING: Final = 4
BASE_SPAN: Final = 40
# The assumed probability that an answer ends at an eighth of its lowest quantile.
EARLY_PROBABILITY: Final = 0.02
EARLY_DIVISOR: Final = 8.0


@dataclass(frozen=True, slots=True)
class Maths(Generic[Number]):
    """The functions that arithmetic operators do not cover."""

    log2: Callable[[Number], Number]
    expm1: Callable[[Number], Number]
    at_least: Callable[[Number, float], Number]
    at_most: Callable[[Number, Any], Number]


NUMBERS: Final[Maths[float]] = Maths(math.log2, math.expm1, max, min)
COLUMNS: Final[Maths[Floats]] = Maths(np.log2, np.expm1, np.maximum, np.minimum)


def gittins_index(
    points: Iterable[Number],
    probabilities: Iterable[Number],
    early_tokens: Number,
    early_probability: Number,
    token_seconds: Number,
    prefill_seconds: Number,
    maths: Maths[Number],
) -> Number:
    """The inverse Gittins index in seconds: the minimum over all lengths d of the expected effort up to d, divided by P(remaining <= d).

    The effort up to d is `prefill_seconds` and then E[min(remaining, d)] tokens of `token_seconds`. `points` are the possible remaining
    lengths in tokens, ascending, with `probabilities` that sum to 1. With `early_probability` the job ends after `early_tokens` instead.
    """
    others = 1.0 - early_probability
    early_effort = early_probability * early_tokens
    best = (prefill_seconds + early_tokens * token_seconds) / early_probability
    passed, effort = 0.0 * early_probability, 0.0 * early_probability
    for point, probability in zip(points, probabilities, strict=True):
        passed = passed + probability
        effort = effort + probability * point
        ended = early_probability + others * passed
        best = maths.at_most(best, ((early_effort + others * effort + point * (1.0 - ended)) * token_seconds + prefill_seconds) / ended)
    return maths.at_least(best, 1e-6)


def level_of(seconds: Number, weight: Number, neutral_seconds: float, ends_at_seconds: float, maths: Maths[Number]) -> Number:
    """The level of this much work, neither rounded nor bounded. From about `ends_at_seconds` on, more work no longer raises it."""
    work = maths.at_least(seconds, 1e-9) / weight
    if ends_at_seconds < math.inf:
        rate = math.log(2) / ends_at_seconds
        work = -maths.expm1(-rate * work) / rate
    return LEVELS_PER_DOUBLING * maths.log2(work / max(neutral_seconds, 1e-9))


def bounded(level: Number, maths: Maths[Number]) -> Number:
    """The level within the base span, [-BASE_SPAN, BASE_SPAN]."""
    return maths.at_most(maths.at_least(level, -BASE_SPAN), BASE_SPAN)

"""The predicted length of an answer: a distribution as quantiles, conditioned on the tokens generated so far.

A `Lengths` holds QUANTILES equally likely token counts. Given that a job has generated g tokens, the points above g remain, and one more
point with half their weight stands for the tail, at 1.5 times the largest point or 1.5 times g. So a job that exceeds its prediction is
never "nearly done" for good: its expected remaining length grows with it, and its level gets gradually worse. Columns have J rows (jobs).
The predictor makes these values, `rank.py` and `estimate.py` read them. No times occur here.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# One job in plain numbers, or columns of jobs: functions over it are written once.
Number = TypeVar("Number", float, Floats)

QUANTILES: Final = 10
# The probabilities that the points of a Lengths stand for: 5%, 15%, ..., 95%.
PROBABILITIES: Final = tuple((k + 0.5) / QUANTILES for k in range(QUANTILES))
MAX_TOKENS: Final = 1_000_000
TAIL_FACTOR: Final = 1.5
TAIL_TOKENS: Final = 8.0
TAIL_WEIGHT: Final = 0.5
# Used before anything is known: lognormal with a median of 150 tokens and sigma 1.2, the shape of chat answers.
_PRIOR_MEDIAN, _PRIOR_SIGMA = 150.0, 1.2
NORMAL_QUANTILES: Final = (-1.6449, -1.0364, -0.6745, -0.3853, -0.1257, 0.1257, 0.3853, 0.6745, 1.0364, 1.6449)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Quantiles of the output length in tokens: QUANTILES of them, ascending, in [1, MAX_TOKENS]."""

    tokens: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError for quantiles that are out of range or order. `sane()` corrects them instead."""
        ok = len(self.tokens) == QUANTILES and all(1.0 <= value <= MAX_TOKENS for value in self.tokens)
        if not ok or any(a > b for a, b in zip(self.tokens, self.tokens[1:], strict=False)):
            raise ValueError(f"lengths must be {QUANTILES} ascending numbers in [1, {MAX_TOKENS}], got {self.tokens!r}")

    @property
    def median(self) -> float:
        return (self.tokens[QUANTILES // 2 - 1] + self.tokens[QUANTILES // 2]) / 2

    @property
    def mean(self) -> float:
        return sum(self.tokens) / QUANTILES


PRIOR: Final = Lengths(tuple(_PRIOR_MEDIAN * math.exp(_PRIOR_SIGMA * z) for z in NORMAL_QUANTILES))


def sane(values: Iterable[float], limit: int = 0) -> Lengths:
    """The nearest valid Lengths: values sorted and clipped to [1, limit or MAX_TOKENS]; the prior for a NaN or a wrong count."""
    top = float(min(limit, MAX_TOKENS)) if limit > 0 else float(MAX_TOKENS)
    points = tuple(values)
    if len(points) != QUANTILES or any(math.isnan(value) for value in points):
        points = PRIOR.tokens
    return Lengths(tuple(sorted(min(max(value, 1.0), top) for value in points)))


def remaining_points(quantiles: Floats, generated: Floats, limit: Floats) -> tuple[Floats, Floats]:
    """Possible remaining tokens of each job, ascending, and their probabilities, which sum to 1 in each row. [J, QUANTILES + 1] each.

    `limit` is the client's cap on output tokens, inf if there is none. Points that a job has passed have probability 0.
    """
    tail = TAIL_FACTOR * np.maximum(quantiles[:, -1], generated) + TAIL_TOKENS
    points = np.minimum(np.concatenate([quantiles, tail[:, None]], axis=1), np.maximum(limit, generated + 1.0)[:, None])
    weights = np.where(points > generated[:, None], 1.0, 0.0)
    weights[:, -1] = TAIL_WEIGHT
    weights /= weights.sum(axis=1, keepdims=True)
    return np.maximum(points - generated[:, None], 1.0), weights


def remaining_mean(quantiles: Floats, generated: Floats, limit: Floats) -> Floats:
    """Expected remaining tokens of each job, `E[L - generated | L > generated]`, at least 1. Shape [J]."""
    points, weights = remaining_points(quantiles, generated, limit)
    mean: Floats = (points * weights).sum(axis=1)
    return mean

"""How long an answer will be: a distribution, as quantiles, conditioned on what was generated already.

A `Lengths` holds QUANTILES equally likely token counts. `L | L > generated` keeps the points above `generated`; one more point of half
their weight stands for the tail, half again as far out as the last point or as the answer is long already. So a job that overruns its
prediction is not "nearly done" for ever: its expected rest grows with it, and it falls gracefully to worse levels.
Columns have J rows (jobs); times do not occur here.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# One job in plain numbers, or columns of jobs.
Number = TypeVar("Number", float, Floats)

QUANTILES: Final = 10
# The probabilities that the points of a Lengths stand for: 5%, 15%, ..., 95%.
PROBABILITIES: Final = tuple((k + 0.5) / QUANTILES for k in range(QUANTILES))
MAX_TOKENS: Final = 1_000_000
TAIL_FACTOR: Final = 1.5
TAIL_TOKENS: Final = 8.0
TAIL_WEIGHT: Final = 0.5
# Before anything is known: lognormal with median 150 tokens and sigma 1.2, the shape of chat answers.
_PRIOR_MEDIAN, _PRIOR_SIGMA = 150.0, 1.2
NORMAL_QUANTILES: Final = (-1.6449, -1.0364, -0.6745, -0.3853, -0.1257, 0.1257, 0.3853, 0.6745, 1.0364, 1.6449)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Quantiles of the output length in tokens: QUANTILES of them, ascending, in [1, MAX_TOKENS]."""

    tokens: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError when the quantiles are not what they should be; `sane()` mends instead."""
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
    """The nearest usable Lengths: each clipped to [1, limit or MAX_TOKENS], sorted; the prior where one is NaN or the count is off."""
    top = float(min(limit, MAX_TOKENS)) if limit > 0 else float(MAX_TOKENS)
    points = tuple(values)
    if len(points) != QUANTILES or any(math.isnan(value) for value in points):
        points = PRIOR.tokens
    return Lengths(tuple(sorted(min(max(value, 1.0), top) for value in points)))


def remaining_points(quantiles: Floats, generated: Floats, limit: Floats) -> tuple[Floats, Floats]:
    """What may be left of each job: tokens [J, QUANTILES + 1] ascending and their weights, which sum to 1 in each row.

    `limit` is the client's cap on output tokens, inf where there is none. Points that are passed have weight 0.
    """
    tail = TAIL_FACTOR * np.maximum(quantiles[:, -1], generated) + TAIL_TOKENS
    points = np.minimum(np.concatenate([quantiles, tail[:, None]], axis=1), np.maximum(limit, generated + 1.0)[:, None])
    weights = np.where(points > generated[:, None], 1.0, 0.0)
    weights[:, -1] = TAIL_WEIGHT
    weights /= weights.sum(axis=1, keepdims=True)
    return np.maximum(points - generated[:, None], 1.0), weights


def remaining_mean(quantiles: Floats, generated: Floats, limit: Floats) -> Floats:
    """Expected tokens left of each job, `E[L - generated | L > generated]`, at least 1. Shape [J]."""
    points, weights = remaining_points(quantiles, generated, limit)
    mean: Floats = (points * weights).sum(axis=1)
    return mean

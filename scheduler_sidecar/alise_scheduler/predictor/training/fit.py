"""Fits a head on a history. `process.py` runs it in a process of its own.

Answers that were cut have at least the observed length. They are given the median of what remains possible, first by all lengths, then by
what the kernel expects for that request.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.lengths import PROBABILITIES, TAIL_FACTOR
from ..features import conversation_effect
from ..features.row import ANSWERS_AT, PRIOR_AT, TEXT
from ..models import kernel
from ..models.head import (
    BINS,
    COMPARED,
    EXPECTED_SCALE,
    KNOTS,
    MIN_SPREAD,
    PROJECTED,
    REQUEST_SCALE,
    TEXT_SCALE,
    Head,
    Scaling,
)
from .samples import History

MAX_ROWS: Final = 15_000
MIN_ROWS: Final = 150
_FOLDS: Final = 5

Rows = NDArray[np.float32]
Flags = NDArray[np.bool_]


def train(history: History, version: int) -> Head:
    """Returns a head for this history; the same for the same history and version. Raises ValueError for fewer than MIN_ROWS rows."""
    count = len(history.log_tokens)
    if count < MIN_ROWS:
        raise ValueError(f"{count} finished requests are too few to learn from; it takes {MIN_ROWS}")
    # 1. Make the inputs comparable, and fold by conversation, so that no conversation is in two folds.
    scaling = _scaling(history)
    folds = (history.roots.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(40)).astype(np.int64) % _FOLDS
    answered = np.nan_to_num(history.numbers[:, ANSWERS_AT])
    points = scaling.points(history.numbers, history.vectors, conversation_effect.contexts(history.vectors, history.roots, answered))
    # 2. Estimate the lengths of answers that were cut.
    tokens = _uncut(history.log_tokens, history.ended, points, folds, version)
    knots = np.quantile(tokens, np.linspace(0, 1, KNOTS)).astype(np.float32)
    ranks = _ranks(tokens)
    # 3. Fit the kernel estimate, and the conversations' effect on it.
    estimate, expected = kernel.fit(points, ranks, folds, version)
    moves = conversation_effect.carry_over(history.vectors, ranks - expected, history.roots, answered)
    trust = conversation_effect.trust(moves, ranks - expected)
    held = np.clip(expected + np.float32(trust) * moves, 0.0, 1.0)
    # 4. Fit the error on held-out rows, and the shape of its distribution.
    errors = tokens - np.interp(held, np.linspace(0, 1, KNOTS), knots)
    spread, held_spread = spread_of(points, errors, folds, version)
    edges = np.quantile(held, np.arange(1, BINS) / BINS).astype(np.float32)
    table = _error_table(errors / np.maximum(held_spread, MIN_SPREAD), np.searchsorted(edges, held))
    centres = _centres(held, edges)
    return Head(version, count, scaling, estimate, spread, knots, centres, table, trust)


def spread_of(points: Rows, errors: Rows, folds: NDArray[np.int64], seed: int) -> tuple[kernel.Kernel, Rows]:
    """Fits how large errors are, on the same landmarks as the ranks, which depend on the seed."""
    return kernel.fit(points, np.abs(errors).astype(np.float32), folds, seed)


def _centres(ranks: Rows, edges: Rows) -> Rows:
    """Returns the mean rank in each bin, ascending, [BINS]."""
    bins = np.searchsorted(edges, ranks)
    ends = np.concatenate([[0.0], edges, [1.0]])
    means = [ranks[bins == number].mean() if (bins == number).any() else (ends[number] + ends[number + 1]) / 2 for number in range(BINS)]
    result: Rows = np.maximum.accumulate(np.array(means, np.float32) + np.arange(BINS, dtype=np.float32) * np.float32(1e-6))
    return result


def _scaling(history: History) -> Scaling:
    numbers = history.numbers
    known = ~np.isnan(numbers)
    many = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, numbers, 0.0).sum(axis=0) / many
    deviation = np.sqrt(np.where(known, (numbers - mean) ** 2, 0.0).sum(axis=0) / many)
    weight = np.full(numbers.shape[1], TEXT_SCALE)
    weight[: TEXT.start], weight[PRIOR_AT:] = REQUEST_SCALE, EXPECTED_SCALE
    scale = np.where(deviation > 1e-6, weight / np.maximum(deviation, 1e-6), 0.0)
    if history.vectors.any():
        _, directions = np.linalg.eigh(history.vectors.T @ history.vectors)
        wide = directions[:, ::-1][:, :COMPARED]
    else:
        wide = np.zeros((history.vectors.shape[1], COMPARED))
    basis, wide = (np.ascontiguousarray(wide[:, :count], np.float32) for count in (PROJECTED, COMPARED))
    return Scaling(mean.astype(np.float32), scale.astype(np.float32), basis, wide)


def _uncut(log_tokens: Rows, ended: Flags, points: Rows, folds: NDArray[np.int64], seed: int) -> Rows:
    if ended.all():
        return log_tokens
    floor = log_tokens + np.float32(np.log(TAIL_FACTOR))
    result = log_tokens.copy()
    seen = np.sort(log_tokens[ended])
    for row in np.flatnonzero(~ended):
        longer = seen[np.searchsorted(seen, log_tokens[row], side="right") :]
        result[row] = max(float(np.median(longer)), float(log_tokens[row])) if len(longer) else floor[row]
    _, expected = kernel.fit(points, result, folds, seed)
    errors = np.sort((log_tokens - expected)[ended])
    for row in np.flatnonzero(~ended):
        beyond = errors[np.searchsorted(errors, log_tokens[row] - expected[row], side="right") :]
        result[row] = expected[row] + float(np.median(beyond)) if len(beyond) else floor[row]
    return result


def _ranks(tokens: Rows) -> Rows:
    """Returns ranks in 0..1; equal lengths have equal ranks."""
    ordered = np.sort(tokens)
    low, high = np.searchsorted(ordered, tokens, "left"), np.searchsorted(ordered, tokens, "right")
    result: Rows = ((low + high) / (2.0 * len(tokens))).astype(np.float32)
    return result


def _error_table(errors: NDArray[Any], bins: NDArray[Any]) -> Rows:
    """Returns standardized errors at PROBABILITIES for each bin, [BINS, QUANTILES]. A bin with few rows uses those of all bins as well."""
    everything = np.quantile(errors, PROBABILITIES)
    table = np.empty((BINS, len(PROBABILITIES)), np.float32)
    for number in range(BINS):
        own = errors[bins == number]
        trust = len(own) / (len(own) + 30.0)
        table[number] = trust * np.quantile(own, PROBABILITIES) + (1 - trust) * everything if len(own) else everything
    return table

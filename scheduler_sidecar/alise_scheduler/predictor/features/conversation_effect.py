"""A conversation as a random effect: how much longer its answers are than usual for such prompts, carried over to its next turn.

The kernel regression leaves a residual for each answer. Residuals within a conversation are correlated: _CONSTANT of their variance is
shared by all turns, _RECENTLY by turns soon after one another, _SIMILARITY by turns with similar prompts, and _NOISE is independent.
The best linear unbiased prediction of the next residual follows from those so far (a Gaussian process over the conversation). Its
weights are solved when a turn finishes, not while the next one waits. All variances are of ranks (0..1).

Pure functions; `conversation.py` calls them for each turn, and `training/fit.py` for whole histories.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

# The number of newest turns that are used.
TURNS: Final = 8
# The number of answers that are counted.
MOST: Final = 16
_CONSTANT: Final = 0.010
_RECENTLY: Final = 0.010
_SIMILARITY: Final = 0.020
_NOISE: Final = 0.018
# How fast the correlation falls, per turn for _RECENTLY, and per squared distance of embeddings for _SIMILARITY.
_PASSING: Final = 0.3
_SHARPNESS: Final = 2.0
# The evidence, in squared ranks, at which the data count as much as the variances above.
_PULL: Final = 0.5
_MOST: Final = 1.2
_BLOCK: Final = 512

Rows = NDArray[np.float32]


def weights(prompts: Rows, residuals: Rows) -> Rows:
    """Returns the weights of K turns, oldest first, [..., K]. prompts [..., K, D] have length 1, or 0 if unknown; residuals [..., K]."""
    turns = np.arange(residuals.shape[-1])
    cov = _covariance(prompts @ np.swapaxes(prompts, -1, -2), np.abs(turns[:, None] - turns))
    cov = cov + _NOISE * np.eye(len(turns), dtype=np.float32)
    result: Rows = np.linalg.solve(cov, residuals[..., None])[..., 0].astype(np.float32)
    return result


def carried(similarity: Rows, turns: Rows) -> Rows:
    """Returns the expected residual of the next turn, [...]. similarity [..., K] of its prompt to theirs; turns are their `weights`."""
    ages = np.arange(turns.shape[-1], 0, -1)
    result: Rows = (_covariance(similarity, ages) * turns).sum(axis=-1)
    return result


def _covariance(similarity: Rows, apart: NDArray[np.int64]) -> Rows:
    recently = _RECENTLY * np.exp(-_PASSING * apart.astype(np.float32))
    result: Rows = _CONSTANT + recently + _SIMILARITY * np.exp(2.0 * _SHARPNESS * (similarity - 1.0))
    return result


def carry_over(vectors: Rows, residuals: Rows, roots: NDArray[np.int64], answered: Rows) -> Rows:
    """Returns the expected residual of each row from its earlier turns, [N]; 0 for a first turn.

    Rows are oldest first. vectors [N, D]; `roots` name conversations; answered [N] is the number of answers by then, MOST at most.
    """
    result = np.zeros(len(residuals), np.float32)
    for rows in _by_earlier_turns(roots, answered).values():
        for start in range(0, len(rows), _BLOCK):
            here, before = rows[start : start + _BLOCK, -1], rows[start : start + _BLOCK, :-1]
            prompts = vectors[before]
            similarity = (prompts @ vectors[here][:, :, None])[:, :, 0]
            result[here] = carried(similarity, weights(prompts, residuals[before]))
    return result


def contexts(vectors: Rows, roots: NDArray[np.int64], answered: Rows) -> Rows:
    """Returns what each row's conversation is about, [N, D], see `context`. Rows are oldest first."""
    result = vectors.copy()
    for rows in _by_earlier_turns(roots, answered).values():
        for start in range(0, len(rows), _BLOCK):
            here, before = rows[start : start + _BLOCK, -1], rows[start : start + _BLOCK, :-1]
            result[here] = context(vectors[before], vectors[here])
    return result


def context(prompts: Rows, vectors: Rows) -> Rows:
    """Returns the direction of the prompts so far, [..., K, D], with length 1; if none is known, the prompt's own vector, [..., D]."""
    total = prompts.sum(axis=-2)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    result: Rows = np.where(length > 1e-3, total / np.maximum(length, np.float32(1e-3)), vectors)
    return result


def _by_earlier_turns(roots: NDArray[np.int64], answered: Rows) -> dict[int, NDArray[np.int64]]:
    """Returns the rows with K earlier turns, TURNS at most, by K: the rows of these turns and the row itself, [M, K + 1].

    Conversations that begin with the same words have the same root. A row without answers starts a new one, and a turn continues the
    newest row that had one answer less.
    """
    newest: dict[tuple[int, int], tuple[int, ...]] = {}
    found: dict[int, list[Sequence[int]]] = {}
    for row, (root, count) in enumerate(zip(roots.tolist(), answered.astype(np.int64).tolist(), strict=True)):
        turns: tuple[int, ...] = ()
        if count:
            same = newest.get((root, count)) if count == MOST else None
            turns = same or newest.get((root, count - 1), ())
        if turns:
            found.setdefault(len(turns), []).append((*turns, row))
        newest[root, count] = (*turns, row)[-TURNS:]
    return {count: np.array(rows) for count, rows in found.items()}


def trust(moves: Rows, residuals: Rows) -> float:
    """Returns how much of the carried-over residuals was observed, about 1 with little evidence. moves, residuals [N]."""
    return float(np.clip((float(moves @ residuals) + _PULL) / (float(moves @ moves) + _PULL), 0.0, _MOST))

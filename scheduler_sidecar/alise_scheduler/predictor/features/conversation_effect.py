"""How much longer a conversation's answers are than such prompts' usually are, carried over to its next turn: its random effect.

What the kernel expects of a prompt leaves a rest. Within a conversation rests go together: ALWAYS of their variance all along, LATELY
for turns soon after one another, ALIKE for prompts alike; what is left is chance. From the rests of the turns so far follows the best
linear unbiased prediction of the next one's (a Gaussian process over the conversation), whose weights are solved when a turn ends, not
when the next one waits. All variances are of ranks (0..1).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

# So many newest turns are looked at.
TURNS: Final = 8
# So many answers are counted.
MOST: Final = 16
_ALWAYS: Final = 0.010
_LATELY: Final = 0.010
_ALIKE: Final = 0.020
_CHANCE: Final = 0.018
# How soon "lately" passes, per turn, and "alike", per squared distance of embeddings.
_PASSING: Final = 0.3
_SHARPNESS: Final = 2.0
# How much evidence, in squared ranks, it takes to doubt the variances above by half.
_PULL: Final = 0.5
_MOST: Final = 1.2
_BLOCK: Final = 512

Rows = NDArray[np.float32]


def weights(asked: Rows, rests: Rows) -> Rows:
    """What each of K turns, oldest first, weighs: [..., K]. asked [..., K, D], of length 1, or 0 where it is not known; rests [..., K]."""
    turns = np.arange(rests.shape[-1])
    cov = _covariance(asked @ np.swapaxes(asked, -1, -2), np.abs(turns[:, None] - turns)) + _CHANCE * np.eye(len(turns), dtype=np.float32)
    made: Rows = np.linalg.solve(cov, rests[..., None])[..., 0].astype(np.float32)
    return made


def carried(likeness: Rows, turns: Rows) -> Rows:
    """The rest to expect of the next turn, [...]: `likeness` [..., K] of its prompt to theirs, `turns` what `weights` gave them."""
    ages = np.arange(turns.shape[-1], 0, -1)
    made: Rows = (_covariance(likeness, ages) * turns).sum(axis=-1)
    return made


def _covariance(likeness: Rows, apart: NDArray[np.int64]) -> Rows:
    made: Rows = _ALWAYS + _LATELY * np.exp(-_PASSING * apart.astype(np.float32)) + _ALIKE * np.exp(2.0 * _SHARPNESS * (likeness - 1.0))
    return made


def carry_over(vectors: Rows, rests: Rows, roots: NDArray[np.int64], answered: Rows) -> Rows:
    """What earlier turns say of each row's rest, [N], 0 for a first turn. Rows oldest first; vectors [N, D]; `roots` name conversations,
    answered [N] says how many answers each had by then, MOST at most."""
    made = np.zeros(len(rests), np.float32)
    for rows in _by_earlier_turns(roots, answered).values():
        for start in range(0, len(rows), _BLOCK):
            here, before = rows[start : start + _BLOCK, -1], rows[start : start + _BLOCK, :-1]
            asked = vectors[before]
            likeness = (asked @ vectors[here][:, :, None])[:, :, 0]
            made[here] = carried(likeness, weights(asked, rests[before]))
    return made


def contexts(vectors: Rows, roots: NDArray[np.int64], answered: Rows) -> Rows:
    """What each row's conversation is about, [N, D]: see `context`. Rows oldest first."""
    made = vectors.copy()
    for rows in _by_earlier_turns(roots, answered).values():
        for start in range(0, len(rows), _BLOCK):
            here, before = rows[start : start + _BLOCK, -1], rows[start : start + _BLOCK, :-1]
            made[here] = context(vectors[before], vectors[here])
    return made


def context(asked: Rows, vectors: Rows) -> Rows:
    """The direction of the prompts so far, asked [..., K, D], of length 1; where none is known the prompt's own, vectors [..., D]."""
    total = asked.sum(axis=-2)
    length = np.linalg.norm(total, axis=-1, keepdims=True)
    made: Rows = np.where(length > 1e-3, total / np.maximum(length, np.float32(1e-3)), vectors)
    return made


def _by_earlier_turns(roots: NDArray[np.int64], answered: Rows) -> dict[int, NDArray[np.int64]]:
    """Rows with K earlier turns (TURNS at most) by K: the turns' rows and its own, [M, K + 1].

    A conversation that begins with the same words as another has the same root: who had no answer yet begins anew, and a turn goes on from
    the newest one that had an answer less.
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


def trust(moves: Rows, rests: Rows) -> float:
    """How much of what is carried over came true, 1 where little is known. moves, rests [N]."""
    return float(np.clip((float(moves @ rests) + _PULL) / (float(moves @ moves) + _PULL), 0.0, _MOST))

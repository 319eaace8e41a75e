"""The nearest past prompts and what their answers' lengths say: an index in memory over the newest requests.

Brute force over projected vectors: 10,000 of 64 dimensions are 640 kB to go through, which an approximate index would not undercut by
enough to pay for being approximate. Older rows add little: lengths drift, and near duplicates are recent. A conversation's own turns are
left out, in training as in serving: what they say is said better by its own numbers (`detail.py`).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .grid import UNIT_STEP, place, products

INDEX_ROWS: Final = 10_000
NEIGHBOURS: Final = 25
# How much nearer counts for more: weight e^(SHARPNESS · similarity).
_SHARPNESS: Final = 12.0
# A similarity below all there are: of rows that are left out.
_OWN: Final = -2.0
NAMES: Final = (
    "near_mean", "near_spread", "near_best", "near_similarity", "near_median", "near_five", "near_one", "near_low", "near_high",
)  # fmt: skip

Rows = NDArray[np.float32]


def statistics(similarity: Rows, log_tokens: Rows) -> Rows:
    """What K neighbours say, one column per name in NAMES. similarity, log_tokens [N, K], in any order -> [N, 9]."""
    order = np.argsort(-similarity, axis=1, kind="stable")
    similarity, tokens = np.take_along_axis(similarity, order, 1), np.take_along_axis(log_tokens, order, 1)
    weights = np.exp(_SHARPNESS * (similarity - similarity[:, :1]))
    weights /= weights.sum(axis=1, keepdims=True)
    mean = (weights * tokens).sum(axis=1)
    spread = np.sqrt((weights * (tokens - mean[:, None]) ** 2).sum(axis=1))
    ranked = np.sort(tokens, axis=1)
    k = ranked.shape[1]
    columns = (
        mean, spread, similarity[:, 0], similarity.mean(axis=1), ranked[:, k // 2], tokens[:, :5].mean(axis=1), tokens[:, 0],
        ranked[:, k // 5], ranked[:, k - 1 - k // 5],
    )  # fmt: skip
    return np.stack(columns, axis=1).astype(np.float32)


def leave_out(vectors: Rows, log_tokens: Rows, roots: NDArray[np.int64], count: int = NEIGHBOURS, block: int = 512) -> Rows:
    """`statistics` of every row against all of other conversations. vectors [N, D] of length 1 -> [N, 9]; NaN where they are too few."""
    made = np.full((len(vectors), len(NAMES)), np.nan, np.float32)
    if len(vectors) <= 2 * count:
        return made
    # As the index has them.
    rounded = place(vectors, UNIT_STEP) * np.float32(UNIT_STEP)
    for start in range(0, len(vectors), block):
        part = slice(start, min(start + block, len(vectors)))
        similarity = rounded[part] @ rounded.T
        own = roots[part, None] == roots[None, :]
        similarity[own] = _OWN
        near = np.argpartition(-similarity, count, axis=1)[:, :count]
        made[part] = statistics(np.take_along_axis(similarity, near, 1), log_tokens[near])
        made[part][len(vectors) - own.sum(axis=1) <= count] = np.nan
    return made


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The K nearest of one prompt: similarity and log tokens, both [K], in any order."""

    similarity: Rows
    log_tokens: Rows

    def statistics(self) -> Rows:
        """What `statistics` makes of one row, [9], in a third of the time."""
        order = np.argsort(-self.similarity, kind="stable")
        similarity, tokens = self.similarity.take(order), self.log_tokens.take(order)
        weights = np.exp(_SHARPNESS * (similarity - similarity[0]))
        weights /= weights.sum()
        mean = weights @ tokens
        off = tokens - mean
        ranked = np.sort(tokens)
        k = len(ranked)
        columns = (
            mean, math.sqrt(weights @ (off * off)), similarity[0], similarity.sum() / k, ranked[k // 2], tokens[:5].sum() / min(5, k),
            tokens[0], ranked[k // 5], ranked[k - 1 - k // 5],
        )  # fmt: skip
        return np.array(columns, np.float32)


class Index:
    """A ring of the newest rows. Vectors have length 1."""

    def __init__(self, dimensions: int, rows: int = INDEX_ROWS) -> None:
        self._vectors = np.zeros((rows, dimensions), np.int8)
        self._tokens = np.zeros(rows, np.float32)
        self._roots = np.zeros(rows, np.uint64)
        self._next = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, vector: Rows, log_tokens: float, root: int = 0) -> None:
        """`root` names its conversation; 0: of none."""
        self._vectors[self._next] = place(vector, UNIT_STEP)
        self._roots[self._next] = root
        self._tokens[self._next] = log_tokens
        self._next = (self._next + 1) % len(self._tokens)
        self._count = min(self._count + 1, len(self._tokens))

    def nearest(self, vector: Rows, count: int = NEIGHBOURS, root: int = 0) -> Neighbours | None:
        """Of other conversations than `root`. None while there are not twice as many rows as asked for, or these have no more than that."""
        if self._count <= 2 * count:
            return None
        similarity = products(place(vector, UNIT_STEP)[None], self._vectors[: self._count])[0] * np.float32(UNIT_STEP**2)
        if root:
            own = self._roots[: self._count] == np.uint64(root)
            if self._count - np.count_nonzero(own) <= count:
                return None
            similarity[own] = _OWN
        near = np.argpartition(similarity, self._count - count)[self._count - count :]
        return Neighbours(similarity[near], self._tokens[near])

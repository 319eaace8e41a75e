"""The nearest past prompts and the lengths of their answers: an index in memory over the newest requests. The paper's rule needs it.

It compares with all rows. 10,000 vectors of 64 dimensions are 640 kB, for which an approximate index would save too little. Older rows add
little: lengths drift, and near duplicates are recent.

Two kinds of rows are left out, in training as in serving. A conversation's own turns are represented better by `features/conversation.py`.
Copies of a prompt that another tenant sent must not reveal that this tenant sent the prompt before.

`paper.py` calls `leave_out` and holds an `Index`.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alise_scheduler.predictor.models.quantization import UNIT_STEP, Quantized, products, quantize, squares
from alise_scheduler.predictor.shares import FairSlots

INDEX_ROWS: Final = 10_000
NEIGHBOURS: Final = 25
# A neighbour has the weight e^(SHARPNESS * similarity).
_SHARPNESS: Final = 12.0
# A similarity below all others, for rows that are left out.
_OWN: Final = -2.0
# Two rows are copies up to this squared distance, a cosine of .999, and what rounding to the grid adds per dimension, in steps².
_COPY: Final = 0.002 / UNIT_STEP**2
_ROUNDING: Final = 1.0 / 6.0
NAMES: Final = (
    "near_mean", "near_spread", "near_best", "near_similarity", "near_median", "near_five", "near_one", "near_low", "near_high",
)  # fmt: skip

Rows = NDArray[np.float32]


def statistics(similarity: Rows, log_tokens: Rows) -> Rows:
    """Returns statistics of K neighbours, one column for each of NAMES. similarity, log_tokens [N, K], in any order -> [N, 9]."""
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


def leave_out(
    vectors: Rows, log_tokens: Rows, roots: NDArray[np.int64], count: int = NEIGHBOURS, block: int = 512,
    tenants: NDArray[np.uint64] | None = None,
) -> Rows:  # fmt: skip
    """Returns the `statistics` of every row against the other conversations, without other tenants' copies of it, [N, 9].

    vectors [N, D] have length 1. NaN where there are too few rows. With `tenants` None, all rows belong to one tenant.
    """
    result = np.full((len(vectors), len(NAMES)), np.nan, np.float32)
    if len(vectors) <= 2 * count:
        return result
    # As the index has them.
    quantized = quantize(vectors, UNIT_STEP)
    rounded, lengths = quantized * np.float32(UNIT_STEP), squares(quantized)
    several = tenants is not None and bool((tenants != tenants[0]).any())
    for start in range(0, len(vectors), block):
        part = slice(start, min(start + block, len(vectors)))
        similarity = rounded[part] @ rounded.T
        own = roots[part, None] == roots[None, :]
        if several and tenants is not None:
            apart = lengths[part, None] + lengths - 2.0 * similarity / np.float32(UNIT_STEP**2)
            own |= (tenants[part, None] != tenants[None, :]) & (apart <= _copy(vectors.shape[1]))
        similarity[own] = _OWN
        near = np.argpartition(-similarity, count, axis=1)[:, :count]
        result[part] = statistics(np.take_along_axis(similarity, near, 1), log_tokens[near])
        result[part][len(vectors) - own.sum(axis=1) <= count] = np.nan
    return result


def _copy(dimensions: int) -> float:
    return _COPY + _ROUNDING * dimensions


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The K nearest rows to one prompt: similarity and log tokens, both [K], in any order."""

    similarity: Rows
    log_tokens: Rows

    def statistics(self) -> Rows:
        """Returns what `statistics` returns for one row, [9], in a third of the time."""
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
    """The newest rows, shared fairly between tenants. Vectors have length 1. Not thread-safe."""

    def __init__(self, dimensions: int, rows: int = INDEX_ROWS) -> None:
        self._vectors = np.zeros((rows, dimensions), np.int8)
        self._lengths = np.zeros(rows, np.float32)
        self._tokens = np.zeros(rows, np.float32)
        self._roots = np.zeros(rows, np.uint64)
        self._tenants = np.zeros(rows, np.uint64)
        self._slots = FairSlots(rows)

    def __len__(self) -> int:
        return self._slots.used

    def add(self, vector: Rows, log_tokens: float, root: int = 0, tenant: int = 0) -> None:
        """Adds a row, in the place of an older one when the index is full. `root` names its conversation; 0 is none."""
        at = self._slots.take(tenant)
        quantized = quantize(vector, UNIT_STEP)
        self._vectors[at] = quantized
        self._lengths[at] = squares(quantized)
        self._roots[at] = root
        self._tokens[at] = log_tokens
        self._tenants[at] = tenant

    def nearest(self, vector: Rows, count: int = NEIGHBOURS, root: int = 0, tenant: int = 0) -> Neighbours | None:
        """Returns the nearest rows, without the conversation `root` and other tenants' copies; None if there are too few rows."""
        rows = self._slots.used
        if rows <= 2 * count:
            return None
        quantized = quantize(vector, UNIT_STEP)
        steps = products(quantized[None], self._vectors[:rows])[0]
        similarity = steps * np.float32(UNIT_STEP**2)
        if root:
            own = self._roots[:rows] == np.uint64(root)
            if rows - np.count_nonzero(own) <= count:
                return None
            similarity[own] = _OWN
        near = np.argpartition(similarity, rows - count)[rows - count :]
        # Copies are nearer than all other rows, so if none is among these there is none.
        if (self._tenants[:rows] != np.uint64(tenant)).any() and self._copies(quantized, steps, near, tenant).any():
            copies = self._copies(quantized, steps, np.arange(rows), tenant)
            similarity[copies] = _OWN
            if np.count_nonzero(similarity > _OWN) <= count:
                return None
            near = np.argpartition(similarity, rows - count)[rows - count :]
        return Neighbours(similarity[near], self._tokens[near])

    def _copies(self, quantized: Quantized, steps: Rows, rows: NDArray[np.intp], tenant: int) -> NDArray[np.bool_]:
        """Returns which of these rows are other tenants' copies of a prompt. `steps` [N] are its products with all rows."""
        apart = self._lengths[rows] + squares(quantized) - np.float32(2.0) * steps[rows]
        copies: NDArray[np.bool_] = (apart <= _copy(len(quantized))) & (self._tenants[rows] != np.uint64(tenant))
        return copies

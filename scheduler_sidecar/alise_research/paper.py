"""The paper's predictor, as a baseline: the neighbours' mean length where one is similar enough, elsewhere an MLP on the embedding.

What the paper leaves open is ours: 25 neighbours, weighted by similarity; similar enough at a cosine of 0.8; one hidden layer of 64;
lengths as logarithms. Its one number becomes a distribution by the errors that each branch makes on rows it did not see. `rules.py` creates
it for the benchmarks.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from alise_research.neighbours import NAMES, Index, leave_out
from alise_scheduler.core.lengths import PROBABILITIES, TAIL_FACTOR
from alise_scheduler.predictor.features.conversation import PastTurns
from alise_scheduler.predictor.features.row import EMBEDDING
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.models.head import MAX_LOG_TOKENS
from alise_scheduler.predictor.served_head import Prediction
from alise_scheduler.predictor.training.fit import MIN_ROWS
from alise_scheduler.predictor.training.samples import History, Sample

SIMILAR: Final = 0.8
HIDDEN: Final = 64
_EPOCHS: Final = 25
_BATCH: Final = 128
_RATE: Final = 2e-3
_DECAY: Final = 1e-4
_HELD_OUT: Final = 5
_MEAN, _BEST = NAMES.index("near_mean"), NAMES.index("near_best")

Rows = NDArray[np.float32]
Layers = tuple[Rows, Rows, Rows, Rows]


@dataclass(frozen=True, slots=True)
class PaperHead:
    """`layers`: [D, HIDDEN], [HIDDEN], [HIDDEN], [1]; `errors` [2, QUANTILES] in ln(tokens), of the MLP and of the neighbours."""

    version: int
    rows: int
    layers: Layers
    errors: Rows

    def rank(self, log_tokens: float) -> float:
        """Of ranks it knows nothing."""
        return math.nan

    def predict(self, vectors: Rows, near: Rows) -> Rows:
        """Quantiles of ln(tokens), [N, QUANTILES] ascending. vectors [N, D], near [N, 9]."""
        similar = near[:, _BEST] >= SIMILAR
        middle = np.where(similar, near[:, _MEAN], forward(self.layers, vectors))
        result: Rows = np.clip(middle[:, None] + self.errors[similar.astype(np.int64)], 0.0, MAX_LOG_TOKENS).astype(np.float32)
        return result


@dataclass(frozen=True, slots=True)
class ServedPaper:
    """A head with an index of neighbours."""

    head: PaperHead
    index: Index

    def predict(self, row: Rows, embedding: Rows | None, past: PastTurns | None = None, tenant: int = 0) -> Prediction:
        """What `ServedHead.predict` returns; of the row and of the conversation's answers nothing is used."""
        vector = np.zeros(EMBEDDING, np.float32) if embedding is None else embedding
        found = None if embedding is None else self.index.nearest(embedding, root=past.root if past else 0, tenant=tenant)
        near = np.full((1, len(NAMES)), np.nan, np.float32) if found is None else found.statistics()[None]
        return Prediction(self.head.predict(vector[None], near)[0])

    def residual(self, sample: Sample, past: PastTurns | None, expected: float | None = None) -> float:
        return math.nan


class PaperPredictor(LearnedPredictor):
    """Predicts by the paper's rule. All heads share one index of what has finished."""

    def __init__(self) -> None:
        super().__init__()
        self._index = Index(EMBEDDING)

    def take(self, sample: Sample, expected: float | None = None) -> None:
        super().take(sample, expected)
        _add(self._index, sample.embedding, sample.log_tokens, sample.ended, sample.root, sample.tenant)

    def install(self, served: Any) -> None:
        super().install(replace(served, index=self._index))


def serve(history: History, version: int) -> ServedPaper:
    """Trains a head on a history and returns it with an index of that history."""
    index = Index(EMBEDDING)
    tenants = np.zeros(len(history.roots), np.uint64) if history.tenants is None else history.tenants
    for row, vector in enumerate(history.vectors):
        known = vector if vector.any() else None
        _add(index, known, float(history.log_tokens[row]), bool(history.ended[row]), int(history.roots[row]) % 2**64, int(tenants[row]))
    return ServedPaper(train(history, version), index)


def _add(index: Index, vector: Rows | None, log_tokens: float, ended: bool, root: int, tenant: int) -> None:
    if vector is not None:
        index.add(vector, log_tokens + (0.0 if ended else math.log(TAIL_FACTOR)), root, tenant)


def train(history: History, version: int) -> PaperHead:
    """A head for this history; a cut answer counts as half again as long. Raises ValueError for fewer than MIN_ROWS rows."""
    count = len(history.log_tokens)
    if count < MIN_ROWS:
        raise ValueError(f"{count} finished requests are too few to learn from; it takes {MIN_ROWS}")
    tokens = (history.log_tokens + np.where(history.ended, 0.0, np.log(TAIL_FACTOR))).astype(np.float32)
    unseen = np.arange(count) % _HELD_OUT == 0
    tried = forward(_fit(history.vectors[~unseen], tokens[~unseen], version), history.vectors[unseen])
    near = leave_out(history.vectors, tokens, history.roots, tenants=history.tenants)
    similar = near[:, _BEST] >= SIMILAR
    everywhere = np.quantile(tokens[unseen] - tried, PROBABILITIES)
    where_similar = np.quantile((tokens - near[:, _MEAN])[similar], PROBABILITIES) if similar.sum() >= MIN_ROWS // 5 else everywhere
    layers = _fit(history.vectors, tokens, version)
    return PaperHead(version, count, layers, np.stack([everywhere, where_similar]).astype(np.float32))


def forward(layers: Layers, vectors: Rows) -> Rows:
    """[N, D] -> ln(tokens) [N]."""
    into, into_bias, out, out_bias = layers
    result: Rows = np.maximum(vectors @ into + into_bias, 0.0) @ out + out_bias[0]
    return result


def _fit(vectors: Rows, tokens: Rows, seed: int) -> Layers:
    """Least squares by Adam. The same rows and seed give the same layers."""
    rng = np.random.default_rng(seed)
    dimensions = vectors.shape[1]
    layers = [
        (rng.standard_normal((dimensions, HIDDEN)) * np.sqrt(2.0 / dimensions)).astype(np.float32), np.zeros(HIDDEN, np.float32),
        (rng.standard_normal(HIDDEN) * np.sqrt(1.0 / HIDDEN)).astype(np.float32), np.array([tokens.mean()], np.float32),
    ]  # fmt: skip
    first = [np.zeros_like(layer) for layer in layers]
    second = [np.zeros_like(layer) for layer in layers]
    step = 0
    for _ in range(_EPOCHS):
        order = rng.permutation(len(tokens))
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            step += 1
            hidden = np.maximum(vectors[rows] @ layers[0] + layers[1], 0.0)
            error = (hidden @ layers[2] + layers[3][0] - tokens[rows]) / np.float32(len(rows))
            back = error[:, None] * layers[2] * (hidden > 0)
            slopes = (vectors[rows].T @ back + _DECAY * layers[0], back.sum(0), hidden.T @ error, error.sum(keepdims=True))
            for number, slope in enumerate(slopes):
                first[number] += 0.1 * (slope - first[number])
                second[number] += 0.001 * (slope**2 - second[number])
                pace = first[number] / (1 - 0.9**step) / (np.sqrt(second[number] / (1 - 0.999**step)) + 1e-8)
                layers[number] = (layers[number] - np.float32(_RATE) * pace).astype(np.float32)
    return layers[0], layers[1], layers[2], layers[3]

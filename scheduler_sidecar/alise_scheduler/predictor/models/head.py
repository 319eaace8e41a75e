"""The learned head: numbers and an embedding -> quantiles of the answer's length.

1. Project the embedding; scale the numbers.
2. A kernel regression estimates the rank (0..1 among all lengths); the conversation so far moves the estimate (`conversation_effect.py`).
3. The quantiles of all lengths turn the rank into log tokens.
4. A second regression on the same landmarks estimates the error. A table of standardized errors, by rank, turns it into quantiles.

Does not train: `training/fit.py` does, and `served_head.py` predicts with the result. A head holds arrays only, so reading one from a file
executes nothing.
"""

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.lengths import QUANTILES
from ..features.row import EMBEDDING, NUMBERS, PRIOR_AT
from .arrays import Arrays, checked, finite, read_arrays
from .kernel import LANDMARKS, STEP, Kernel, landmarks
from .quantization import REACH, bounded

# Version of a head's file: a head of another one is trained anew, while the stored rows stay (`features.row.FEATURES_VERSION`).
HEAD_LAYOUT: Final = 11
# Principal directions of an embedding's 384: of the conversation's topic, and of the prompt. More order no better.
PROJECTED: Final = 64
COMPARED: Final = 192
KNOTS: Final = 101
BINS: Final = 5
# How much the standardized numbers weigh beside an embedding of length 1.
TEXT_SCALE: Final = 0.10
CONTEXT_SCALE: Final = 0.90
REQUEST_SCALE: Final = 0.20
EXPECTED_SCALE: Final = 0.40
# No standardized number is farther from its mean, for the kernel's grid: 12.7 deviations of text, 3.2 of what is expected.
_FARTHEST: Final = REACH * STEP
MIN_SPREAD: Final = 0.05
MAX_LOG_TOKENS: Final = 13.8
_MAX_COUNT: Final = 1 << 30
_RANKS: Final = np.linspace(0.0, 1.0, KNOTS)
_PLACES: Final = np.arange(BINS)

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Of the numbers [F]: mean, and 1/deviation times the column's weight. Of embeddings: `wide` [D, COMPARED], whose first PROJECTED
    columns are compared for topics."""

    mean: Rows
    scale: Rows
    basis: Rows
    wide: Rows

    def numbers(self, numbers: Rows) -> Rows:
        filled = np.where(np.isnan(numbers), self.mean, numbers)
        return bounded((filled - self.mean) * self.scale, -_FARTHEST, _FARTHEST)

    def points(self, numbers: Rows, vectors: Rows, contexts: Rows) -> Rows:
        """Returns what the kernel compares: embedding, context, request, text and, last, the prior. A conversation's answers add only how
        much text their tokens are, never how long they were."""
        context = contexts @ self.basis * np.float32(CONTEXT_SCALE)
        return np.concatenate([vectors @ self.wide, context, self.numbers(numbers)[:, : PRIOR_AT + 1]], axis=1)


@dataclass(frozen=True, slots=True)
class Head:
    """A trained head. `version` counts trainings; `rows` is the number of requests it learned from."""

    version: int
    rows: int
    scaling: Scaling
    # Estimate the rank, and how many log tokens that is usually off, on the same landmarks.
    kernel: Kernel
    spread: Kernel
    # [KNOTS] log tokens at ranks 0..1.
    knots: Rows
    # [BINS] ascending ranks, and [BINS, QUANTILES] errors there, which are interpolated in between.
    centres: Rows
    table: Rows
    # How much of what conversations carry over comes true.
    trust: float

    def expect(self, numbers: Rows, vectors: Rows, contexts: Rows) -> tuple[Rows, Rows]:
        """Returns the rank to expect without the conversation's answers, and the spread, [N] each. numbers [N, F], vectors [N, D], and
        contexts [N, D]: what the conversation is about; NaN and zero are unknown."""
        points = self.scaling.points(numbers, vectors, contexts)
        features = self.kernel.landmarks.features(points, self.kernel.gamma)
        return self.kernel.estimate(features, points), self.spread.estimate(features, points)

    def rank(self, log_tokens: float) -> float:
        """Among all lengths, 0..1; of those that many have, the middle."""
        at = np.float32(log_tokens)
        first, beyond = np.searchsorted(self.knots, at, "left"), np.searchsorted(self.knots, at, "right")
        return float(np.interp(at, self.knots, _RANKS)) if first == beyond else float(_RANKS[first] + _RANKS[beyond - 1]) / 2

    def quantiles(self, estimate: Rows, spread: Rows) -> Rows:
        """Returns quantiles of ln(tokens), [N, QUANTILES] ascending, for estimated ranks and spreads [N]."""
        rank = bounded(estimate, 0.0, 1.0)
        middle = np.interp(rank, _RANKS, self.knots)
        place = np.interp(rank, self.centres, _PLACES)
        below = np.minimum(place.astype(np.int64), BINS - 2)
        share = (place - below)[:, None]
        errors = (1.0 - share) * self.table[below] + share * self.table[below + 1]
        return bounded((middle[:, None] + np.maximum(spread, MIN_SPREAD)[:, None] * errors).astype(np.float32), 0.0, MAX_LOG_TOKENS)

    def to_bytes(self) -> bytes:
        held: dict[str, NDArray[Any]] = {
            "about": np.array([HEAD_LAYOUT, self.version, self.rows]),
            "mean": self.scaling.mean, "scale": self.scaling.scale, "basis": self.scaling.basis, "wide": self.scaling.wide,
            "landmarks": self.kernel.landmarks.quantized, "gamma": np.array(self.kernel.gamma), "trust": np.array(self.trust),
            "rank": self.kernel.weights, "rank_line": np.array([self.kernel.bias, self.kernel.slope]),
            "spread": self.spread.weights, "spread_line": np.array([self.spread.bias, self.spread.slope]),
            "knots": self.knots, "centres": self.centres, "table": self.table,
        }  # fmt: skip
        out = io.BytesIO()
        np.savez(out, **held)  # type: ignore[arg-type]
        return out.getvalue()


def from_bytes(data: bytes) -> Head:
    """The head in these bytes. Raises ValueError when they hold none of this layout, or one larger than any that is trained here."""
    held = read_arrays(data)
    layout, version, rows = (int(value) for value in checked(held, "about", "i", 3))
    if layout != HEAD_LAYOUT:
        raise ValueError(f"a head of layout {layout}; this program reads {HEAD_LAYOUT}")
    basis, wide = _floats(held, "basis", EMBEDDING, None), _floats(held, "wide", EMBEDDING, None)
    if not (basis.shape[1] <= PROJECTED and wide.shape[1] <= COMPARED):
        raise ValueError(f"a head whose parts do not fit: {basis.shape[1]} and {wide.shape[1]} directions")
    quantized = checked(held, "landmarks", "i", None, wide.shape[1] + basis.shape[1] + PRIOR_AT + 1)
    if quantized.dtype != np.int8 or not 0 < len(quantized) <= LANDMARKS:
        raise ValueError(f"a head of {len(quantized)} landmarks of {quantized.dtype}")
    near, gamma = landmarks(quantized, STEP), float(_floats(held, "gamma"))
    rank, spread = (
        Kernel(near, _floats(held, name, len(quantized)), bias, gamma, slope)
        for name in ("rank", "spread")
        for bias, slope in [map(float, _floats(held, f"{name}_line", 2))]
    )
    head = Head(
        version, rows, Scaling(_floats(held, "mean", NUMBERS), _floats(held, "scale", NUMBERS), basis, wide), rank, spread,
        _floats(held, "knots", KNOTS), _floats(held, "centres", BINS), _floats(held, "table", BINS, QUANTILES),
        float(_floats(held, "trust")),
    )  # fmt: skip
    if not 0 <= version <= _MAX_COUNT or not 0 <= rows <= _MAX_COUNT:
        raise ValueError(f"a head of version {version} from {rows} rows")
    if not _answers(head):
        raise ValueError("a head that makes no numbers of a request that nothing is known of")
    return head


def _floats(held: Arrays, name: str, *shape: int | None) -> Rows:
    array: Rows = finite(checked(held, name, "f", *shape), name)
    return array


def _answers(head: Head) -> bool:
    """Whether its parts fit together: asked about a request that nothing is known of, it answers with numbers."""
    numbers = np.full((1, NUMBERS), np.nan, np.float32)
    vectors = np.zeros((1, EMBEDDING), np.float32)
    estimate, spread = head.expect(numbers, vectors, vectors)
    return bool(np.isfinite(head.quantiles(estimate + np.float32(head.trust), spread)).all())

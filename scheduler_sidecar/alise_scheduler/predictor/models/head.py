"""The learned head: numbers, an embedding and the neighbours' statistics -> quantiles of the answer's length.

1. Project the embedding; scale the numbers.
2. A kernel regression estimates the rank (0..1 among all lengths); the conversation so far moves the estimate (`conversation_effect.py`).
3. Boosted trees over everything estimate the rank, too. The quantiles of all lengths turn the mean of both into log tokens.
4. Further trees estimate the error. A table of standardized errors, by rank, turns it into quantiles.

Does not train (`training/fit.py` does). A head holds arrays only, so reading one from a file executes nothing.
"""

import io
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.lengths import QUANTILES
from ..features.row import EMBEDDING, EXPECTED, NUMBERS, PRIOR_AT
from . import neighbours, trees
from .arrays import Arrays, checked, finite, read_arrays
from .kernel import LANDMARKS, STEP, Kernel, landmarks
from .quantization import REACH, bounded
from .trees import MISSING, Forest

# Version of a head's file: a head of another one is trained anew, while the stored rows stay (`features.conversation.FEATURES_VERSION`).
HEAD_LAYOUT: Final = 10
PROJECTED: Final = 64
# The number of an embedding's 384 values that the kernel compares: it orders as well, in less time.
COMPARED: Final = 192
TREE_DIMENSIONS: Final = 32
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
# The kernel's share of the expected rank, beside the trees that know what it says.
KERNEL_SHARE: Final = 0.5
MAX_LOG_TOKENS: Final = 13.8
_MAX_COUNT: Final = 1 << 30
_RANKS: Final = np.linspace(0.0, 1.0, KNOTS)
_PLACES: Final = np.arange(BINS)

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Of the numbers [F]: mean, 1/deviation times the column's weight; of embeddings: basis [D, PROJECTED], wide [D, COMPARED],
    which begins with it."""

    mean: Rows
    scale: Rows
    basis: Rows
    wide: Rows

    def numbers(self, numbers: Rows) -> Rows:
        filled = np.where(np.isnan(numbers), self.mean, numbers)
        return bounded((filled - self.mean) * self.scale, -_FARTHEST, _FARTHEST)

    def expecting(self, numbers: Rows) -> Rows:
        """The mean where nothing is expected, not MISSING: a sidecar that has just started has its prior a little later than its head."""
        columns = slice(PRIOR_AT, PRIOR_AT + len(EXPECTED))
        result = numbers.copy()
        result[:, columns] = np.where(np.isnan(numbers[:, columns]), self.mean[columns], numbers[:, columns])
        return result

    def project(self, vectors: Rows) -> Rows:
        """[N, D] -> [N, PROJECTED], of length 1 again (or 0)."""
        result = vectors @ self.basis
        norms = np.sqrt((result * result).sum(axis=1, keepdims=True))
        unit: Rows = result / np.maximum(norms, np.float32(1e-6))
        return unit

    def points(self, numbers: Rows, vectors: Rows, contexts: Rows) -> Rows:
        """What the kernel compares: embedding, context, request, text and, last, the prior. A
        conversation's answers add only how much text their tokens are, never how long they were."""
        context = contexts @ self.basis * np.float32(CONTEXT_SCALE)
        return np.concatenate([vectors @ self.wide, context, self.numbers(numbers)[:, : PRIOR_AT + 1]], axis=1)


def tree_rows(numbers: Rows, projected: Rows, near: Rows, estimate: Rows) -> Rows:
    """What the trees see, without NaN."""
    rows: Rows = np.concatenate([numbers, near, estimate[:, None], projected[:, :TREE_DIMENSIONS]], axis=1, dtype=np.float32)
    rows[np.isnan(rows)] = MISSING
    return rows


def blend(boosted: Rows, estimate: Rows) -> Rows:
    """The expected rank."""
    return bounded((1.0 - KERNEL_SHARE) * boosted + KERNEL_SHARE * estimate, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Head:
    """A trained head. `version` counts trainings; `rows` is how many requests it learned from."""

    version: int
    rows: int
    scaling: Scaling
    kernel: Kernel
    # The first `point_trees` say the rank, the others how far off it usually is.
    trees: Forest
    point_trees: int
    # [KNOTS] log tokens at ranks 0..1.
    knots: Rows
    # [BINS] ascending ranks, and [BINS, QUANTILES] standardized errors there; between them they go over into one another.
    centres: Rows
    table: Rows
    # How much of what conversations carry over comes true.
    trust: float

    def expect(self, numbers: Rows, vectors: Rows, contexts: Rows) -> Rows:
        """The rank to expect whatever was answered in the conversation, [N]. numbers [N, F], vectors [N, D], and contexts [N, D]: what
        the conversation is about (`detail.context`); NaN and zero are unknown."""
        return self.kernel.predict(self.scaling.points(numbers, vectors, contexts))

    def rank(self, log_tokens: float) -> float:
        """Among all lengths, 0..1; of those that many have, the middle."""
        at = np.float32(log_tokens)
        first, beyond = np.searchsorted(self.knots, at, "left"), np.searchsorted(self.knots, at, "right")
        return float(np.interp(at, self.knots, _RANKS)) if first == beyond else float(_RANKS[first] + _RANKS[beyond - 1]) / 2

    def predict(self, numbers: Rows, projected: Rows, near: Rows, estimate: Rows) -> Rows:
        """Quantiles of ln(tokens), [N, QUANTILES] ascending. projected: what `scaling.project` gave; near [N, 9]; estimate [N]: what
        `expect` gave, as the conversation moves it."""
        rows = tree_rows(self.scaling.expecting(numbers), projected, near, estimate)
        said = self.trees.leaves(rows)
        rank = blend(said[:, : self.point_trees].sum(axis=1), estimate)
        middle = np.interp(rank, _RANKS, self.knots)
        spread = np.maximum(said[:, self.point_trees :].sum(axis=1), MIN_SPREAD)
        place = np.interp(rank, self.centres, _PLACES)
        below = np.minimum(place.astype(np.int64), BINS - 2)
        share = (place - below)[:, None]
        errors = (1.0 - share) * self.table[below] + share * self.table[below + 1]
        return bounded((middle[:, None] + spread[:, None] * errors).astype(np.float32), 0.0, MAX_LOG_TOKENS)

    def to_bytes(self) -> bytes:
        held: dict[str, NDArray[Any]] = {
            "about": np.array([HEAD_LAYOUT, self.version, self.rows]), "point_trees": np.array(self.point_trees),
            "mean": self.scaling.mean, "scale": self.scaling.scale, "basis": self.scaling.basis, "wide": self.scaling.wide,
            "landmarks": self.kernel.landmarks.quantized, "weights": self.kernel.weights,
            "line": np.array([self.kernel.bias, self.kernel.gamma, self.kernel.slope]), "trust": np.array(self.trust),
            "knots": self.knots, "centres": self.centres, "table": self.table,
        }  # fmt: skip
        out = io.BytesIO()
        np.savez(out, **held, **self.trees.arrays("trees."))  # type: ignore[arg-type]
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
    bias, gamma, slope = map(float, _floats(held, "line", 3))
    forest = trees.from_arrays("trees.", held, NUMBERS + len(neighbours.NAMES) + 1 + min(TREE_DIMENSIONS, basis.shape[1]))
    head = Head(
        version, rows, Scaling(_floats(held, "mean", NUMBERS), _floats(held, "scale", NUMBERS), basis, wide),
        Kernel(landmarks(quantized, STEP), _floats(held, "weights", len(quantized)), bias, gamma, slope),
        forest, int(checked(held, "point_trees", "i")),
        _floats(held, "knots", KNOTS), _floats(held, "centres", BINS), _floats(held, "table", BINS, QUANTILES),
        float(_floats(held, "trust")),
    )  # fmt: skip
    if not 0 <= head.point_trees <= len(head.trees.roots):
        raise ValueError(f"a head with {head.point_trees} of {len(head.trees.roots)} trees for the rank")
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
    numbers = np.full((1, len(head.scaling.mean)), np.nan, np.float32)
    vectors = np.zeros((1, len(head.scaling.wide)), np.float32)
    near = np.full((1, len(neighbours.NAMES)), np.nan, np.float32)
    try:
        estimate = head.expect(numbers, vectors, vectors) + np.float32(head.trust)
        result = head.predict(numbers, head.scaling.project(vectors), near, estimate)
    except (IndexError, ValueError):
        return False
    return bool(np.isfinite(result).all())

"""General knowledge: how long chat models answer what kinds of prompts, used until the served model's own answers are known.

Two kernel regressions give any prompt an expected length: one on the embedding and the text's numbers, one on the numbers alone, for a
prompt without an embedding. Only the order and the ratios of these lengths count, because the calibration and the head learn a model's own
lengths from its answers. `training/prior_fit.py` fits the regressions; this file evaluates them for `learned.py` and `served_head.py`, and
reads them from bytes.
"""

import io
import math
import zipfile
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ...core.lengths import NORMAL_QUANTILES, PRIOR
from ..features.row import EMBEDDING, TEXT
from ..features.text import TEXT_NAMES
from .kernel import Kernel, landmarks
from .quantization import UNIT_STEP, bounded

# A prior of another layout, or fitted on other columns, is not read.
LAYOUT: Final = 3
# How much the standardized numbers weigh beside an embedding of length 1, and without one.
TEXT_SCALE: Final = 0.05
ALONE: Final = 2.0
_CLIP: Final = 4.0
# How far off ln(tokens) usually is, before anything was learned.
SPREAD: Final = 0.85
_ERRORS: Final = (SPREAD * np.array(NORMAL_QUANTILES)).astype(np.float32)
_OF_ALL: Final = np.log(np.array(PRIOR.tokens, np.float32))
_COLUMNS: Final = TEXT.stop - TEXT.start
_CHARS: Final = TEXT.start + TEXT_NAMES.index("chars")

Row = NDArray[np.float32]
Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prior:
    """Of the text's numbers [F]: mean, and 1/deviation times their weight; of embeddings: basis [EMBEDDING, COMPARED]. `worded` is None
    without an encoder."""

    mean: Row
    scale: Row
    basis: Rows
    worded: Kernel | None
    alone: Kernel

    def expect(self, numbers: Row, embedding: Row | None) -> float:
        """ln(tokens) of the answer to a request with these numbers [NUMBERS]; NaN without any text."""
        if not numbers[_CHARS] > 0.0:
            return math.nan
        text = self._text(numbers[None])
        if embedding is None or self.worded is None:
            return float(self.alone.predict(text * np.float32(ALONE))[0])
        return float(self.worded.predict(np.concatenate([embedding[None] @ self.basis, text], axis=1))[0])

    def _text(self, numbers: Rows) -> Rows:
        return scaled(numbers[:, TEXT], self.mean, self.scale)

    def to_bytes(self, made_of: str = "") -> bytes:
        """`made_of` is the result of `fingerprint`."""
        out = io.BytesIO()
        held: dict[str, NDArray[Any]] = {
            "about": np.array([LAYOUT, len(self.mean)]), "made_of": np.array(made_of), "mean": self.mean, "scale": self.scale,
            "basis": self.basis,
        }  # fmt: skip
        for name, kernel in (("worded", self.worded), ("alone", self.alone)):
            if kernel is not None:
                held |= {f"{name}.landmarks": kernel.landmarks.quantized, f"{name}.weights": kernel.weights}
                held[f"{name}.bias"] = np.array([kernel.bias, kernel.gamma])
        np.savez(out, **held)  # type: ignore[arg-type]
        return out.getvalue()


def from_bytes(data: bytes) -> Prior:
    """The prior in these bytes. Raises ValueError when they hold none of this layout."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            layout, columns = (int(value) for value in held["about"])
            if (layout, columns) != (LAYOUT, _COLUMNS):
                raise ValueError(f"a prior of layout {layout} on {columns} numbers; layout {LAYOUT} on {_COLUMNS} is expected")
            basis = held["basis"]
            if basis.shape[:1] != (EMBEDDING,):
                raise ValueError(f"a prior whose parts do not fit: basis {basis.shape}")
            worded = _kernel(held, "worded", basis.shape[1] + _COLUMNS) if "worded.landmarks" in held else None
            return Prior(held["mean"], held["scale"], basis, worded, _kernel(held, "alone", _COLUMNS))
    except (KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"these {len(data)} bytes hold no prior: {error}") from error


def quantiles(expected: float) -> Row:
    """Returns quantiles of ln(tokens), [QUANTILES] ascending, around what is expected; those of all chat answers for NaN."""
    if math.isnan(expected):
        return _OF_ALL
    result: Row = np.maximum(np.float32(expected) + _ERRORS, 0.0)
    return result


def scaled(numbers: Rows, mean: Row, scale: Row) -> Rows:
    """Text numbers [N, F], NaN where unknown, as the kernels compare them."""
    return bounded((np.where(np.isnan(numbers), mean, numbers) - mean) * scale, -_CLIP * TEXT_SCALE, _CLIP * TEXT_SCALE)


def _kernel(held: Any, name: str, columns: int) -> Kernel:
    quantized, weights, (bias, gamma) = held[f"{name}.landmarks"], held[f"{name}.weights"], held[f"{name}.bias"]
    if quantized.shape != (len(weights), columns) or quantized.dtype != np.int8:
        raise ValueError(f"a prior whose parts do not fit: landmarks {quantized.shape} {quantized.dtype}, {len(weights)} weights")
    return Kernel(landmarks(quantized, UNIT_STEP), weights, float(bias), float(gamma))

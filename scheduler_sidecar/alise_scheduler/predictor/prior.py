"""General knowledge: how long chat models answer what kinds of prompts, for the time before the served model's own answers say it.

`prior.tsv` holds prompts of our own with rough lengths. A kernel regression on them gives any prompt an expected length; only its order
and ratios count, since the calibration and the head learn a model's own lengths from its answers. There are two: on the embedding and the
text's numbers, and on the numbers alone, for a prompt without an embedding.

`python -m alise_scheduler.predictor.prior [ENCODER]` fits it: a process of its own, so that nobody who asks for admission waits for the
thousand embeddings. npz on the output; without ENCODER there is no kernel on embeddings.
"""

import io
import math
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..core.lengths import NORMAL_QUANTILES
from . import lexical
from .background import step_back
from .detail import EMBEDDING, TEXT
from .encoder import Encoder, OnnxEncoder
from .kernel import Kernel, features

LINES_FILE: Final = "prior.tsv"
# Of another layout, or fitted on other columns, it is not read.
LAYOUT: Final = 1
# How much the standardized numbers weigh beside an embedding of length 1, and alone; the kernels' gamma and ridge.
_TEXT_SCALE: Final = 0.05
_ALONE: Final = 2.0
_GAMMA: Final = 1.2
_GAMMA_ALONE: Final = 0.4
_RIDGE: Final = 0.3
_CLIP: Final = 4.0
# How far off ln(tokens) usually is, before anything was learned.
SPREAD: Final = 0.85
_ERRORS: Final = (SPREAD * np.array(NORMAL_QUANTILES)).astype(np.float32)
_COLUMNS: Final = TEXT.stop - TEXT.start
_CHARS: Final = TEXT.start + lexical.NAMES.index("chars")

Row = NDArray[np.float32]
Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Line:
    """A prompt and about how many tokens a chat model answers."""

    text: str
    tokens: int


def read_lines(said: str) -> tuple[Line, ...]:
    """The lines of `tokens<TAB>prompt`; # begins a comment. Raises ValueError naming a line that is neither."""
    made = []
    for number, line in enumerate(said.splitlines(), start=1):
        if line.startswith("#") or not line:
            continue
        tokens, tab, text = line.partition("\t")
        if not tab or not text or not tokens.isdecimal() or int(tokens) == 0:
            raise ValueError(f"line {number} should be a number of tokens, a tab and a prompt, got {line[:60]!r}")
        made.append(Line("\\".join(part.replace("\\n", "\n") for part in text.split("\\\\")), int(tokens)))
    return tuple(made)


def own_lines() -> tuple[Line, ...]:
    """Those of this package."""
    return read_lines(resources.files(__package__).joinpath(LINES_FILE).read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Prior:
    """Of the text's numbers [F]: mean, and 1/deviation times their weight. `worded` is None without an encoder."""

    mean: Row
    scale: Row
    worded: Kernel | None
    alone: Kernel

    def expect(self, numbers: Row, embedding: Row | None) -> float:
        """ln(tokens) of the answer to a request with these numbers [NUMBERS]; NaN without any text."""
        if not numbers[_CHARS] > 0.0:
            return math.nan
        text = self._text(numbers[None])
        if embedding is None or self.worded is None:
            return float(self.alone.predict(text * np.float32(_ALONE))[0])
        return float(self.worded.predict(np.concatenate([embedding[None], text], axis=1))[0])

    def _text(self, numbers: Rows) -> Rows:
        return scaled(numbers[:, TEXT], self.mean, self.scale)

    def to_bytes(self) -> bytes:
        out = io.BytesIO()
        held: dict[str, NDArray[Any]] = {"about": np.array([LAYOUT, len(self.mean)]), "mean": self.mean, "scale": self.scale}
        for name, kernel in (("worded", self.worded), ("alone", self.alone)):
            if kernel is not None:
                held |= {f"{name}.landmarks": kernel.landmarks, f"{name}.weights": kernel.weights}
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
            worded = _kernel(held, "worded") if "worded.landmarks" in held else None
            return Prior(held["mean"], held["scale"], worded, _kernel(held, "alone"))
    except (KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"these {len(data)} bytes hold no prior: {error}") from error


def fit(lines: Sequence[Line], encoder: Encoder | None) -> Prior:
    """The same lines and encoder make the same prior. `lines` must not be empty."""
    numbers = np.array([lexical.row(line.text) for line in lines], np.float32)
    tokens = np.log([line.tokens for line in lines]).astype(np.float32)
    known = ~np.isnan(numbers)
    many = np.maximum(known.sum(axis=0), 1)
    mean = (np.where(known, numbers, 0.0).sum(axis=0) / many).astype(np.float32)
    deviation = np.sqrt(np.where(known, (numbers - mean) ** 2, 0.0).sum(axis=0) / many)
    scale = np.where(deviation > 1e-6, _TEXT_SCALE / np.maximum(deviation, 1e-6), 0.0).astype(np.float32)
    text = scaled(numbers, mean, scale)
    worded = None
    if encoder is not None:
        worded = _regression(np.concatenate([encoder.encode([line.text for line in lines]), text], axis=1), tokens, _GAMMA)
    return Prior(mean, scale, worded, _regression(text * np.float32(_ALONE), tokens, _GAMMA_ALONE))


def quantiles(expected: float) -> Row:
    """Of ln(tokens), [QUANTILES] ascending, around what is expected."""
    made: Row = np.maximum(np.float32(expected) + _ERRORS, 0.0)
    return made


def scaled(numbers: Rows, mean: Row, scale: Row) -> Rows:
    """Text numbers [N, F], NaN where unknown, as the kernels compare them."""
    bound = np.float32(_CLIP * _TEXT_SCALE)
    made: Rows = np.clip((np.where(np.isnan(numbers), mean, numbers) - mean) * scale, -bound, bound).astype(np.float32)
    return made


def _regression(points: Rows, tokens: Row, gamma: float) -> Kernel:
    """Kernel ridge regression with every point as a landmark."""
    squares = (points**2).sum(axis=1)
    gram = features(points, points, squares, gamma).astype(np.float64)
    bias = float(tokens.mean())
    weights = np.linalg.solve(gram + _RIDGE * np.eye(len(points)), tokens - bias)
    return Kernel(points, squares, weights.astype(np.float32), bias, gamma)


def _kernel(held: Any, name: str) -> Kernel:
    landmarks, weights, (bias, gamma) = held[f"{name}.landmarks"], held[f"{name}.weights"], held[f"{name}.bias"]
    columns = _COLUMNS + (EMBEDDING if name == "worded" else 0)
    if landmarks.shape != (len(weights), columns):
        raise ValueError(f"a prior whose parts do not fit: landmarks {landmarks.shape}, {len(weights)} weights")
    return Kernel(landmarks, (landmarks**2).sum(axis=1), weights, float(bias), float(gamma))


def main() -> None:
    step_back()
    encoder = OnnxEncoder(Path(sys.argv[1])) if len(sys.argv) > 1 and sys.argv[1] else None
    sys.stdout.buffer.write(fit(own_lines(), encoder).to_bytes())


if __name__ == "__main__":
    main()

"""General knowledge: how long chat models answer what kinds of prompts, for the time before the served model's own answers say it.

`prior.tsv` holds prompts of our own with rough lengths. A kernel regression on them gives any prompt an expected length; only its order
and ratios count, since the calibration and the head learn a model's own lengths from its answers. There are two: on the embedding and the
text's numbers, and on the numbers alone, for a prompt without an embedding.

`python -m alise_scheduler.predictor.prior [ENCODER]` gives it: a process of its own, so that nobody who asks for admission waits for
thousands of embeddings. npz on the output; without ENCODER there is no kernel on embeddings. With `--make` the kernel on embeddings has
every line as a landmark, which takes seconds and a gigabyte, and is kept in the encoder's folder: the image's build does so. Where there is
none of these lines, this code and this encoder, one of fewer landmarks is fitted, which takes seconds alone.
"""

import argparse
import hashlib
import io
import math
import os
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
from .encoder import MODEL_FILE, VOCABULARY_FILE, Encoder, OnnxEncoder
from .grid import UNIT_STEP, bounded, place
from .kernel import Kernel, landmarks
from .lines import LINES_FILE, Line, own_lines

MADE_FILE: Final = "prior.npz"
# Of another layout, or fitted on other columns, it is not read.
LAYOUT: Final = 3
# What a prior follows from, beside the encoder's own files.
_SOURCES: Final = (LINES_FILE, "lines.py", "prior.py", "kernel.py", "grid.py", "lexical.py", "encoder.py", "wordpiece.py")
# Of an embedding's 384, what is compared.
COMPARED: Final = 256
# Where it is fitted while others wait for memory and a processor, and of the kernel on numbers alone.
LANDMARKS: Final = 1500
_SEED: Final = 1
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
            return float(self.alone.predict(text * np.float32(_ALONE))[0])
        return float(self.worded.predict(np.concatenate([embedding[None] @ self.basis, text], axis=1))[0])

    def _text(self, numbers: Rows) -> Rows:
        return scaled(numbers[:, TEXT], self.mean, self.scale)

    def to_bytes(self, made_of: str = "") -> bytes:
        """`made_of` is what `fingerprint` said."""
        out = io.BytesIO()
        held: dict[str, NDArray[Any]] = {
            "about": np.array([LAYOUT, len(self.mean)]), "made_of": np.array(made_of), "mean": self.mean, "scale": self.scale,
            "basis": self.basis,
        }  # fmt: skip
        for name, kernel in (("worded", self.worded), ("alone", self.alone)):
            if kernel is not None:
                held |= {f"{name}.landmarks": kernel.landmarks.places, f"{name}.weights": kernel.weights}
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


def fingerprint(encoder: Path) -> str:
    """Of all that a prior with the encoder in this folder follows from. Raises OSError."""
    made = hashlib.sha256()
    for name in _SOURCES:
        made.update(resources.files(__package__).joinpath(name).read_bytes())
    for name in (MODEL_FILE, VOCABULARY_FILE):
        made.update((encoder / name).read_bytes())
    return made.hexdigest()


def made_before(encoder: Path) -> bytes | None:
    """The bytes of the prior that was made for the encoder in this folder; None when there is none, or one of something else."""
    try:
        data = (encoder / MADE_FILE).read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            return data if str(held["made_of"]) == fingerprint(encoder) else None
    except (KeyError, OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None


def fit(lines: Sequence[Line], encoder: Encoder | None, landmark_count: int = LANDMARKS) -> Prior:
    """The same lines and encoder make the same prior. `lines` must not be empty."""
    numbers = np.array([lexical.row(line.text) for line in lines], np.float32)
    tokens = np.log([line.tokens for line in lines]).astype(np.float32)
    known = ~np.isnan(numbers)
    many = np.maximum(known.sum(axis=0), 1)
    mean = (np.where(known, numbers, 0.0).sum(axis=0) / many).astype(np.float32)
    deviation = np.sqrt(np.where(known, (numbers - mean) ** 2, 0.0).sum(axis=0) / many)
    scale = np.where(deviation > 1e-6, _TEXT_SCALE / np.maximum(deviation, 1e-6), 0.0).astype(np.float32)
    text = scaled(numbers, mean, scale)
    worded, basis = None, np.zeros((EMBEDDING, COMPARED), np.float32)
    if encoder is not None:
        vectors = encoder.encode([line.text for line in lines])
        _, directions = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
        basis = np.ascontiguousarray(directions[:, ::-1][:, :COMPARED], np.float32)
        worded = _regression(np.concatenate([vectors @ basis, text], axis=1), tokens, _GAMMA, landmark_count)
    return Prior(mean, scale, basis, worded, _regression(text * np.float32(_ALONE), tokens, _GAMMA_ALONE, LANDMARKS))


def quantiles(expected: float) -> Row:
    """Of ln(tokens), [QUANTILES] ascending, around what is expected."""
    made: Row = np.maximum(np.float32(expected) + _ERRORS, 0.0)
    return made


def scaled(numbers: Rows, mean: Row, scale: Row) -> Rows:
    """Text numbers [N, F], NaN where unknown, as the kernels compare them."""
    return bounded((np.where(np.isnan(numbers), mean, numbers) - mean) * scale, -_CLIP * _TEXT_SCALE, _CLIP * _TEXT_SCALE)


def _regression(points: Rows, tokens: Row, gamma: float, landmark_count: int) -> Kernel:
    """Kernel ridge regression; with fewer landmarks than points, Nyström's."""
    bias = float(tokens.mean())
    chosen = np.arange(len(points))
    if landmark_count < len(points):
        chosen = np.sort(np.random.default_rng(_SEED).choice(len(points), landmark_count, replace=False))
    near = landmarks(place(points[chosen], UNIT_STEP), UNIT_STEP)
    # In float32 their products would be noise for a kernel that is smooth.
    phi = near.features(points, gamma).astype(np.float64)
    if landmark_count < len(points):
        # On the grid two may be at the same place.
        gram, side = phi.T @ phi + _RIDGE * phi[chosen] + 1e-6 * np.eye(landmark_count), phi.T @ (tokens - bias)
    else:
        gram, side = phi, tokens - bias
        gram[np.diag_indices_from(gram)] += _RIDGE
    return Kernel(near, np.linalg.solve(gram, side).astype(np.float32), bias, gamma)


def _kernel(held: Any, name: str, columns: int) -> Kernel:
    places, weights, (bias, gamma) = held[f"{name}.landmarks"], held[f"{name}.weights"], held[f"{name}.bias"]
    if places.shape != (len(weights), columns) or places.dtype != np.int8:
        raise ValueError(f"a prior whose parts do not fit: landmarks {places.shape} {places.dtype}, {len(weights)} weights")
    return Kernel(landmarks(places, UNIT_STEP), weights, float(bias), float(gamma))


def obtain(encoder: Path | None) -> bytes:
    """The bytes of the best prior to be had at once. Raises EncoderError, OSError."""
    if encoder is None:
        return fit(own_lines(), None).to_bytes()
    return made_before(encoder) or fit(own_lines(), OnnxEncoder(encoder)).to_bytes()


def make(encoder: Path) -> None:
    """Writes the prior for the encoder in this folder into it. Raises EncoderError, OSError."""
    lines = own_lines()
    data = fit(lines, OnnxEncoder(encoder), len(lines)).to_bytes(fingerprint(encoder))
    # Whole or not at all: somebody may be reading.
    part = encoder / f"{MADE_FILE}.{os.getpid()}"
    part.write_bytes(data)
    part.replace(encoder / MADE_FILE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Gives what is known beforehand, as npz on the output.")
    parser.add_argument("encoder", nargs="?", default="", help="the encoder's folder; without one, a prior on the text's numbers alone")
    parser.add_argument("--make", action="store_true", help="fit it as well as can be and write it into the encoder's folder instead")
    arguments = parser.parse_args()
    if arguments.make:
        if not arguments.encoder:
            parser.error("--make writes into the encoder's folder: name it")
        make(Path(arguments.encoder))
        return
    step_back()
    sys.stdout.buffer.write(obtain(Path(arguments.encoder) if arguments.encoder else None))


if __name__ == "__main__":
    main()

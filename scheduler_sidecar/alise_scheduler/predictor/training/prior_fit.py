"""Fits the prior (`models/prior.py`) on `prior.tsv`, prompts of our own with rough lengths, for the encoder in a folder.

`python -m alise_scheduler.predictor.training.prior_fit [ENCODER]` writes a prior to standard output as npz. It is a process of its own, so
that admissions do not wait for thousands of embeddings. Without ENCODER there is no kernel on embeddings.

With `--make` the kernel on embeddings has every line as a landmark, which takes seconds and a gigabyte, and is stored in the encoder's
folder: the image's build does so. A folder without one, such as a user's own encoder, or with one of other lines, another version or
another encoder, gets a kernel with fewer landmarks, fitted in seconds when the scheduler starts.
"""

import argparse
import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..features.row import EMBEDDING, FEATURES_VERSION
from ..features.text import text_numbers
from ..models.encoder import MODEL_FILE, TOKENS_VERSION, VOCABULARY_FILE, Encoder, OnnxEncoder
from ..models.kernel import Kernel, landmarks
from ..models.prior import ALONE, LAYOUT, TEXT_SCALE, Prior, scaled
from ..models.quantization import UNIT_STEP, quantize
from .background import step_back
from .prior_lines import LINES_FILE, Line, own_lines

PRIOR_FILE: Final = "prior.npz"
# Increase it when the same lines and the same encoder give another prior: a stored prior of another version is fitted anew.
FIT_VERSION: Final = 1
# Principal directions of an embedding's 384 that are compared.
COMPARED: Final = 256
# For a fit while others wait for memory and a processor, and for the kernel on numbers alone.
LANDMARKS: Final = 1500
_SEED: Final = 1
# The kernels' gamma and ridge.
_GAMMA: Final = 1.2
_GAMMA_ALONE: Final = 0.4
_RIDGE: Final = 0.3

Row = NDArray[np.float32]
Rows = NDArray[np.float32]


def fingerprint(encoder: Path) -> str:
    """Identifies all that a prior for the encoder in this folder follows from. Raises OSError."""
    digest = hashlib.sha256(f"{FIT_VERSION} {LAYOUT} {FEATURES_VERSION} {TOKENS_VERSION}".encode())
    digest.update(resources.files(__package__).joinpath(LINES_FILE).read_bytes())
    for name in (MODEL_FILE, VOCABULARY_FILE):
        digest.update((encoder / name).read_bytes())
    return digest.hexdigest()


def stored_prior(encoder: Path) -> bytes | None:
    """The bytes of the prior that was fitted for the encoder in this folder; None when there is none, or one of something else."""
    try:
        data = (encoder / PRIOR_FILE).read_bytes()
        with np.load(io.BytesIO(data), allow_pickle=False) as held:
            return data if str(held["made_of"]) == fingerprint(encoder) else None
    except (KeyError, OSError, EOFError, ValueError, zipfile.BadZipFile):
        return None


def fit(lines: Sequence[Line], encoder: Encoder | None, landmark_count: int = LANDMARKS) -> Prior:
    """The same lines and encoder make the same prior. `lines` must not be empty."""
    numbers = np.array([text_numbers(line.text) for line in lines], np.float32)
    tokens = np.log([line.tokens for line in lines]).astype(np.float32)
    known = ~np.isnan(numbers)
    many = np.maximum(known.sum(axis=0), 1)
    mean = (np.where(known, numbers, 0.0).sum(axis=0) / many).astype(np.float32)
    deviation = np.sqrt(np.where(known, (numbers - mean) ** 2, 0.0).sum(axis=0) / many)
    scale = np.where(deviation > 1e-6, TEXT_SCALE / np.maximum(deviation, 1e-6), 0.0).astype(np.float32)
    text = scaled(numbers, mean, scale)
    worded, basis = None, np.zeros((EMBEDDING, COMPARED), np.float32)
    if encoder is not None:
        vectors = encoder.encode([line.text for line in lines])
        _, directions = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
        basis = np.ascontiguousarray(directions[:, ::-1][:, :COMPARED], np.float32)
        worded = _regression(np.concatenate([vectors @ basis, text], axis=1), tokens, _GAMMA, landmark_count)
    return Prior(mean, scale, basis, worded, _regression(text * np.float32(ALONE), tokens, _GAMMA_ALONE, LANDMARKS))


def _regression(points: Rows, tokens: Row, gamma: float, landmark_count: int) -> Kernel:
    """Kernel ridge regression; with fewer landmarks than points, Nyström's."""
    bias = float(tokens.mean())
    chosen = np.arange(len(points))
    if landmark_count < len(points):
        chosen = np.sort(np.random.default_rng(_SEED).choice(len(points), landmark_count, replace=False))
    near = landmarks(quantize(points[chosen], UNIT_STEP), UNIT_STEP)
    # In float32 their products would be noise for a kernel that is smooth.
    phi = near.features(points, gamma).astype(np.float64)
    if landmark_count < len(points):
        # On the grid two may be at the same quantize.
        gram, side = phi.T @ phi + _RIDGE * phi[chosen] + 1e-6 * np.eye(landmark_count), phi.T @ (tokens - bias)
    else:
        gram, side = phi, tokens - bias
        gram[np.diag_indices_from(gram)] += _RIDGE
    return Kernel(near, np.linalg.solve(gram, side).astype(np.float32), bias, gamma)


def obtain(encoder: Path | None) -> bytes:
    """The bytes of the best prior to be had at once. Raises EncoderError, OSError."""
    if encoder is None:
        return fit(own_lines(), None).to_bytes()
    return stored_prior(encoder) or fit(own_lines(), OnnxEncoder(encoder)).to_bytes()


def make(encoder: Path) -> None:
    """Writes the prior for the encoder in this folder into it. Raises EncoderError, OSError."""
    lines = own_lines()
    data = fit(lines, OnnxEncoder(encoder), len(lines)).to_bytes(fingerprint(encoder))
    # Replaced as a whole, because another process may be reading it.
    part = encoder / f"{PRIOR_FILE}.{os.getpid()}"
    part.write_bytes(data)
    part.replace(encoder / PRIOR_FILE)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fits the prior of answer lengths, and writes it to the output as npz.")
    parser.add_argument("encoder", nargs="?", default="", help="Folder of the encoder. Without it, the prior uses the text features alone.")
    parser.add_argument("--make", action="store_true", help="Fit the prior thoroughly and write it into the encoder's folder instead.")
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

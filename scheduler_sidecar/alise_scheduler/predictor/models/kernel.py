"""Kernel ridge regression on landmarks (Nyström): estimates the rank of an answer's length, and how far off that estimate usually is.

A prompt is a point: its embedding, its standardized numbers, scaled so that all of them together weigh about as much, and what the
conversation is about. A straight line in the last number is fitted first, and the kernel fits the residual. Points are compared on a
quantization grid (`quantization.py`), in fitting as in serving.

Pure numpy. `head.py` and `prior.py` evaluate kernels; `training/fit.py` calls `fit`.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .quantization import Quantized, products, quantize, squares

LANDMARKS: Final = 2000
# The step of the grid: coordinates reach 1.27 to either side.
STEP: Final = 0.01
# (gamma, ridge): a smoother function with few rows than with MANY_ROWS.
MANY_ROWS: Final = 3000
_FEW: Final = (0.4, 1.5)
_MANY: Final = (0.4, 0.3)
# Rows that are summed up at a time.
_BLOCK: Final = 512

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Landmarks:
    """`quantized` [M, D] on a grid of this step, and their squared lengths in steps² [M]."""

    quantized: Quantized
    step: float
    squares: Rows

    def features(self, points: Rows, gamma: float) -> Rows:
        """Returns exp(-gamma * distance²) of each point to each landmark, [N, M]."""
        quantized = quantize(points, self.step)
        distance = products(quantized, self.quantized)
        distance *= np.float32(-2.0)
        distance += self.squares
        distance += squares(quantized)[:, None]
        distance *= np.float32(-gamma * self.step**2)
        result: Rows = np.exp(distance, out=distance)
        return result


def landmarks(quantized: Quantized, step: float) -> Landmarks:
    return Landmarks(quantized, step, squares(quantized))


@dataclass(frozen=True, slots=True)
class Kernel:
    """The fitted regression; weights [M], one for each landmark."""

    landmarks: Landmarks
    weights: Rows
    bias: float
    gamma: float
    # The slope of the straight line in the last coordinate.
    slope: float = 0.0

    def predict(self, points: Rows) -> Rows:
        """Returns the estimate for points [N, D], [N]."""
        return self.estimate(self.landmarks.features(points, self.gamma), points)

    def estimate(self, features: Rows, points: Rows) -> Rows:
        """Returns what `predict` returns, for points whose features of these landmarks are known."""
        line = np.float32(self.bias) + np.float32(self.slope) * points[:, -1]
        values: Rows = (features @ self.weights + line).astype(np.float32)
        return values


def fit(points: Rows, target: Rows, folds: NDArray[np.int64], seed: int) -> tuple[Kernel, Rows]:
    """Returns the fitted kernel, and for each row the estimate of one that was fitted without its fold. points [N, D], target [N]."""
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(points), min(LANDMARKS, len(points)), replace=False))
    near = landmarks(quantize(points[chosen], STEP), STEP)
    gamma, strength = _MANY if len(points) >= MANY_ROWS else _FEW
    phi = near.features(points, gamma)
    ridge = strength * phi[chosen].astype(np.float64) + 1e-6 * np.eye(len(chosen))
    bias = float(target.mean())
    last = points[:, -1]
    slope = float(last @ (target - bias)) / max(float(last @ last), 1e-6)
    line = np.float32(bias) + np.float32(slope) * last
    centred = target - line
    rows = {int(number): np.flatnonzero(folds == number) for number in np.unique(folds)}
    sums = {number: _sums(phi, centred, at) for number, at in rows.items()}
    gram, side = sum(one for one, _ in sums.values()) + ridge, sum(one for _, one in sums.values())
    held: Rows = np.zeros(len(points), np.float32)
    for number, at in rows.items():
        of_fold, side_of_fold = sums.pop(number)
        np.subtract(gram, of_fold, out=of_fold)
        held[at] = phi[at] @ np.linalg.solve(of_fold, side - side_of_fold) + line[at]
    return Kernel(near, np.linalg.solve(gram, side).astype(np.float32), bias, gamma, slope), held


def _sums(features: Rows, target: Rows, at: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns features.T @ features and features.T @ target over these rows.

    They are in double precision: points that are equal make the matrix singular but for the ridge, which is less than the errors of a
    float32 sum. Only one block of rows is: all of them take hundreds of megabytes.
    """
    count = features.shape[1]
    gram, side = np.zeros((count, count)), np.zeros(count)
    for first in range(0, len(at), _BLOCK):
        some = at[first : first + _BLOCK]
        block = features[some].astype(np.float64)
        gram += block.T @ block
        side += block.T @ target[some]
    return gram, side

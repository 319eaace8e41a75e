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
    held: Rows = np.zeros(len(points), np.float32)
    numbers = [int(number) for number in np.unique(folds)]
    # Double precision: points that are equal make the matrix singular but for the ridge, which is less than the errors of a float32 sum.
    parts = {number: phi[folds == number].astype(np.float64) for number in numbers}
    grams = {number: part.T @ part for number, part in parts.items()}
    sides = {number: part.T @ centred[folds == number] for number, part in parts.items()}
    gram, side = sum(grams.values()) + ridge, sum(sides.values())
    for number, part in parts.items():
        weights = np.linalg.solve(gram - grams[number], side - sides[number])
        held[folds == number] = part @ weights + line[folds == number]
    return Kernel(near, np.linalg.solve(gram, side).astype(np.float32), bias, gamma, slope), held

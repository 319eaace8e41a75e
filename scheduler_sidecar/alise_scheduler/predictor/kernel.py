"""Kernel ridge regression on a few hundred landmarks (Nyström): the smooth part of the prediction, a feature of the trees.

A prompt is a point: its embedding, and its numbers standardized and scaled so that all of them together weigh about as much as it does.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

LANDMARKS: Final = 800
_GAMMA: Final = 0.15
_RIDGE: Final = 1.0

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Kernel:
    """landmarks [M, D], weights [M]."""

    landmarks: Rows
    weights: Rows
    bias: float

    def predict(self, points: Rows) -> Rows:
        """points [N, D] -> [N]."""
        values: Rows = (features(points, self.landmarks) @ self.weights + np.float32(self.bias)).astype(np.float32)
        return values


def features(points: Rows, landmarks: Rows) -> Rows:
    """exp(-gamma · distance²) of each point to each landmark, [N, M]."""
    distance = (points**2).sum(1)[:, None] + (landmarks**2).sum(1)[None, :] - 2.0 * points @ landmarks.T
    made: Rows = np.exp(-np.float32(_GAMMA) * np.maximum(distance, 0.0))
    return made


def fit(points: Rows, target: Rows, folds: NDArray[np.int64], seed: int) -> tuple[Kernel, Rows]:
    """The fitted kernel, and for each row the prediction of one that was fitted without its fold. points [N, D], target [N]."""
    chance = np.random.default_rng(seed)
    chosen = chance.choice(len(points), min(LANDMARKS, len(points)), replace=False)
    landmarks = points[np.sort(chosen)]
    phi = features(points, landmarks)
    ridge = _RIDGE * features(landmarks, landmarks).astype(np.float64) + 1e-6 * np.eye(len(landmarks))
    bias = float(target.mean())
    centred = target - np.float32(bias)
    held: Rows = np.zeros(len(points), np.float32)
    numbers = [int(number) for number in np.unique(folds)]
    parts = {number: phi[folds == number] for number in numbers}
    grams = {number: part.T @ part for number, part in parts.items()}
    sides = {number: part.T @ centred[folds == number] for number, part in parts.items()}
    gram, side = sum(grams.values()).astype(np.float64) + ridge, sum(sides.values()).astype(np.float64)
    for number, part in parts.items():
        weights = np.linalg.solve(gram - grams[number], side - sides[number])
        held[folds == number] = part @ weights.astype(np.float32) + np.float32(bias)
    return Kernel(landmarks, np.linalg.solve(gram, side).astype(np.float32), bias), held

"""Rounds points to a grid in INT8, for comparisons with thousands of rows at each admission.

Rows take a quarter of the memory then, and reading memory is most of the time of a comparison. Squared distances in steps² are whole
numbers far below 2^24, which float32 represents exactly, so one point at a time (simsimd) and many points (BLAS) give the same result.

Pure; `kernel.py`, `head.py` and the prior call it.
"""

from typing import Final

import numpy as np
import simsimd
from numpy.typing import NDArray

# The number of steps on either side of 0.
REACH: Final = 127
# The step for vectors of length 1.
UNIT_STEP: Final = 1.0 / REACH

Rows = NDArray[np.float32]
Quantized = NDArray[np.int8]


def bounded(values: Rows, low: float, high: float) -> Rows:
    """Clips like np.clip in a third of the time, for admissions."""
    result: Rows = np.minimum(np.maximum(values, np.float32(low)), np.float32(high))
    return result


def quantize(points: Rows, step: float) -> Quantized:
    """Returns the nearest points of the grid, in steps; beyond the grid, its edge. Any shape."""
    result: Quantized = np.rint(bounded(points * np.float32(1.0 / step), -REACH, REACH)).astype(np.int8)
    return result


def products(quantized: Quantized, others: Quantized) -> Rows:
    """Returns dot products in steps², [N, M], of [N, D] and [M, D]."""
    if len(quantized) == 1 and len(others):
        result: Rows = np.asarray(simsimd.cdist(quantized, others, metric="dot"), np.float32)
        return result
    return quantized.astype(np.float32) @ others.astype(np.float32).T


def squares(quantized: Quantized) -> Rows:
    """Returns squared lengths in steps², [N], of [N, D]."""
    exact = quantized.astype(np.float32)
    result: Rows = np.vecdot(exact, exact)
    return result

"""Points rounded to a grid, as INT8: what is compared with thousands of others at each admission is a quarter of the memory then, and
going through memory is most of what that takes.

Squared distances in steps² are whole numbers, of such points far below 2^24 and so exact in float32: one point at a time (simsimd) and
many (BLAS) say the same.
"""

from typing import Final

import numpy as np
import simsimd
from numpy.typing import NDArray

# A coordinate reaches so many steps to either side of 0.
REACH: Final = 127
# Of vectors of length 1.
UNIT_STEP: Final = 1.0 / REACH

Rows = NDArray[np.float32]
Quantized = NDArray[np.int8]


def bounded(values: Rows, low: float, high: float) -> Rows:
    """np.clip in a third of the time, for what is done at each admission."""
    result: Rows = np.minimum(np.maximum(values, np.float32(low)), np.float32(high))
    return result


def quantize(points: Rows, step: float) -> Quantized:
    """The nearest quantized, in steps; of what is beyond the grid, its edge. Any shape."""
    result: Quantized = np.rint(bounded(points * np.float32(1.0 / step), -REACH, REACH)).astype(np.int8)
    return result


def products(quantized: Quantized, others: Quantized) -> Rows:
    """Dot products in steps², [N, M], of [N, D] and [M, D]."""
    if len(quantized) == 1 and len(others):
        result: Rows = np.asarray(simsimd.cdist(quantized, others, metric="dot"), np.float32)
        return result
    return quantized.astype(np.float32) @ others.astype(np.float32).T


def squares(quantized: Quantized) -> Rows:
    """Squared lengths in steps², [N], of [N, D]."""
    exact = quantized.astype(np.float32)
    result: Rows = np.vecdot(exact, exact)
    return result

"""An encoder for tests, which needs neither weights nor onnxruntime. `predictor_builders.py` and tests of the predictor use it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alise_scheduler.predictor.features.row import EMBEDDING


class HashEncoder:
    """Implements `Encoder` without weights: hashes words into EMBEDDING buckets. The same words give the same vector."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        made = np.zeros((len(texts), EMBEDDING), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                number = int.from_bytes(word.encode("utf-8", "replace")[:8].ljust(8, b"."), "little") * 0x9E3779B97F4A7C15 % 2**64
                made[row, (number >> 32) % EMBEDDING] += 1.0 if number & 1 else -1.0
        norms = np.linalg.norm(made, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (made / np.maximum(norms, 1e-6)).astype(np.float32)
        return unit

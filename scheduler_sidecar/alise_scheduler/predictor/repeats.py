"""Earlier answers to the same text in the same place of a conversation, which say more about the next one than any model.

Tests, benchmarks and health checks send the same prompt again and again. `learned.py` asks at each admission and adds each answer.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..core.lengths import PROBABILITIES
from .shares import FairLru

MAX_TEXTS: Final = 20_000
# The number of newest answers that are kept of a text.
_NEWEST: Final = 64
# The number of answers that weigh as much as everything else.
_PULL: Final = 2.0

Row = NDArray[np.float32]


class Repeats:
    """The newest lengths by the hash of a text, which includes the tenant."""

    def __init__(self) -> None:
        self._log_tokens: FairLru[int, tuple[float, ...]] = FairLru(MAX_TEXTS)

    def __len__(self) -> int:
        return len(self._log_tokens)

    def apply(self, log_quantiles: Row, text: int, tenant: int) -> Row:
        """Returns quantiles of ln(tokens), pulled towards those of earlier answers to this text."""
        known = self._log_tokens.get(tenant, text) if text else None
        if known is None:
            return log_quantiles
        share = np.float32(len(known) / (len(known) + _PULL))
        return log_quantiles + share * (np.quantile(known, PROBABILITIES).astype(np.float32) - log_quantiles)

    def learn(self, text: int, tenant: int, log_tokens: float) -> None:
        """Adds the length of an answer that was not cut."""
        if text:
            known = self._log_tokens.get(tenant, text) or ()
            self._log_tokens.put(tenant, text, (*known, log_tokens)[-_NEWEST:])

"""Past lengths in a bucket, the newest few, and their quantiles.

A length cap or an abort is a censored observation: the answer was at least that long. The quantiles are Kaplan-Meier's, so that caps do not
read as short answers. Where the survivors never ended (all censored), the rest of the distribution is put TAIL_FACTOR past the longest.
"""

from collections import deque
from typing import Final

import numpy as np

from ..core.lengths import MAX_TOKENS, PROBABILITIES, TAIL_FACTOR, Floats

WINDOW: Final = 128


def censored_quantiles(tokens: Floats, ended: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Floats:
    """Quantiles at PROBABILITIES of lengths of which some are only known to be at least `tokens`. Shape [QUANTILES], ascending.

    Raises ValueError when there is no observation.
    """
    if not len(tokens):
        raise ValueError("quantiles of no observations: need at least one")
    # At equal lengths ends come first: who was censored there had survived it.
    rows = np.lexsort((~ended, tokens))
    tokens, ended = tokens[rows], ended[rows]
    at_risk = len(tokens) - np.arange(len(tokens))
    survival = np.cumprod(np.where(ended, 1.0 - 1.0 / at_risk, 1.0))
    done = 1.0 - survival
    rows = np.searchsorted(done, np.array(PROBABILITIES) - 1e-9, side="left")
    past = tokens[-1] * TAIL_FACTOR
    values = np.where(rows < len(tokens), tokens[np.minimum(rows, len(tokens) - 1)], past)
    return np.clip(values, 1.0, MAX_TOKENS)


class Bucket:
    """The newest WINDOW observations of one kind of request."""

    __slots__ = ("_ended", "_log_quantiles", "_tokens")

    def __init__(self) -> None:
        self._tokens: deque[float] = deque(maxlen=WINDOW)
        self._ended: deque[bool] = deque(maxlen=WINDOW)
        self._log_quantiles: Floats | None = None

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def evidence(self) -> float:
        """How many lengths it knows: a censored one counts a quarter, because it bounds only one side."""
        return sum(1.0 if ended else 0.25 for ended in self._ended)

    def add(self, tokens: float, ended: bool) -> None:
        self._tokens.append(tokens)
        self._ended.append(ended)
        self._log_quantiles = None

    def log_quantiles(self) -> Floats:
        """Natural logarithms of the quantiles; made anew only after an `add`."""
        if self._log_quantiles is None:
            self._log_quantiles = np.log(censored_quantiles(np.array(self._tokens), np.array(self._ended, dtype=np.bool_)))
        return self._log_quantiles

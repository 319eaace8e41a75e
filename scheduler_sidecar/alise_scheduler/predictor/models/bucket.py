"""Past lengths of one kind of request, the newest few, and their quantiles.

A length cap or an abort is a censored observation: the answer had at least that length. The quantiles are Kaplan-Meier's, so that caps do
not count as short answers. Where the survivors never ended (all are censored), the remaining probability is at TAIL_FACTOR times the
longest length.

Pure and in memory; `buckets.py` holds a `Bucket` for each kind of request.
"""

from collections import Counter, deque
from typing import Final

import numpy as np

from ...core.lengths import MAX_TOKENS, PROBABILITIES, TAIL_FACTOR, Floats
from ..shares import most

WINDOW: Final = 128
# The weight of all lengths of one other tenant together, in observations. Requests of others hint at what is usual here and cannot decide
# it, however many they are.
FOREIGN_EVIDENCE: Final = 0.25
_MAX_ASKERS: Final = 16


def censored_quantiles(tokens: Floats, ended: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], weights: Floats | None = None) -> Floats:
    """Returns quantiles at PROBABILITIES of lengths, some of which are only lower bounds. [QUANTILES], ascending.

    `weights` say how often each length counts; None is once.

    Raises ValueError when there is no observation.
    """
    if not len(tokens):
        raise ValueError("quantiles of no observations: need at least one")
    # At equal lengths ends come first, because a censored answer has survived that length.
    rows = np.lexsort((~ended, tokens))
    tokens, ended = tokens[rows], ended[rows]
    if weights is None:
        left = 1.0 - 1.0 / (len(tokens) - np.arange(len(tokens)))
    else:
        weights = weights[rows]
        # Exactly 0 at the end, as it is without weights.
        left = np.maximum(1.0 - weights / np.cumsum(weights[::-1])[::-1], 0.0)
    survival = np.cumprod(np.where(ended, left, 1.0))
    done = 1.0 - survival
    rows = np.searchsorted(done, np.array(PROBABILITIES) - 1e-9, side="left")
    past = tokens[-1] * TAIL_FACTOR
    values = np.where(rows < len(tokens), tokens[np.minimum(rows, len(tokens) - 1)], past)
    return np.clip(values, 1.0, MAX_TOKENS)


class Bucket:
    """The newest WINDOW observations of one kind of request, of several tenants where there are several."""

    __slots__ = ("_ended", "_found", "_tenant", "_tenants", "_tokens")

    def __init__(self) -> None:
        self._tokens: deque[float] = deque()
        self._ended: deque[bool] = deque()
        # The tenant of all observations or, once there are several tenants, of each.
        self._tenant = 0
        self._tenants: deque[int] | None = None
        # (ln of the quantiles, evidence) by the asking tenant; cleared by `add`.
        self._found: dict[int, tuple[Floats, float]] = {}

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, tokens: float, ended: bool, tenant: int = 0) -> None:
        if not self._tokens:
            self._tenant = tenant
        elif self._tenants is None and tenant != self._tenant:
            self._tenants = deque([self._tenant] * len(self._tokens))
        self._tokens.append(tokens)
        self._ended.append(ended)
        self._found.clear()
        if self._tenants is not None:
            self._tenants.append(tenant)
            self._share(self._tenants, tenant)
        elif len(self._tokens) > WINDOW:
            self._drop(0)

    def opinion(self, asker: int = 0) -> tuple[Floats, float]:
        """Returns the logarithms of the quantiles and the number of lengths behind them, for a request of this tenant.

        A length that was cut counts a quarter, as it bounds one side only. All lengths of another tenant count FOREIGN_EVIDENCE at most.
        """
        found = self._found.get(asker)
        if found is None:
            if len(self._found) >= _MAX_ASKERS:
                self._found.clear()
            found = self._found[asker] = self._opinion(asker)
        return found

    def log_quantiles(self, asker: int = 0) -> Floats:
        return self.opinion(asker)[0]

    def _opinion(self, asker: int) -> tuple[Floats, float]:
        tokens, ended = np.array(self._tokens), np.array(self._ended, dtype=np.bool_)
        evidence = sum(1.0 if end else 0.25 for end in self._ended)
        if self._tenants is None:
            return np.log(censored_quantiles(tokens, ended)), evidence if asker == self._tenant else min(evidence, FOREIGN_EVIDENCE)
        known = np.where(ended, 1.0, 0.25)
        tenants = np.array(self._tenants, np.uint64)
        weights, evidence = np.ones(len(tokens)), 0.0
        for tenant in np.unique(tenants):
            own = tenants == tenant
            total = float(known[own].sum())
            counted = total if int(tenant) == asker else min(total, FOREIGN_EVIDENCE)
            weights[own] = counted / total
            evidence += counted
        return np.log(censored_quantiles(tokens, ended, weights)), evidence

    def _share(self, tenants: deque[int], newest: int) -> None:
        """Drops the oldest rows of the largest tenant until there is room and no tenant exceeds its cap."""
        counts = Counter(tenants)
        while True:
            largest = max(counts.values())
            crowded = newest if counts[newest] == largest else max(counts, key=counts.__getitem__)
            if len(tenants) <= WINDOW and largest <= most(WINDOW, len(counts)):
                return
            row = tenants.index(crowded)
            del tenants[row]
            self._drop(row)
            counts[crowded] -= 1

    def _drop(self, row: int) -> None:
        del self._tokens[row]
        del self._ended[row]

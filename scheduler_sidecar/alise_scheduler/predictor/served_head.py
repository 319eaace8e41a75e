"""A head as it is used for predictions, with the weight that each tenant gives it.

Synchronous, short and stateless. `learned.py` decides which head is used and calls it for each admission.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..core.lengths import TAIL_FACTOR
from .features.conversation import PastTurns, carried_over, context
from .features.row import EMBEDDING, PRIOR_AT
from .models import prior
from .models.head import Head
from .training.samples import History, Sample

# A head has its full weight for a tenant with _OWN_ROWS rows in its training data. Below that, every _ROWS_LIKE_A_TENANT of the tenant's
# own rows count as much as one other tenant.
_OWN_ROWS: Final = 64
_ROWS_LIKE_A_TENANT: Final = 8
_LOG_TAIL: Final = math.log(TAIL_FACTOR)
_NO_VECTOR: Final = np.zeros((1, EMBEDDING), np.float32)

Row = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """Quantiles of ln(tokens), [QUANTILES], before calibration. `expected` is the rank that the head expects without the conversation's
    earlier answers."""

    log_quantiles: Row
    expected: float = math.nan


@dataclass(frozen=True, slots=True)
class ServedHead:
    """A head, and what is known of who taught it."""

    head: Head
    # The number of rows that the head learned from, by tenant.
    tenants: Mapping[int, int] = field(default_factory=dict)

    def trust(self, tenant: int) -> float:
        """Returns how much weight the head has for a tenant, 0..1, beside the prior.

        The weight is 1 if the head learned enough from that tenant. Otherwise it grows with the number of tenants that the head learned
        from, so that what a single tenant taught counts half for another one until that one has answers of its own.
        """
        own = self.tenants.get(tenant, 0)
        others = len(self.tenants) - (tenant in self.tenants)
        if own >= _OWN_ROWS or not others:
            return 1.0
        evidence = others + own / _ROWS_LIKE_A_TENANT
        return evidence / (evidence + 1.0)

    def predict(self, row: Row, embedding: Row | None, past: PastTurns | None = None, tenant: int = 0) -> Prediction:
        """Returns the prediction for a request with this row and embedding; `past` is the conversation that it continues."""
        vectors = _NO_VECTOR if embedding is None else embedding[None]
        expected, spread = self.head.expect(row[None], vectors, context(past, embedding)[None])
        quantiles = self.head.quantiles(expected + np.float32(self.head.trust * carried_over(past, embedding)), spread)[0]
        trust = self.trust(tenant)
        if trust < 1.0:
            known = prior.quantiles(float(row[PRIOR_AT + 1]))
            quantiles = known + np.float32(trust) * (quantiles - known)
        return Prediction(quantiles, float(expected[0]))

    def residual(self, sample: Sample, past: PastTurns | None, expected: float | None = None) -> float:
        """Returns by how much its rank was above `expected` (None: it is computed now); NaN for a request outside of conversations.

        An answer that was cut has at least that length, so its residual is never negative.
        """
        if not sample.now:
            return math.nan
        if expected is None:
            vectors = _NO_VECTOR if sample.embedding is None else sample.embedding[None]
            expected = float(self.head.expect(sample.numbers[None], vectors, context(past, sample.embedding)[None])[0][0])
        residual = self.head.rank(sample.log_tokens + (0.0 if sample.ended else _LOG_TAIL)) - expected
        return residual if sample.ended else max(residual, 0.0)


def serve_head(head: Head, history: History) -> ServedHead:
    """Returns a head that was trained on this history, ready to be used."""
    tenants, rows = np.unique(np.zeros(0, np.uint64) if history.tenants is None else history.tenants, return_counts=True)
    return ServedHead(head, dict(zip(tenants.tolist(), rows.tolist(), strict=True)))

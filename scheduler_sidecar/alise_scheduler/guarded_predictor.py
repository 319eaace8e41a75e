"""The predictor as state.py uses it: one that fails costs order, never a request. Then lengths are the prior's, and nothing is learned.

It counts and logs failures, and touches nothing else.
"""

import logging

from .core.lengths import PRIOR, Lengths, sane
from .metrics import Metrics
from .predictor.features.request import Question, extract
from .predictor.features.row import ModelInput
from .predictor.interface import Observation, Predictor

log = logging.getLogger(__name__)


class GuardedPredictor:
    def __init__(self, predictor: Predictor, salt: bytes, metrics: Metrics) -> None:
        """`salt` keys the hashes of features. `predictor` may be replaced at any time."""
        self.predictor = predictor
        self._salt = salt
        self._metrics = metrics
        self._failures = 0

    def of(self, question: Question, room: int, neutral: bool, remember: bool) -> tuple[ModelInput | None, Lengths]:
        """Returns what the predictor is given about a request, and the predicted length of its answer, for which the context has `room`.

        Of a `neutral` request nothing is known. Without `remember`, the predictor changes nothing.
        """
        longest = min(question.max_tokens or room, room) if question.min_tokens else question.max_tokens
        try:
            asked = None if neutral else extract(question, self._salt)
            asked = asked if remember or asked is None else asked.without_tenant()
            return asked, self.predictor.predict(asked, longest, remember)
        except Exception:
            self._failed("a length could not be predicted")
            return None, sane(PRIOR.tokens, longest)

    def of_unknown(self, max_tokens: int) -> Lengths:
        """Returns the predicted length of an answer to a request of which nothing is known."""
        try:
            return self.predictor.predict(None, max_tokens)
        except Exception:
            self._failed("a length could not be predicted")
            return sane(PRIOR.tokens, max_tokens)

    def learn(self, asked: ModelInput, seen: Observation) -> None:
        """Learns from an answer that ended."""
        try:
            self.predictor.learn(asked, seen)
        except Exception:
            self._failed("a length could not be learned")

    def forget(self, asked: ModelInput | None) -> None:
        """Drops what is remembered of a request that will not be learned from."""
        try:
            self.predictor.forget(asked)
        except Exception:
            self._failed("a request could not be forgotten")

    def _failed(self, event: str) -> None:
        self._metrics.background_failures.labels("predictor").inc()
        self._failures += 1
        # A client can repeat the request that caused the failure, so only the 1st, 2nd, 4th, 8th, … failure is logged.
        if self._failures & (self._failures - 1) == 0:
            log.exception(event, extra={"failures": self._failures})

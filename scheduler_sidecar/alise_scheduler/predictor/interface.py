"""What the scheduler needs of a predictor, and what it tells it of a request that has ended.

`state.py` calls a predictor through it, and `learned.py` is one.
"""

from dataclasses import dataclass
from typing import Protocol

from ..core.lengths import Lengths
from ..core.reports import Finished, FinishReason
from .features.row import ModelInput


@dataclass(frozen=True, slots=True)
class Observation:
    """An observed length. Without `ended`, the answer was cut there and would have been at least that long."""

    tokens: int
    ended: bool


class Predictor(Protocol):
    """Predicts the lengths of answers. Implementations keep no prompt text."""

    def predict(self, request: ModelInput | None, max_tokens: int, remember: bool = True) -> Lengths:
        """Returns quantiles of the answer's length, in well under a millisecond. None is a request of which nothing is known. With
        `max_tokens` 0 there is no cap. Without `remember` it changes nothing, because no answer will follow."""

    def learn(self, request: ModelInput, observation: Observation) -> None:
        """Learns from an answer that ended."""

    def forget(self, request: ModelInput | None) -> None:
        """Drops what it remembers of a request that will not be learned from."""


def observation(finished: Finished, min_tokens: int = 0) -> Observation | None:
    """Returns the observation in an end; None if nothing can be learned from it.

    A stop teaches the length, a length cap or an abort that it was at least that long, an error nothing. Neither does an answer that the
    client's `min_tokens` kept going: its end comes with the token after them. A stop before them shows that the engine ignored them.
    """
    tokens, ended = finished.generated_tokens, finished.reason is FinishReason.STOP
    # Hardly an answer is empty, so a minimum of one token keeps none going.
    forced = min_tokens > 1 and tokens <= min_tokens + 1 and not (ended and tokens < min_tokens)
    if tokens <= 0 or forced or finished.reason is FinishReason.ERROR:
        return None
    return Observation(tokens, ended)

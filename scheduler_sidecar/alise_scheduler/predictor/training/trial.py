"""When a head is trained, and whether a new head stays: plain decisions on counts and losses. `learned.py` acts on them."""

from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ...core.lengths import PROBABILITIES

# The first head is trained after this many finished requests. The next one follows when half as many again have finished, and from FEW on
# when as many again have, within these bounds. A training takes half a second of CPU and one more for every 1,500 rows, and later ones
# change little. Conversations, repeated texts and the calibration follow each answer at once.
FIRST_TRAINING: Final = 200
FEW: Final = 1000
_GROWTH_OF_FEW: Final = 0.5
_GROWTH_OF_MANY: Final = 1.0
MIN_BETWEEN: Final = 150
MAX_BETWEEN: Final = 5000
# A new head is on trial for this number of answers. After the least number it can be rejected, if its loss is this much above the other's.
TRIAL: Final = 300
_TRIAL_AT_LEAST: Final = 100
_WORSE: Final = 1.05
_PROBABILITIES: Final = np.array(PROBABILITIES, np.float32)


def next_training(added: int) -> int:
    """Returns the number of finished requests at which to train again, when `added` have finished."""
    growth = _GROWTH_OF_FEW if added < FEW else _GROWTH_OF_MANY
    return added + min(MAX_BETWEEN, max(MIN_BETWEEN, round(added * growth)))


class Verdict(Enum):
    UNDECIDED = "undecided"
    PASSED = "passed"
    REJECTED = "rejected"


class Trial:
    """Compares a new head with the one before it, on answers that both predicted."""

    def __init__(self) -> None:
        self.losses = (0.0, 0.0)
        self._count = 0

    def add(self, new_loss: float, old_loss: float) -> Verdict:
        """Adds the losses of both heads on one answer and returns what follows."""
        self.losses = (self.losses[0] + new_loss, self.losses[1] + old_loss)
        self._count += 1
        if self._count >= _TRIAL_AT_LEAST and self.losses[0] > _WORSE * self.losses[1]:
            return Verdict.REJECTED
        return Verdict.PASSED if self._count >= TRIAL else Verdict.UNDECIDED


def pinball(log_quantiles: NDArray[np.float32], log_tokens: float) -> float:
    """Returns the mean quantile loss in logs; twice that is about the CRPS."""
    error = np.float32(log_tokens) - log_quantiles
    return float(np.maximum(_PROBABILITIES * error, (_PROBABILITIES - 1.0) * error).mean())

"""The predictor that learns: before the first training it uses the prior, then a head; where there is neither, a fixed distribution.

The dispatcher calls `predict` and `learn`, which are synchronous and short. `training/loop.py` asks `wants_training()`, trains on
`newest()` and calls `install()`. A new head is on trial beside the one before it, which returns if the new one is worse.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..core.lengths import PRIOR, Lengths, sane
from .features.conversation import Conversations, PastTurns, complete
from .features.row import PRIOR_AT, ModelInput
from .interface import Observation
from .models import prior
from .models.calibration import Calibration, Group
from .repeats import Repeats
from .served_head import Prediction, ServedHead
from .training.fit import MAX_ROWS
from .training.samples import History, Recent, Sample
from .training.trial import FIRST_TRAINING, MIN_BETWEEN, Trial, Verdict, next_training, pinball

log = logging.getLogger(__name__)

# The number of requests that were predicted and have not finished. For older ones everything is computed again when they finish.
_MOST_ADMITTED: Final = 4096

Row = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Admitted:
    """What a request was predicted from and by, kept until it finishes so that it is not computed twice."""

    model_input: ModelInput
    past: PastTurns | None
    prior: prior.Prior | None
    serving: ServedHead | None
    row: Row
    prediction: Prediction


class LearnedPredictor:
    """A `Predictor`. `keep` is called with every sample that was learned, so that the history can store it."""

    def __init__(self, keep: Callable[[Sample], None] = lambda sample: None) -> None:
        # None: not fitted yet, or not available.
        self.prior: prior.Prior | None = None
        self.recent = Recent()
        self.rollbacks = 0
        self._keep = keep
        self._repeats = Repeats()
        self._conversations = Conversations()
        # By the identity of their model input, which an entry keeps alive.
        self._admitted: OrderedDict[int, _Admitted] = OrderedDict()
        self._calibration = Calibration()
        self._serving: ServedHead | None = None
        # The head before the one on trial.
        self._before: ServedHead | None = None
        self._trial = Trial()
        self._train_at = FIRST_TRAINING
        # With a prior, no training comes before this number of finished requests.
        self._put_off_to = 0

    @property
    def head_rows(self) -> int:
        """The number of rows that the head in use was trained on."""
        return self._serving.head.rows if self._serving else 0

    @property
    def version(self) -> int:
        """The version of the head in use; 0 is none."""
        return self._serving.head.version if self._serving else 0

    # --- Predictor --------------------------------------------------------------------------------------------------------------------

    def predict(self, request: ModelInput | None, max_tokens: int, remember: bool = True) -> Lengths:
        if request is None:
            return sane(PRIOR.tokens, max_tokens)
        predicted = self._predicted(request, self._conversations.find(request.previous, request.tenant))
        if remember:
            self._remember(predicted)
        log_quantiles = predicted.prediction.log_quantiles
        calibrated = self._calibration.apply(log_quantiles, _groups(request), request.tenant)
        tokens = np.exp(self._repeats.apply(calibrated, request.text, request.tenant))
        return sane(np.maximum(tokens, request.min_tokens).tolist(), max_tokens)

    def learn(self, request: ModelInput, observation: Observation) -> None:
        log_tokens = math.log(max(1, observation.tokens))
        if observation.ended:
            self._repeats.learn(request.text, request.tenant, log_tokens)
        past = self._conversations.find(request.previous, request.tenant)
        admitted = self._admitted.pop(id(request), None)
        if admitted is None or admitted.past is not past or admitted.prior is not self.prior or admitted.serving is not self._serving:
            admitted = self._predicted(request, past)
        expected = self._judge(admitted, log_tokens, observation.ended)
        root = past.root if past else request.now
        sample = Sample(
            admitted.row, request.embedding, log_tokens, observation.ended, root, request.model, request.now, request.previous,
            request.tenant,
        )  # fmt: skip
        self.take(sample, expected)
        self._keep(sample)

    def forget(self, request: ModelInput | None) -> None:
        self._admitted.pop(id(request), None)

    # --- history ----------------------------------------------------------------------------------------------------------------------

    def take(self, sample: Sample, expected: float | None = None) -> None:
        """Takes in a finished request of this or another process. `expected` is the rank the head expected; None: not computed yet."""
        self.recent.add(sample)
        past = self._conversations.find(sample.previous, sample.tenant)
        residual = self._serving.residual(sample, past, expected) if self._serving is not None else math.nan
        by_prior = float(sample.numbers[PRIOR_AT])
        self._conversations.add(sample.previous, sample.now, sample.log_tokens, sample.embedding, by_prior, residual, sample.tenant)

    # --- training ---------------------------------------------------------------------------------------------------------------------

    def wants_training(self) -> bool:
        """Returns whether it is time to train, once it is known whether there is a prior."""
        return self.recent.added >= (self._train_at if self.prior is None else max(self._train_at, self._put_off_to))

    def put_off(self) -> None:
        """Puts the first training off although the history of an earlier process would be enough for it, if a prior can serve meanwhile.

        A start is when requests come, and the CPU is needed for them.
        """
        self._put_off_to = self.recent.added + MIN_BETWEEN

    def newest(self, rows: int = MAX_ROWS) -> History:
        """Returns what to train on, and puts off the next training until more has finished."""
        self._train_at = next_training(self.recent.added)
        return self.recent.newest(rows)

    def restore(self, served: ServedHead) -> None:
        """Uses a stored head."""
        self._serving = served
        self._train_at = next_training(self.recent.added)

    def install(self, served: ServedHead) -> None:
        """Uses a new head."""
        if self._serving is None:
            # Until now the calibration has followed the prior.
            self._calibration = Calibration()
        self._before, self._serving = self._serving, served
        self._trial = Trial()

    # --- parts ------------------------------------------------------------------------------------------------------------------------

    def _remember(self, admitted: _Admitted) -> None:
        """Keeps what a request was predicted from until it finishes."""
        self._admitted[id(admitted.model_input)] = admitted
        if len(self._admitted) > _MOST_ADMITTED:
            self._admitted.popitem(last=False)

    def _predicted(self, request: ModelInput, past: PastTurns | None) -> _Admitted:
        expected = math.nan if self.prior is None else self.prior.expect(request.numbers, request.embedding)
        row = complete(request, past, expected)
        return _Admitted(request, past, self.prior, self._serving, row, self._prediction(row, request, past))

    def _prediction(self, row: Row, request: ModelInput, past: PastTurns | None) -> Prediction:
        if self._serving is not None:
            return self._serving.predict(row, request.embedding, past, request.tenant)
        return Prediction(prior.quantiles(float(row[PRIOR_AT + 1])))

    def _judge(self, admitted: _Admitted, log_tokens: float, ended: bool) -> float | None:
        """Compares an answer with its prediction, for the calibration and for the trial of a new head.

        Returns the rank that the head expected, if that head stays in use.
        """
        request, prediction = admitted.model_input, admitted.prediction
        groups = _groups(request)
        if self._serving is not None and self._before is not None and ended:
            old = self._before.predict(admitted.row, request.embedding, admitted.past, request.tenant)
            new_loss, old_loss = (
                pinball(self._calibration.apply(one.log_quantiles, groups, request.tenant), log_tokens) for one in (prediction, old)
            )  # fmt: skip
            verdict = self._trial.add(new_loss, old_loss)
            if verdict is Verdict.REJECTED:
                self.rollbacks += 1
                versions = {"version": self._serving.head.version, "back_to": self._before.head.version}
                log.warning("new head is worse, the one before is back", extra={**versions, "losses": self._trial.losses})
                self._serving, prediction = self._before, old
            if verdict is not Verdict.UNDECIDED:
                self._before = None
        self._calibration.learn(prediction.log_quantiles, groups, log_tokens, ended, request.tenant)
        return None if self._serving is None else prediction.expected


def _groups(request: ModelInput) -> tuple[Group, ...]:
    return ((request.model,),) if not request.klass else ((request.model,), (request.model, request.klass))

"""The predictor that learns: what is known beforehand until there is a head, then the head on that, features, embedding, neighbours and the
conversation. Where neither is there, buckets.

Prediction and learning are the dispatcher's, synchronous and short. Training is somebody else's: `wants_training()` says when, `newest()`
what on, `install()` puts the result to use. For a while after that the head before it predicts as well, unseen; if the new one is worse on
what ended since, the old one comes back.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..core.lengths import PROBABILITIES, TAIL_FACTOR, Lengths, sane
from .features.conversation import EMBEDDING, PRIOR_AT, Conversations, Detail, Said, carried_over, complete, context
from .features.request import Features
from .models import neighbours, prior
from .models.buckets import LOG_PRIOR, BucketPredictor, Observation
from .models.calibration import Calibration, Group
from .models.head import Head
from .models.neighbours import INDEX_ROWS, Index
from .training.fit import MAX_ROWS
from .training.samples import History, Recent, Sample

log = logging.getLogger(__name__)

# Trained at first after this many finished requests, then whenever half as many again have come, from FEW on as many again, within these
# bounds. A training takes half a second of CPU and one more for every 1,500 rows, and the later ones change little. Neighbours,
# conversations and calibration know what is new at once.
FIRST_TRAINING: Final = 200
FEW: Final = 1000
_GROWTH_OF_FEW: Final = 0.5
_GROWTH_OF_MANY: Final = 1.0
MIN_BETWEEN: Final = 150
MAX_BETWEEN: Final = 5000
# A new head is on trial for so many answers and goes if its loss is so much above the one before.
TRIAL: Final = 300
_TRIAL_AT_LEAST: Final = 100
_WORSE: Final = 1.05
_SAME_TEXT_PULL: Final = 2.0
# A head is trusted fully by a tenant with _OWN_ROWS rows in its training data. Below that, every _ROWS_LIKE_A_TENANT of its own rows count
# as much as one other tenant.
_OWN_ROWS: Final = 64
_ROWS_LIKE_A_TENANT: Final = 8
# Requests that were predicted and have not ended; of older ones everything is computed again when they do.
_MOST_ADMITTED: Final = 4096
_LOG_TAIL: Final = math.log(TAIL_FACTOR)
_PROBABILITIES: Final = np.array(PROBABILITIES, np.float32)
_NO_NEIGHBOURS: Final = np.full((1, len(neighbours.NAMES)), np.nan, np.float32)
_NO_VECTOR: Final = np.zeros((1, EMBEDDING), np.float32)

Row = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Quantiles of ln(tokens), [QUANTILES], uncalibrated; `expected` is the rank to expect whatever was answered in the conversation."""

    log_quantiles: Row
    expected: float = math.nan


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A request as it was when it was predicted, until it ends: what it was predicted from and by. The same is not computed twice."""

    detail: Detail
    said: Said | None
    prior: prior.Prior | None
    serving: "Equipped | None"
    row: Row
    own: Foreseen | None


@dataclass(frozen=True, slots=True)
class Equipped:
    """A head with the index that was made with its projection."""

    head: Head
    index: Index
    # Rows that the head learned from, by tenant.
    tenants: Mapping[int, int] = field(default_factory=dict)

    def trust(self, tenant: int) -> float:
        """How far a tenant believes it, 0..1: wholly where it learned from that tenant; else the more, the more tenants it learned from.

        So what one tenant taught is half believed by another until that one has answers of its own.
        """
        own = self.tenants.get(tenant, 0)
        others = len(self.tenants) - (tenant in self.tenants)
        if own >= _OWN_ROWS or not others:
            return 1.0
        evidence = others + own / _ROWS_LIKE_A_TENANT
        return evidence / (evidence + 1.0)

    def foresee(self, row: Row, embedding: Row | None, said: Said | None = None, tenant: int = 0) -> Foreseen:
        """`said` is the conversation it is a turn of."""
        numbers, vectors, near = row[None], _NO_VECTOR, _NO_NEIGHBOURS
        if embedding is not None:
            vectors = embedding[None]
        projected = self.head.scaling.project(vectors)
        if embedding is not None:
            found = self.index.nearest(projected[0], root=said.root if said else 0, tenant=tenant)
            near = near if found is None else found.statistics()[None]
        expected = self.head.expect(numbers, vectors, context(said, embedding)[None])
        smooth = expected + np.float32(self.head.trust * carried_over(said, embedding))
        quantiles = self.head.predict(numbers, projected, near, smooth)[0]
        trust = self.trust(tenant)
        if trust < 1.0:
            prior_here = float(row[PRIOR_AT + 1])
            known = LOG_PRIOR.astype(np.float32) if math.isnan(prior_here) else prior.quantiles(prior_here)
            quantiles = known + np.float32(trust) * (quantiles - known)
        return Foreseen(quantiles, float(expected[0]))

    def rest(self, sample: Sample, said: Said | None, expected: float | None = None) -> float:
        """By how much its rank was above `expected`, or, None, what it is to expect now; NaN for no turn of a conversation.

        An answer that was cut is at least so long, so it never says that answers are shorter than expected.
        """
        if not sample.now:
            return math.nan
        if expected is None:
            vectors = _NO_VECTOR if sample.embedding is None else sample.embedding[None]
            expected = float(self.head.expect(sample.numbers[None], vectors, context(said, sample.embedding)[None])[0])
        rest = self.head.rank(sample.log_tokens + (0.0 if sample.ended else _LOG_TAIL)) - expected
        return rest if sample.ended else max(rest, 0.0)

    def add(self, sample: Sample) -> None:
        if sample.embedding is not None:
            length = sample.log_tokens + (0.0 if sample.ended else _LOG_TAIL)
            self.index.add(self.head.scaling.project(sample.embedding[None])[0], length, sample.root, sample.tenant)

    def add_all(self, history: History) -> None:
        projected = self.head.scaling.project(history.vectors)
        tokens = history.log_tokens + np.where(history.ended, 0.0, _LOG_TAIL)
        tenants = np.zeros(len(tokens), np.uint64) if history.tenants is None else history.tenants
        for row in np.flatnonzero(history.vectors.any(axis=1)):
            self.index.add(projected[row], float(tokens[row]), int(history.roots[row]) % 2**64, int(tenants[row]))


def equip(head: Head, history: History) -> Equipped:
    """A head with an index of this history. Takes a moment: not for the dispatcher."""
    tenants, rows = np.unique(np.zeros(0, np.uint64) if history.tenants is None else history.tenants, return_counts=True)
    by_tenant = dict(zip(tenants.tolist(), rows.tolist(), strict=True))
    equipped = Equipped(head, Index(head.scaling.basis.shape[1], INDEX_ROWS), by_tenant)
    equipped.add_all(history)
    return equipped


class LearnedPredictor:
    """A `Predictor`; `keep` is given every sample that was learned, for the history."""

    def __init__(self, keep: Callable[[Sample], None] = lambda sample: None) -> None:
        # None: not there yet, or not wanted.
        self.prior: prior.Prior | None = None
        self.recent = Recent()
        self.rollbacks = 0
        self._keep = keep
        self._buckets = BucketPredictor()
        self._conversations = Conversations()
        # By the identity of their detail, which an entry keeps alive.
        self._admitted: OrderedDict[int, _Admitted] = OrderedDict()
        self._calibration = Calibration()
        self._serving: Equipped | None = None
        self._before: Equipped | None = None
        self._losses = (0.0, 0.0)
        self._on_trial = 0
        self._train_at = FIRST_TRAINING

    @property
    def head_rows(self) -> int:
        """What the head in use was trained on."""
        return self._serving.head.rows if self._serving else 0

    @property
    def version(self) -> int:
        """Of the head in use; 0: none yet."""
        return self._serving.head.version if self._serving else 0

    # --- Predictor --------------------------------------------------------------------------------------------------------------------

    def predict(self, features: Features, max_tokens: int) -> Lengths:
        detail = features.detail
        if detail is None:
            return self._buckets.predict(features, max_tokens)
        own = self._looked_at(detail, self._conversations.find(detail.previous, detail.tenant)).own
        if own is None:
            return self._buckets.predict(features, max_tokens)
        believed = self._calibration.apply(own.log_quantiles, _groups(detail), detail.tenant)
        same, evidence = self._buckets.same_text(features)
        if same is not None:
            believed = believed + np.float32(evidence / (evidence + _SAME_TEXT_PULL)) * (same.astype(np.float32) - believed)
        return sane(np.exp(believed).tolist(), max_tokens)

    def learn(self, features: Features, observation: Observation) -> None:
        self._buckets.learn(features, observation)
        detail = features.detail
        if detail is None:
            return
        log_tokens = math.log(max(1, observation.tokens))
        said = self._conversations.find(detail.previous, detail.tenant)
        seen = self._admitted.pop(id(detail), None)
        if seen is None or seen.said is not said or seen.prior is not self.prior or seen.serving is not self._serving:
            seen = self._seen(detail, said)
        expected = self._judge(seen, log_tokens, observation.ended)
        root = said.root if said else detail.now
        sample = Sample(
            seen.row, detail.embedding, log_tokens, observation.ended, root, detail.model, detail.now, detail.previous, detail.tenant
        )  # fmt: skip
        self.take(sample, expected)
        self._keep(sample)

    # --- history ----------------------------------------------------------------------------------------------------------------------

    def take(self, sample: Sample, expected: float | None = None) -> None:
        """A finished request, of this process or of another one; `expected` is the rank the head expected, None: not asked yet."""
        self.recent.add(sample)
        said = self._conversations.find(sample.previous, sample.tenant)
        rest = self._serving.rest(sample, said, expected) if self._serving is not None else math.nan
        expected_before = float(sample.numbers[PRIOR_AT])
        self._conversations.add(
            sample.previous, sample.now, sample.log_tokens, sample.embedding, expected_before, rest, sample.tenant
        )  # fmt: skip
        for equipped in (self._serving, self._before):
            if equipped is not None:
                equipped.add(sample)

    # --- training ---------------------------------------------------------------------------------------------------------------------

    def wants_training(self) -> bool:
        return self.recent.added >= self._train_at

    def newest(self, rows: int = MAX_ROWS) -> tuple[History, int]:
        """What to train on, and the number of the last sample in it. The next training is put off until more has come."""
        self._train_later()
        return self.recent.newest(rows), self.recent.added

    def restore(self, equipped: Equipped) -> None:
        """Uses a stored head, whose index holds all samples there are."""
        self._serving = equipped
        self._train_later()

    def _train_later(self) -> None:
        added = self.recent.added
        growth = _GROWTH_OF_FEW if added < FEW else _GROWTH_OF_MANY
        self._train_at = added + min(MAX_BETWEEN, max(MIN_BETWEEN, round(added * growth)))

    def install(self, equipped: Equipped, seen: int) -> None:
        """Uses a new head; what came after sample `seen` is added to its index."""
        equipped.add_all(self.recent.newest(self.recent.added - seen, since=seen))
        if self._serving is None:
            # What was learned is how far off the prior is.
            self._calibration = Calibration()
        self._before, self._serving = self._serving, equipped
        self._losses, self._on_trial = (0.0, 0.0), TRIAL if self._before is not None else 0

    def _looked_at(self, detail: Detail, said: Said | None) -> _Admitted:
        """A request that is predicted now; remembered until it ends."""
        seen = self._admitted[id(detail)] = self._seen(detail, said)
        if len(self._admitted) > _MOST_ADMITTED:
            self._admitted.popitem(last=False)
        return seen

    def _seen(self, detail: Detail, said: Said | None) -> _Admitted:
        row = self._row(detail, said)
        return _Admitted(detail, said, self.prior, self._serving, row, self._own(row, detail, said))

    def _row(self, detail: Detail, said: Said | None) -> Row:
        expected = math.nan if self.prior is None else self.prior.expect(detail.numbers, detail.embedding)
        return complete(detail, said, expected)

    def _own(self, row: Row, detail: Detail, said: Said | None) -> Foreseen | None:
        """By the head or what is known beforehand; None where there is neither."""
        if self._serving is not None:
            return self._serving.foresee(row, detail.embedding, said, detail.tenant)
        expected = float(row[PRIOR_AT + 1])
        return None if math.isnan(expected) else Foreseen(prior.quantiles(expected))

    def _judge(self, seen: _Admitted, log_tokens: float, ended: bool) -> float | None:
        """Compares with what was predicted, corrects the calibration, and lets the head on trial go if it is worse than the one before.

        The rank that the head expected, where it is the one in use from now on.
        """
        row, detail, said, own = seen.row, seen.detail, seen.said, seen.own
        groups = _groups(detail)
        if own is None:
            return None
        quantiles, expected = own.log_quantiles, None if self._serving is None else own.expected
        if self._serving is not None and self._before is not None and ended:
            old = self._before.foresee(row, detail.embedding, said, detail.tenant)
            new_loss, old_loss = (
                pinball(self._calibration.apply(q, groups, detail.tenant), log_tokens) for q in (quantiles, old.log_quantiles)
            )  # fmt: skip
            self._losses = (self._losses[0] + new_loss, self._losses[1] + old_loss)
            self._on_trial -= 1
            if TRIAL - self._on_trial >= _TRIAL_AT_LEAST and self._losses[0] > _WORSE * self._losses[1]:
                self.rollbacks += 1
                log.warning(
                    "new head is worse, the one before is back",
                    extra={"version": self._serving.head.version, "back_to": self._before.head.version, "losses": self._losses},
                )
                self._serving, self._before, quantiles, expected = self._before, None, old.log_quantiles, old.expected
            elif self._on_trial <= 0:
                self._before = None
        self._calibration.learn(quantiles, groups, log_tokens, ended, detail.tenant)
        return expected


def pinball(log_quantiles: Row, log_tokens: float) -> float:
    """Mean quantile loss in logs; twice that is about the CRPS."""
    error = np.float32(log_tokens) - log_quantiles
    return float(np.maximum(_PROBABILITIES * error, (_PROBABILITIES - 1.0) * error).mean())


def _groups(detail: Detail) -> tuple[Group, ...]:
    return ((detail.model,),) if not detail.klass else ((detail.model,), (detail.model, detail.klass))

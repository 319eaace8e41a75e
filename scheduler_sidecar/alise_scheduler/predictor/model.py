"""The predictor: quantiles of past lengths of similar requests, backing off to coarser similarity where little is known.

Similarity is a chain of buckets from everything to this very text. Starting at the prior, each finer bucket pulls the quantiles (in logs)
towards its own by `evidence / (evidence + pull)`: a bucket with no observation changes nothing, one with many decides.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from ..core.lengths import PRIOR, Floats, Lengths, sane
from .features import Features
from .history import Bucket

MAX_BUCKETS: Final = 20_000
_PULL: Final = 4.0
# The same text or conversation again says more than one more request of a kind.
_PULL_SAME: Final = 0.5
_LOG_PRIOR: Final = np.log(np.array(PRIOR.tokens))

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """A length that was seen; not `ended`: the answer was cut there and would have been at least that long."""

    tokens: int
    ended: bool


class Predictor(Protocol):
    """How long an answer will be. Implementations keep no prompt text."""

    def predict(self, features: Features, max_tokens: int) -> Lengths:
        """Quantiles of the answer's length; `max_tokens` 0: no cap. Takes well under a millisecond."""

    def learn(self, features: Features, observation: Observation) -> None:
        """Takes in an answer that ended."""


def bucket_keys(f: Features) -> tuple[tuple[Key, float], ...]:
    """Buckets of a request from coarse to fine, each with its pull."""
    keys: list[tuple[Key, float]] = [(("all",), _PULL)]
    if f.endpoint:
        keys += [
            (("endpoint", f.endpoint, f.structured), _PULL),
            (("kind", f.endpoint, f.structured, f.keyword, f.asked), _PULL),
            (("size", f.endpoint, f.structured, f.keyword, f.asked, f.prompt), _PULL),
            (("turn", f.endpoint, f.structured, f.keyword, f.asked, f.prompt, f.turns), _PULL),
            (("cap", f.endpoint, f.structured, f.keyword, f.asked, f.prompt, f.turns, f.cap), _PULL),
        ]
    if f.tenant:
        keys.append((("tenant", f.tenant, f.keyword, f.asked), _PULL))
    if f.conversation:
        keys.append((("conversation", f.conversation), _PULL_SAME))
    if f.text:
        keys.append((("text", f.text, f.conversation), _PULL_SAME))
    return tuple(keys)


class BucketPredictor:
    """Predictor over at most MAX_BUCKETS buckets; the least recently used go first."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[Key, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def predict(self, features: Features, max_tokens: int) -> Lengths:
        log_quantiles = _LOG_PRIOR
        for key, pull in bucket_keys(features):
            bucket = self._buckets.get(key)
            if bucket is not None:
                self._buckets.move_to_end(key)
                trust = bucket.evidence / (bucket.evidence + pull)
                log_quantiles = log_quantiles + trust * (bucket.log_quantiles() - log_quantiles)
        return sane(np.exp(log_quantiles).tolist(), max_tokens)

    def same_text(self, features: Features) -> tuple[Floats | None, float]:
        """Quantiles of ln(tokens) of answers to this very text in this very conversation, and their evidence; (None, 0) without one."""
        bucket = self._buckets.get(("text", features.text, features.conversation)) if features.text else None
        return (None, 0.0) if bucket is None else (bucket.log_quantiles(), bucket.evidence)

    def learn(self, features: Features, observation: Observation) -> None:
        for key, _ in bucket_keys(features):
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = Bucket()
                if len(self._buckets) > MAX_BUCKETS:
                    self._buckets.popitem(last=False)
            self._buckets.move_to_end(key)
            bucket.add(float(max(1, observation.tokens)), observation.ended)


def log_error(predicted: Lengths, tokens: int) -> float:
    """How far off the median was, as |ln(predicted / seen)|: 0.69 is a factor of two."""
    return abs(math.log(predicted.median / max(1, tokens)))

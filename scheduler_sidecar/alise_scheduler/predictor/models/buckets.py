"""The predictor without a model: quantiles of past lengths of similar requests, backing off to coarser similarity where little is known.

Similarity is a chain of buckets from everything to this very text. Starting at a fixed distribution, each finer bucket pulls the quantiles
(in logs) towards its own by `evidence / (evidence + pull)`: a bucket without observations changes nothing, and one with many decides.
Requests of other tenants are weak evidence, however many they are (`bucket.py`). Buckets of texts and conversations belong to a tenant.

It serves before anything else is loaded, with ALISE_PREDICTOR=buckets, and for requests of which only a hint is known. `learned.py` asks it
for earlier answers to the same text.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from ...core.lengths import PRIOR, Lengths, sane
from ..features.request import Features
from ..shares import FairLru
from .bucket import Bucket

MAX_BUCKETS: Final = 20_000
_PULL: Final = 4.0
# The same text or conversation is stronger evidence than another request of a kind.
_PULL_SAME: Final = 0.5
# Kinds of buckets that belong to one tenant. Their keys are hashes that include the tenant.
_OWN: Final = frozenset({"tenant", "conversation", "text"})
LOG_PRIOR: Final = np.log(np.array(PRIOR.tokens))

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """An observed length. Without `ended`, the answer was cut there and would have been at least that long."""

    tokens: int
    ended: bool


class Predictor(Protocol):
    """Predicts the lengths of answers. Implementations keep no prompt text."""

    def predict(self, features: Features, max_tokens: int) -> Lengths:
        """Returns quantiles of the answer's length, in well under a millisecond. With `max_tokens` 0 there is no cap."""

    def learn(self, features: Features, observation: Observation) -> None:
        """Learns from an answer that ended."""


def bucket_keys(f: Features) -> tuple[tuple[Key, float], ...]:
    """Returns the buckets of a request from coarse to fine, each with its pull."""
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
    """A `Predictor` over at most MAX_BUCKETS buckets. The least recently used are dropped first, of the largest tenant's own."""

    def __init__(self) -> None:
        self._shared: OrderedDict[Key, Bucket] = OrderedDict()
        self._own: FairLru[Key, Bucket] = FairLru(MAX_BUCKETS)

    def __len__(self) -> int:
        return len(self._shared) + len(self._own)

    def predict(self, features: Features, max_tokens: int) -> Lengths:
        log_quantiles = LOG_PRIOR
        for key, pull in bucket_keys(features):
            bucket = self._find(key, features.tenant)
            if bucket is not None:
                own, evidence = bucket.opinion(features.tenant)
                log_quantiles = log_quantiles + evidence / (evidence + pull) * (own - log_quantiles)
        return sane(np.exp(log_quantiles).tolist(), max_tokens)

    def learn(self, features: Features, observation: Observation) -> None:
        for key, _ in bucket_keys(features):
            bucket = self._find(key, features.tenant)
            if bucket is None:
                bucket = self._make(key, features.tenant)
            bucket.add(float(max(1, observation.tokens)), observation.ended, features.tenant)

    def _find(self, key: Key, tenant: int) -> Bucket | None:
        """Returns the bucket and marks it as used."""
        own = key[0] in _OWN
        bucket = self._own.get(tenant, key) if own else self._shared.get(key)
        if bucket is not None:
            if own:
                self._own.touch(tenant, key)
            else:
                self._shared.move_to_end(key)
        return bucket

    def _make(self, key: Key, tenant: int) -> Bucket:
        if len(self) >= MAX_BUCKETS:
            if len(self._shared) > len(self._own):
                self._shared.popitem(last=False)
            else:
                self._own.drop_oldest()
        bucket = Bucket()
        if key[0] in _OWN:
            self._own.put(tenant, key, bucket)
        else:
            self._shared[key] = bucket
        return bucket


def log_error(predicted: Lengths, tokens: int) -> float:
    """Returns the error of the median, |ln(predicted / observed)|: 0.69 is a factor of two."""
    return abs(math.log(predicted.median / max(1, tokens)))

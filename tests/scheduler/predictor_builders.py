"""Requests, samples and small histories for the predictor's tests.

`test_learned.py`, `test_store.py` and `tests/bench/sidecar.py` build with it.
"""

import math
from typing import Any

import numpy as np

from alise_scheduler.predictor.features.request import Question, extract
from alise_scheduler.predictor.features.row import EMBEDDING, NUMBERS, ModelInput
from alise_scheduler.predictor.training.samples import History, Sample
from tests.scheduler.hash_encoder import HashEncoder

ENCODER = HashEncoder()
SALT = b"salt"
TASKS = (
    ("Name one fact about", 12),
    ("Summarize the story of", 60),
    ("Explain in detail the nature of", 180),
    ("Write an essay about", 420),
)
SUBJECTS = ("rivers", "bread", "the moon", "chess", "old bridges", "trains", "whales", "paper")


def make_features(prompt: str = "Name one fact about rivers", embed: bool = True, **fields: Any) -> ModelInput:
    vector = ENCODER.encode([prompt])[0] if embed else None
    return extract(Question(endpoint=1, prompt=prompt, prompt_chars=len(prompt), embedding=vector, **fields), SALT)


def make_task(rng: np.random.Generator) -> tuple[str, int]:
    """A prompt and the length of its answer: the verb decides, with noise around it."""
    verb, typical = TASKS[rng.integers(len(TASKS))]
    tokens = max(1, round(typical * math.exp(0.25 * rng.standard_normal())))
    return f"{verb} {SUBJECTS[rng.integers(len(SUBJECTS))]} {rng.integers(1000)}", tokens


def make_sample(tokens: float = 50.0, seed: int = 0, **fields: Any) -> Sample:
    rng = np.random.default_rng(seed)
    vector = rng.standard_normal(EMBEDDING).astype(np.float32)
    numbers = np.round(rng.random(NUMBERS).astype(np.float32), 2)
    values: dict[str, Any] = {"numbers": numbers, "embedding": vector / np.linalg.norm(vector), "log_tokens": math.log(tokens)}
    return Sample(**{"ended": True, "root": 0, **values, **fields})


def make_history(rows: int, seed: int = 0, cut_at: int | None = None) -> History:
    """Tasks in words; answers over `cut_at` tokens are cut there."""
    rng = np.random.default_rng(seed)
    tasks = [make_task(rng) for _ in range(rows)]
    inputs = [make_features(prompt) for prompt, _ in tasks]
    tokens = np.array([length for _, length in tasks], np.float32)
    ended = tokens <= cut_at if cut_at else np.ones(rows, bool)
    numbers = np.stack([request.numbers for request in inputs])
    vectors = np.stack([request.embedding for request in inputs if request.embedding is not None])
    bounded = np.minimum(tokens, cut_at) if cut_at else tokens
    return History(numbers, vectors, np.log(bounded).astype(np.float32), ended, np.arange(rows))

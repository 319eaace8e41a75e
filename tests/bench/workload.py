"""Workloads for benchmarks: prompts with the token counts of real answers, or a seeded synthetic one.

Data sets are read from where the user points (DATASET or ALISE_DATA) and never copied. A figure of a data set is named after the file's
stem; a synthetic one ends in `_synthetic`. `serving.py`, `clients.py`, `picker.py` and the other suites load them.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Key in `vllm_xargs` that tells the engine alone how long an answer is to be (stop_after.py).
STOP_AFTER: Final = "bench_stop_after"
# Subjects and verbs of the synthetic prompts: the verb decides the length, so that there is something to learn.
_SUBJECTS = (
    "a lighthouse",
    "the number seven",
    "an old bridge",
    "photosynthesis",
    "a chess game",
    "the tide",
    "a train to Vienna",
    "bread",
)
_VERBS = (("Name one fact about", 12), ("Summarize", 60), ("Explain step by step", 180), ("Write a long essay about", 420))


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent, and how many tokens the answer had."""

    text: str
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Workload:
    """`name` ends the figures' names; `prompts` are in random order."""

    name: str
    prompts: tuple[Prompt, ...]


def synthetic(count: int, seed: int) -> Workload:
    """Prompts whose verb predicts the length, with lognormal noise (sigma 0.5) around it; 4 to 600 tokens."""
    chance = random.Random(seed)
    prompts = []
    for number in range(count):
        verb, typical = chance.choice(_VERBS)
        length = min(600, max(4, round(typical * chance.lognormvariate(0.0, 0.5))))
        prompts.append(Prompt(f"{verb} {chance.choice(_SUBJECTS)} ({number}).", length))
    return Workload("synthetic", tuple(prompts))


def load(dataset: Path | None, count: int, seed: int, default: str = "alpaca.parquet") -> Workload:
    """`count` prompts of a parquet file (columns prompt and output_tokens), shuffled by `seed`.

    A folder is searched for `default`. Raises FileNotFoundError or ValueError when the file or its columns are not there.
    """
    if dataset is None:
        return synthetic(count, seed)
    path = dataset / default if dataset.is_dir() else dataset
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; name another DATASET, or none for the synthetic workload")
    import pyarrow.parquet as parquet

    rows: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    missing = {"prompt", "output_tokens"} - set(rows)
    if missing:
        raise ValueError(f"{path} lacks the columns {sorted(missing)}; it has {sorted(rows)}")
    pairs = zip(rows["prompt"], rows["output_tokens"], strict=True)
    prompts = [Prompt(text, int(tokens)) for text, tokens in pairs if text and tokens and tokens > 0]
    random.Random(seed).shuffle(prompts)
    return Workload(path.stem, tuple(prompts[:count]))

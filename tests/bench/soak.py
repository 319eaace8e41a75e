"""Ten minutes of random plans, aborts and arrivals on real engines: no answer may differ, no block may leak, no request may be stuck.

The rounds of `tests/engine/fuzz.py`, half of them with everything that goes wrong in it and half restoring all that was preempted, for the
four kinds of engine in turn. A row names its engine, mix and seed: `Round(engine, questions, seed, mix)` is that round again.
`make bench-soak` runs it.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.harness import Figure, Row, Settings

SECONDS: Final = 600
QUICK_SECONDS: Final = 60
TURNS: Final = 150
QUESTIONS: Final = 24


def measure(settings: Settings) -> Iterator[Row]:
    """Rounds until the time has run out, an equal part of it for each engine; its start and its questions count."""
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1", VLLM_LOGGING_LEVEL="ERROR")
    from alise_engine.serve import tiny_model
    from tests.engine.fuzz import OPTIONS
    from tests.engine.harness import Engine

    part = (QUICK_SECONDS if settings.quick else SECONDS) / len(OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model.write_model(Path(folder))
        for number, (name, options) in enumerate(OPTIONS.items()):
            ends = time.monotonic() + part
            engine = Engine(model, options)
            yield from ({"engine": name, **row} for row in _rounds(engine, ends, first_seed=1_000_000 * (number + 1)))
            engine.close()


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    def total(key: str, mix: str | None = None) -> int:
        return sum(int(row[key]) for row in rows if mix in (None, row["mix"]))

    preempted = total("preemptions", "exact")
    return [
        Figure("soak_divergences", sum(len(row["diverged"]) for row in rows), "answers", "lower", goal=0),
        Figure("soak_stuck", total("stuck"), "requests", "lower", goal=0),
        Figure("soak_leaked_blocks", sum(abs(row["leaked_blocks"]) for row in rows), "device blocks", "lower", goal=0),
        Figure("soak_leaked_bytes", total("leaked_bytes"), "bytes of the host store", "lower", goal=0),
        Figure("soak_answers", total("finished"), "answers compared", "higher"),
        Figure("soak_preemptions", total("preemptions"), "preemptions", "higher", goal=None if settings.quick else 2_000),
        Figure("soak_prefetches", total("prefetches"), "prefetches", "higher"),
        Figure("soak_exact_resume_share", total("exact_resumes", "exact") / preempted, "of preemptions", "higher", 0.95),
    ]


def _rounds(engine: Any, ends: float, first_seed: int) -> Iterator[Row]:
    from tests.engine.fuzz import EVERYTHING, EXACT, Round, questions

    asked = questions(engine, first_seed, QUESTIONS)
    seed = first_seed
    while time.monotonic() < ends or seed == first_seed:
        for name, mix in (("exact", EXACT), ("everything", EVERYTHING)):
            outcome = Round(engine, asked, seed, mix).run(TURNS)
            yield {"mix": name, "seed": seed, "diverged": outcome.diverged, **outcome.counts()}
        seed += 1

"""Ten minutes of fuzzing for each target of `tests/fuzz`. An hour on two cores, so it runs on request only.

A row is one target: how many inputs it took, and what it found. The inputs of findings are kept below bench-results/fuzz/.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from tests.bench.harness import Figure, Row, Settings

SECONDS: Final = 600
QUICK_SECONDS: Final = 30


def measure(settings: Settings) -> Iterator[Row]:
    from tests.fuzz.run import fuzz
    from tests.fuzz.targets import TARGETS

    seconds = QUICK_SECONDS if settings.quick else SECONDS
    for outcome in fuzz(TARGETS, seconds, at_once=os.cpu_count() or 1):
        yield {**asdict(outcome), "fuzzed_seconds": seconds}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    minutes = sum(row["fuzzed_seconds"] for row in rows) / 60
    return [
        Figure("fuzz_findings", sum(len(row["findings"]) for row in rows), "inputs", "lower", goal=0),
        Figure("fuzz_minutes", minutes, "minutes, all targets together", "higher", goal=None if settings.quick else 60),
        *(Figure(f"fuzz_{row['target']}_executions", row["executions"], "inputs", "higher") for row in rows),
    ]

"""Ten minutes of fuzzing for each target of `tests/fuzz`, then 10,000 specs and as many answers of pods for the operator. An hour on two
cores, so it runs on request only.

A row is one target: how many inputs it took, and what it found. The inputs of findings are kept below bench-results/fuzz/.
`make bench-fuzz` runs it.
"""

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Final

from tests.bench.harness import RESULTS, Figure, Row, Settings

SECONDS: Final = 600
QUICK_SECONDS: Final = 30
SPECS: Final = 10_000
QUICK_SPECS: Final = 300


def measure(settings: Settings) -> Iterator[Row]:
    from tests.fuzz.run import fuzz
    from tests.fuzz.targets import TARGETS

    yield from fuzz_operator(QUICK_SPECS if settings.quick else SPECS)
    seconds = QUICK_SECONDS if settings.quick else SECONDS
    for outcome in fuzz(TARGETS, seconds, at_once=os.cpu_count() or 1):
        yield {**asdict(outcome), "fuzzed_seconds": seconds}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    of_targets = [row for row in rows if "target" in row]
    minutes = sum(row["fuzzed_seconds"] for row in of_targets) / 60
    return [
        Figure("fuzz_findings", sum(len(row["findings"]) for row in of_targets), "inputs", "lower", goal=0),
        Figure("fuzz_minutes", minutes, "minutes, all targets together", "higher", goal=None if settings.quick else 60),
        *(Figure(f"fuzz_{row['target']}_executions", row["executions"], "inputs", "higher") for row in of_targets),
        *operator_figures(rows),
    ]


def fuzz_operator(count: int) -> Iterator[Row]:
    """Tries this number of specs and of answers of pods, from a seed that is printed. Findings are shrunk and kept, and the run goes on."""
    from tests.operator.fuzz.answers import ANSWERS, answers_become_conditions
    from tests.operator.fuzz.run import Outcome, fuzz, fuzz_specs

    seed = secrets.randbelow(2**32)
    print(f"the operator is fuzzed with seed {seed}", file=sys.stderr)

    def row(what: str, outcome: Outcome, began: float) -> Row:
        kept = []
        for finding in outcome.findings.values():
            text = json.dumps(asdict(finding), indent=2)
            path = RESULTS / "fuzz" / f"{finding.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
            kept.append({"name": finding.name, "error": finding.error, "file": str(path)})
        return {"what": what, "seed": seed, "tried": outcome.tried, "seconds": time.monotonic() - began, "findings": kept}

    began = time.monotonic()
    yield row("fuzzed_specs", fuzz_specs(count, seed), began)
    began = time.monotonic()
    yield row("fuzzed_answers", fuzz(ANSWERS, {"answers_become_conditions": answers_become_conditions}, count, seed), began)


def operator_figures(rows: Sequence[Row]) -> list[Figure]:
    """From the rows of `fuzz_operator`."""
    tried, found = (
        {what: sum(take(row) for row in rows if row.get("what") == what) for what in ("fuzzed_specs", "fuzzed_answers")}
        for take in (lambda row: row["tried"], lambda row: len(row["findings"]))
    )
    return [
        Figure("specs_fuzzed", tried["fuzzed_specs"], "specs", "higher"),
        Figure("spec_fuzz_findings", found["fuzzed_specs"], "findings", "lower", goal=0),
        Figure("pod_answers_fuzzed", tried["fuzzed_answers"], "answers", "higher"),
        Figure("pod_answer_fuzz_findings", found["fuzzed_answers"], "findings", "lower", goal=0),
    ]

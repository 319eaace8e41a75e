"""Tries specs against all properties, and goes on after a finding, which is shrunk first.

`test_fuzzed_specs.py`, `test_fuzzed_reports.py` and `tests/bench/fuzz.py` call it.
"""

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from tests.operator.fuzz.properties import PROPERTIES, Property
from tests.operator.fuzz.specs import ANY_SPECS
from tests.operator.fuzz.values import Values

# hypothesis ends a round at what it finds: the next one goes on with another seed.
ROUND: Final = 500


@dataclass(frozen=True, slots=True)
class Finding:
    """A property that does not hold, and the smallest input that shows it."""

    name: str
    error: str
    input: Any


@dataclass(slots=True)
class Outcome:
    """What came of a run. The same fault counts once: a fault that is known is not looked for again."""

    tried: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)


def fuzz_specs(count: int, seed: int, properties: Mapping[str, Property] = PROPERTIES) -> Outcome:
    """Tries this number of specs, always the same ones for the same seed."""
    return fuzz(ANY_SPECS, properties, count, seed)


def fuzz(inputs: Values, properties: Mapping[str, Callable[[Any], None]], count: int, seed: int, *, shrink: bool = True) -> Outcome:
    """Tries this number of inputs, in rounds; the operator's own log is not written meanwhile."""
    outcome, turn = Outcome(), 0
    logging.disable(logging.CRITICAL)
    try:
        while outcome.tried < count:
            _round(inputs, properties, min(ROUND, count - outcome.tried), seed + turn, outcome, shrink)
            turn += 1
    finally:
        logging.disable(logging.NOTSET)
    return outcome


def _round(inputs: Values, properties: Mapping[str, Callable[[Any], None]], count: int, seed: int, outcome: Outcome, shrink: bool) -> None:
    failed: list[tuple[str, str, str]] = []

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def holds(value: Any) -> None:
        # What comes after a finding are tries to make it smaller.
        outcome.tried += not failed
        for name, check in properties.items():
            shown = json.dumps(value)
            try:
                check(value)
            except Exception as error:
                if (where := f"{name}: {_origin(error)}") not in outcome.findings:
                    failed.append((where, name, shown))
                    raise

    try:
        holds()
    except Exception as error:
        if not failed:
            raise
        where, name, shown = failed[-1]
        outcome.findings[where] = Finding(name, f"{type(error).__name__}: {error}"[:2000], json.loads(shown))


def _origin(error: Exception) -> str:
    """What tells one fault from another: the error's type and the lines that it came by."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return ", ".join([type(error).__name__, *(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)])

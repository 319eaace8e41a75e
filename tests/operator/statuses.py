"""Observations and statuses for tests of conditions; what does not matter to a test has a value here.

`test_status.py`, `test_degraded.py` and `test_changes.py` build them.
"""

from datetime import UTC, datetime
from typing import Any

from alise_operator.errors import InvalidSpec, Problem
from alise_operator.observation import Observation, Pod, Trouble
from alise_operator.status import fold
from tests.operator.builders import OWNER, make_pod, make_report, make_spec, make_workload

NOTHING = Observation(None)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATER = datetime(2026, 1, 1, 13, tzinfo=UTC)
BAD = InvalidSpec([Problem("spec.replicas", "-1 is below the smallest allowed value 0")])
GOOD = Observation(make_workload(), (make_pod(),))
MIB = 1 << 20


def seen(*pods: Pod, **workload: Any) -> Observation:
    return Observation(make_workload(**workload), pods or (make_pod(),))


def reported(*, polls: int = 2, **changes: Any) -> Observation:
    """One ready pod that says this of itself, at as many polls in a row."""
    return seen(make_pod(report=make_report(**changes), unranked_polls=polls))


def troubled(reason: str) -> Observation:
    return seen(make_pod(ready=False, report=None, troubles=(Trouble(reason, f"words of {reason}"),)), ready=0)


def rolling(new: Pod, **workload: Any) -> Observation:
    """A pod of the previous spec serves; one of the current is to take its place."""
    return seen(make_pod(template="old"), new, **({"replicas": 2, "template": "new"} | workload))


def status_of(observation: Observation, previous: dict[str, Any], *, now: datetime = NOON, **given: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"spec": make_spec(), "owner": OWNER, "generation": 3, "error": None}
    return fold(**(fields | given), observation=observation, previous=previous, now=now)


def condition_of(status: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in status["conditions"] if one["type"] == kind)

"""The fuzz targets: modules with `target(data)`, which raises when something is wrong, and `seeds()`, the inputs to begin with.

`child.py` loads one of them in a process of its own, which `run.py` starts.
"""

import importlib
from typing import Final, Protocol, cast

TARGETS: Final = {
    "requests": "tests.fuzz.requests",
    "descriptions": "tests.fuzz.descriptions",
    "callers": "tests.fuzz.callers",
    "hints": "tests.fuzz.hints",
    "admissions": "tests.fuzz.admissions",
    "reports": "tests.fuzz.reports",
    "plans": "tests.fuzz.plans",
}


class Target(Protocol):
    """A module that can be fuzzed."""

    def target(self, data: bytes) -> None:
        """Raises on a finding, whatever the type of the exception."""

    def seeds(self) -> list[bytes]:
        """Returns inputs that are derived from real messages."""


def load(module: str) -> Target:
    return cast(Target, importlib.import_module(module))

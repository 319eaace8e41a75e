"""Keeps the fast tier fast, and timings out of its verdicts: the machine may be busy.

Test modules that a tier leaves out whole are not imported: some import vLLM, which takes longer than many tests. And what the collection
has created, all modules and tests, is left out of the searches for garbage, which would go through it again and again.
"""

import gc
import re
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

# Nothing of the collection is garbage. `pytest_collection_finish` ends this.
gc.disable()

_MODULE_MARK = re.compile(r"^pytestmark = pytest\.mark\.(\w+)$", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out a file whose only mark is deselected by name, as in `-m "not engine"`."""
    if not collection_path.name.startswith("test_") or collection_path.suffix != ".py":
        return None
    marks = _MODULE_MARK.findall(collection_path.read_text(encoding="utf-8"))
    left_out = set(re.findall(r"\bnot (\w+)", config.getoption("markexpr")))
    return True if marks and set(marks) <= left_out else None


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()

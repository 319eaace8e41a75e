"""Test modules that a tier leaves out whole are not imported: some import vLLM, which takes longer than many tests of the fast tier."""

import re
from pathlib import Path

import pytest

_MODULE_MARK = re.compile(r"^pytestmark = pytest\.mark\.(\w+)$", re.MULTILINE)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out a file whose only mark is deselected by name, as in `-m "not engine"`."""
    if not collection_path.name.startswith("test_") or collection_path.suffix != ".py":
        return None
    marks = _MODULE_MARK.findall(collection_path.read_text(encoding="utf-8"))
    left_out = set(re.findall(r"\bnot (\w+)", config.getoption("markexpr")))
    return True if marks and set(marks) <= left_out else None

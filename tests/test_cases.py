"""`tests/CASES.md` is true: every case has a row, and every test that a row names exists."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CASES = [
    *("D1", "D2", "D3"),
    *("R1", "R2", "R3", "R4", "R5", "R6"),
    *("L1", "L2", "L3", "L4", "L5", "L6", "L7", "L8"),
    *("N1", "N2", "N3", "N4", "N5", "N6"),
    *("A1", "A2", "A3", "A6", "A7", "A9", "A12", "A13", "A14", "A15", "A17", "A18", "A19", "A20", "A21", "A23", "A24", "A25", "A26", "A28"),
    *("embeddings", "0600", "salt", "DSN", "head depth", "archive thread", "poll", "ports", "SIGTERM", "compile"),
    *("locks", "base images", "weights", "build tools", "SBOM", "manifests"),
]


def rows() -> dict[str, str]:
    """The last column of each row, by its case."""
    found = {}
    for line in (ROOT / "tests/CASES.md").read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| case "):
            case, _, _, tests = (cell.strip() for cell in line.strip("|").split(" | "))
            assert case not in found, f"{case} has two rows"
            found[case] = tests
    return found


def named() -> Iterator[tuple[str, str]]:
    """Each case with each test that its row names."""
    for case, tests in rows().items():
        yield from ((case, test.strip("`")) for test in tests.split("<br>"))


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def test_every_case_has_a_row() -> None:
    assert list(rows()) == CASES


@pytest.mark.parametrize("test", sorted({test for _, test in named()}))
def test_a_test_that_is_named_exists(test: str) -> None:
    """With the id of a parametrized test in brackets: a text that stands in its file."""
    found = re.fullmatch(r"(tests/[\w/]+\.py)::(test_\w+)(?:\[(.+)\])?", test)
    assert found, f"not a path and a test: {test}"
    path, name, row = found.groups()
    nodes = list(ast.walk(tree(path)))
    assert any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name for node in nodes), (
        f"no {name} in {path}, which a row of tests/CASES.md names"
    )
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert row is None or row in texts, f"nothing in {path} is called {row!r}, which a row of tests/CASES.md names"


def test_every_case_has_a_test() -> None:
    assert {case: tests for case, tests in rows().items() if "::" not in tests} == {}

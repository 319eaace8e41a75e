"""The support matrix and the table of capabilities name tests that exist, and every yes names one."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / name for name in ("support.md", "capabilities.md")]
_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def named(page: Path) -> list[tuple[str, str]]:
    """(file, function) of every test on the page; the function is empty where the page names a file."""
    return _NAMED.findall(page.read_text(encoding="utf-8"))


def exists(path: str, function: str) -> bool:
    """Whether the file exists and has the function."""
    return (ROOT / path).is_file() and bool(re.search(rf"\bdef {function}\b", (ROOT / path).read_text(encoding="utf-8")))


def rows(page: Path) -> list[list[str]]:
    """The cells of the tables, without headings and rules."""
    lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_on_a_page_exists(page: Path) -> None:
    assert named(page)
    missing = [f"{path}::{function}" for path, function in named(page) if not exists(path, function)]
    assert missing == []


def test_every_yes_names_a_test_and_every_no_says_what_is_missing() -> None:
    capabilities = [row for row in rows(PAGES[1]) if row[1] in ("yes", "no")]
    assert len(capabilities) >= 30
    assert [row[0] for row in capabilities if row[1] == "yes" and not _NAMED.search(row[2])] == []
    assert [row[0] for row in capabilities if row[1] == "no" and (not row[2] or _NAMED.search(row[2]))] == []


def test_every_row_of_the_matrix_names_what_tested_it() -> None:
    tested = [row for row in rows(PAGES[0]) if row[-1] != "by"]
    assert [row[0] for row in tested if not (_NAMED.search(row[-1]) or "every test" in row[-1])] == []

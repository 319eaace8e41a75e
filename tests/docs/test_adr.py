"""The architecture decision records: each has its sections, the index lists each, and links between records go both ways."""

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docs/adr"
RECORDS: Final = sorted(path for path in FOLDER.glob("*.md") if path.name != "index.md")

_FIELD: Final = re.compile(r"^- (Status|Date|Amends|Supersedes): (.*(?:\n  .*)*)", re.MULTILINE)
_LINK: Final = re.compile(r"\[ADR (\d+)\]\(([^)]+)\)")
_REFERENCE: Final = re.compile(r"\bADR (\d+)\b")
_SECTIONS: Final = ("Context", "Options considered", "Decision", "Consequences", "What would change our mind")


def fields(path: Path) -> dict[str, str]:
    """Returns the lines above the first section, by name."""
    return dict(_FIELD.findall(path.read_text().partition("\n## ")[0]))


def number(path: Path) -> int:
    """Returns the number in a record's file name."""
    return int(path.name[:4])


def linked(text: str) -> set[int]:
    """Returns the numbers of the records that a text links to."""
    return {int(of) for of, _ in _LINK.findall(text)}


def named_in_status(path: Path, verb: str) -> set[int]:
    """Returns the records that a status names after `verb`, such as "amended by"."""
    return linked(fields(path)["Status"].partition(verb)[2].partition(" by ")[0])


FIELDS: Final = {number(path): fields(path) for path in RECORDS}


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_status_date_context_decision_and_consequences(path: Path) -> None:
    sections = re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE)
    assert {"Context", "Decision", "Consequences"} <= set(sections)
    assert sections == [section for section in _SECTIONS if section in sections], "its sections have the common names and order"
    assert re.match(r"accepted|superseded by \[ADR", FIELDS[number(path)]["Status"])
    assert re.match(r"\d{4}-\d{2}-\d{2}\b", FIELDS[number(path)]["Date"])


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_records_title_has_the_number_of_its_file(path: Path) -> None:
    assert re.match(rf"# {number(path)}\. \S", path.read_text())


def test_numbers_have_no_gap_and_no_duplicate() -> None:
    assert [number(path) for path in RECORDS] == list(range(1, len(RECORDS) + 1))


def test_the_index_lists_each_record_once_under_its_title_and_status() -> None:
    index = " ".join((FOLDER / "index.md").read_text().split())
    for path in RECORDS:
        title = path.read_text().partition("\n")[0].removeprefix("# ")
        status = FIELDS[number(path)]["Status"].split()[0].rstrip(",")
        assert index.count(f"]({path.name})") == 1
        assert f"[{title}]({path.name}) ({status}" in index


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_link_to_a_record_leads_to_the_file_of_that_number(path: Path) -> None:
    for of, target in _LINK.findall(path.read_text()):
        assert target.startswith(f"{int(of):04d}-")
        assert (FOLDER / target).is_file()


@pytest.mark.parametrize(("forward", "back"), [("Amends", "amended by"), ("Supersedes", "superseded by")])
def test_a_record_and_the_one_it_changes_name_each_other(forward: str, back: str) -> None:
    wanted = {(later, earlier) for later, of in FIELDS.items() for earlier in linked(of.get(forward, ""))}
    named = {(later, number(path)) for path in RECORDS for later in named_in_status(path, back)}
    assert wanted == named
    assert all(later > earlier for later, earlier in wanted)


def test_every_record_that_the_repository_names_exists() -> None:
    sources = [path for room in ("operator", "scheduler_sidecar", "engine_image", "tests", "docs") for path in (ROOT / room).rglob("*")]
    texts = [path for path in sources if path.suffix in (".py", ".md", ".proto", ".toml")]
    named = {int(of): path for path in texts for of in _REFERENCE.findall(path.read_text())}
    assert {of: path for of, path in named.items() if of not in FIELDS} == {}

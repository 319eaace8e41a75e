"""The threat model and SECURITY.md name files, tests and cases that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["docs/threat-model.md", "SECURITY.md"]
ROOMS = ["operator/alise_operator", "scheduler_sidecar", "engine_image/alise_engine"]


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"`(?:pytest )?(tests/[\w/]+(?:\.py)?)(?:::(test_\w+))?", text(page))
    assert named
    assert [(path, test) for path, test in named if not (ROOT / path).exists() or (test and f"def {test}(" not in text(path))] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_source_that_a_page_names_exists(page: str) -> None:
    named = {name for name in re.findall(r"`((?:[\w-]+/)*\w+\.py)`", text(page)) if not name.startswith("tests/")}
    there = [f"/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    assert [name for name in sorted(named) if not any(path.endswith(f"/{name}") for path in there) and not (ROOT / name).exists()] == []


def test_every_case_that_the_threat_model_names_has_a_row() -> None:
    cases = set(re.findall(r"^\| ([A-Z]\d+) \|", text("tests/CASES.md"), re.MULTILINE))
    named = set(re.findall(r"\b([DRLNA]\d+)\b", text("docs/threat-model.md")))
    assert named
    assert named - cases == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_link_of_a_page_leads_to_a_file(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)", text(page))
    assert [link for link in links if "://" not in link and not ((ROOT / page).parent / link).exists()] == []

"""The figures of the house: what is counted, and how. `__main__.py`, `tests/bench/house.py` and `test_house.py` read them."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.tools.house import dead, imports, links, prose
from tests.tools.house.tree import PREDICTOR, Finding, files, lines, product
from tests.tools.reference import undocumented

MOST_LINES: Final = 400


def long_files() -> list[Finding]:
    return [Finding(path, 1, f"{lines(path)} lines") for path in files(".py") if lines(path) > MOST_LINES]


def metrics_undocumented() -> list[Finding]:
    return [Finding("docs/reference/metrics.md", 1, name) for name in undocumented.metrics()]


def settings_undocumented() -> list[Finding]:
    return [Finding("docs/reference/settings.md", 1, name) for name in undocumented.settings()]


# What to do about a finding, where the finding does not say it.
REMEDIES: Final[Mapping[str, str]] = {
    "import_circles": "move what both sides need into a module that imports neither",
    "files_over_400_lines": f"a file has at most {MOST_LINES} lines: move what is a job of its own into a file beside it",
    "prose_lines_over_100": "a line of prose has at most 100 columns, tables and code aside: break it",
    "lexicon_hits": "LEXICON in tests/tools/house/prose.py has the words to use instead; no sentence begins with 'Of …,'",
    "metrics_undocumented": "describe it where it is declared, and run `make reference`",
    "settings_undocumented": "describe it where it is declared, and run `make reference`",
    "docs_broken_links": "name a page and a heading that exist",
    "dead_names": "delete it, or add it to EXCEPTIONS in tests/tools/house/dead.py with the reason",
}
# Figures that count findings; all of them should be 0.
FINDINGS: Final[Mapping[str, Callable[[], list[Finding]]]] = {
    "import_circles": imports.circles,
    "files_over_400_lines": long_files,
    "prose_lines_over_100": prose.long_lines,
    "lexicon_hits": prose.lexicon_hits,
    "metrics_undocumented": metrics_undocumented,
    "settings_undocumented": settings_undocumented,
    "docs_broken_links": links.broken,
    "dead_names": dead.dead_names,
}


def predictor_lines() -> int:
    return sum(lines(path) for path in product() if path.startswith(PREDICTOR))


def product_lines() -> int:
    return sum(lines(path) for path in product())


def readme_lines() -> int:
    return lines("README.md")

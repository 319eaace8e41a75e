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

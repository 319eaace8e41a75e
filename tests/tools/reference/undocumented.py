"""Metrics and settings that the reference pages miss or that have no description. `tests/tools/house/figures.py` counts them."""

import re
from pathlib import Path
from typing import Final

from tests.tools.reference import metrics as metrics_page
from tests.tools.reference import settings as settings_page

ROOT: Final = Path(__file__).resolve().parents[3]
FOLDER: Final = ROOT / "docs" / "reference"
PRODUCT: Final = (
    *("operator/alise_operator", "scheduler_sidecar/alise_scheduler"),
    *("engine_image/alise_engine", "engine_image/alise_contract"),
)


def page(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def metrics() -> list[str]:
    """Returns the metrics that the code declares or names, and that have no help text or are not on the page."""
    listed = set(re.findall(r"`(alise_[a-z0-9_]+)`", page("metrics.md")))
    declared = [entry for room in metrics_page.rooms().values() for entry in room]
    named = _named(r'"(alise_(?:(?:engine|scheduler|operator)_[a-z0-9_]+|build_info))"')
    return sorted(
        {entry.name for entry in declared if not entry.help.strip() or entry.name not in listed}
        | {name for name in named if not {name, f"{name}_total"} & listed}
    )


def settings() -> list[str]:
    """Returns the variables and flags that have no description or are not on the page, and variables of alise that only the code names."""
    listed = set(re.findall(r"`([\w-]+)`", page("settings.md")))
    declared = [one for found in settings_page.settings().values() for one in found]
    return sorted(
        {one.variable or one.flag for one in declared if not one.meaning.strip()}
        | {name for one in declared for name in (one.variable, one.flag) if name and name not in listed}
        | {name for name in _named(r'"(ALISE_[A-Z0-9_]+)"') if name not in listed}
    )


def _named(pattern: str) -> set[str]:
    """Returns the names in the product's sources that match."""
    return {
        name for room in PRODUCT for path in (ROOT / room).rglob("*.py") for name in re.findall(pattern, path.read_text(encoding="utf-8"))
    }

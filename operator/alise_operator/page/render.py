"""Makes HTML of what view.py decided. Pure, except that templates are read once, from this package.

Jinja2 escapes every value that a template prints. What the plugin fills in later stands between marks that no escaped text can hold.
`server.py` calls it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from alise_contract import page
from alise_contract.release import release
from alise_operator.page.shown import EnginePage, Overview

if TYPE_CHECKING:
    from jinja2 import Environment

# How often a browser asks again.
REFRESH_SECONDS: Final = 10
_TEMPLATES: Final = "templates"
_PAUSED: Final = "paused"


@cache
def _environment() -> "Environment":
    # Loaded with the first page, because an operator whose page is never opened does without the memory that it takes.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("alise_operator.page", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals.update(release=release(), refresh_seconds=REFRESH_SECONDS)
    return found


@dataclass(frozen=True, slots=True)
class Pause:
    """Whether the browser asks again by itself, and the link to the same page with the other answer."""

    is_paused: bool
    link: str


def pause_of(query: Mapping[str, str]) -> Pause:
    """Returns what the parameters of a page say of its pause."""
    others = {name: value for name, value in query.items() if name != _PAUSED}
    is_paused = _PAUSED in query
    return Pause(is_paused, f"?{urlencode(others if is_paused else others | {_PAUSED: '1'})}")


def overview(shown: Overview, now: datetime, pause: Pause) -> str:
    """Returns the page with all AliseEngines."""
    return _rendered("overview.html", now, pause, shown=shown)


def engine(shown: EnginePage, now: datetime, pause: Pause) -> str:
    """Returns the page of one AliseEngine, with the places that the plugin fills."""
    return _rendered("engine.html", now, pause, shown=shown, places=page)


def message(title: str, text: str, now: datetime, pause: Pause) -> str:
    """Returns a page that says why there is nothing else to see."""
    return _rendered("message.html", now, pause, title=title, text=text)


def static(name: str) -> bytes:
    """Returns a file that belongs to the pages: `page.css` or `icon.svg`."""
    return resources.files("alise_operator.page").joinpath(_TEMPLATES, name).read_bytes()


def _rendered(template: str, now: datetime, pause: Pause, **values: Any) -> str:
    return _environment().get_template(template).render(at=now.strftime("%H:%M:%S UTC"), pause=pause, **values)

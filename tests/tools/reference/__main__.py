"""Writes the reference pages of docs/ from the code: `make reference`. A test says when one is stale."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.tools.reference import conditions, http, metrics, resource, settings
from tests.tools.reference.undocumented import FOLDER

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "aliseengine.md": resource.render,
    "metrics.md": metrics.render,
    "settings.md": settings.render,
    "http.md": http.render,
    "conditions.md": conditions.render,
}


def main() -> None:
    for name, render in PAGES.items():
        (FOLDER / name).write_text(render(), encoding="utf-8")
        print(f"wrote docs/reference/{name}")


if __name__ == "__main__":
    main()

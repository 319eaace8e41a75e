"""MkDocs hooks of the documentation site; mkdocs.yml names this file.

A navigation entry that names a folder lists all pages of the folder. A link from a page to a file outside of docs/ works in the
repository and has no target on the site, so it becomes plain text there; if the file does not exist, the strict build fails.
"""

import logging
import os
import posixpath
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

# MkDocs counts warnings of loggers below its own, and a strict build fails when there are any.
_LOG: Final = logging.getLogger("mkdocs.hooks.alise")
# [text](target) or [text](target "title"), without images.
_LINK: Final = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)(?:\s+\"[^\"]*\")?\)")


def on_config(config: Any) -> Any:
    """Lists the pages of each folder that the navigation names."""
    config.nav = with_folders(config.nav, Path(config.docs_dir))
    return config


def with_folders(nav: Sequence[Any], docs: Path) -> list[Any]:
    """Returns the navigation with each `title: folder/` replaced by the folder's pages, index.md first, then by name."""
    return [_expanded(entry, docs) for entry in nav]


def _expanded(entry: Any, docs: Path) -> Any:
    if not isinstance(entry, dict):
        return entry
    ((title, value),) = entry.items()
    if isinstance(value, list):
        return {title: with_folders(value, docs)}
    if isinstance(value, str) and value.endswith("/"):
        pages = sorted((docs / value).glob("*.md"), key=lambda page: (page.name != "index.md", page.name))
        return {title: [f"{value}{page.name}" for page in pages]}
    return entry


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Turns links that leave docs/ into their text. Warns about those that lead to no file."""
    docs, source = Path(config.docs_dir), page.file.src_uri
    for target in missing(markdown, source, docs):
        _LOG.warning("%s links to %s, which does not exist in the repository", source, target)
    return without_outside_links(markdown, source)


def without_outside_links(markdown: str, source: str) -> str:
    """Returns the page with the text of each link that leaves docs/ in the link's place. `source` is the page's path below docs/."""
    return _LINK.sub(lambda link: link["text"] if _outside(link["target"], source) else link[0], markdown)


def missing(markdown: str, source: str, docs: Path) -> Iterator[str]:
    """Yields targets outside of docs/ that do not exist."""
    for link in _LINK.finditer(markdown):
        outside = _outside(link["target"], source)
        if outside is not None and not (docs / outside).exists():
            yield link["target"]


def _outside(target: str, source: str) -> str | None:
    """Returns the target's path relative to docs/ when it leaves docs/, else None."""
    path = target.partition("#")[0]
    if not path or "://" in target or target.startswith(("/", "mailto:")):
        return None
    found = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    return found.replace("/", os.sep) if found.startswith("../") else None

"""Links in Markdown that lead to no file or to no heading. `figures.py` counts them."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Final

from tests.tools.house.tree import ROOT, Finding, files, text

_LINK: Final = re.compile(r"\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
_HEADING: Final = re.compile(r"#{1,6}\s+(.+?)\s*#*$")


def broken() -> list[Finding]:
    """Returns the links of all Markdown files that are broken."""
    return [
        Finding(path, number, f"broken link: {target}")
        for path in files(".md")
        for number, target in _links(text(path))
        if not _leads_somewhere(path, target)
    ]


def _links(markdown: str) -> Iterator[tuple[int, str]]:
    fenced = False
    for number, line in enumerate(markdown.splitlines(), 1):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced:
            yield from ((number, found[1]) for found in _LINK.finditer(re.sub(r"`[^`]*`", "", line)))


def _leads_somewhere(path: str, target: str) -> bool:
    if "://" in target or target.startswith("mailto:"):
        return True
    name, _, anchor = target.partition("#")
    found = (ROOT / path).parent / name if name else ROOT / path
    if not found.exists():
        return False
    return not anchor or found.suffix != ".md" or anchor in anchors(str(found.resolve().relative_to(ROOT)))


@cache
def anchors(path: str) -> frozenset[str]:
    """Returns the anchors of a page's headings, as GitHub and as MkDocs spell them."""
    return anchors_of(text(path))


def anchors_of(markdown: str) -> frozenset[str]:
    found: dict[str, int] = {}
    fenced = False
    names = set()
    for line in markdown.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        heading = None if fenced else _HEADING.match(line)
        if heading:
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).replace("`", "").lower()
            kept = re.sub(r"[^\w\- ]", "", plain).strip()
            for spelling in {kept.replace(" ", "-"), re.sub(r"[-\s]+", "-", kept)}:
                again = found.get(spelling, 0)
                found[spelling] = again + 1
                names |= {f"{spelling}-{again}", f"{spelling}_{again}"} if again else {spelling}
        names |= set(re.findall(r"(?:id|name)=\"([^\"]+)\"", line))
    return frozenset(names)

"""Prose: lines that are too long, and words of a lexicon that has better ones. `figures.py` counts them."""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Final

from tests.tools.house.tree import Finding, files, nodes, product_and_tools, text

WIDTH: Final = 100
# Words that the documentation and messages do not use, and the words of the field for them. Words that are right in other sentences (rest,
# place, ends) are left out.
LEXICON: Final = {
    r"what the kernel leaves": "residual",
    r"told|said": "observed, reported, according to",
    r"made": "built, created, the result",
    r"likeness|alike": "similarity, similar",
    r"chances?": "probability",
    r"smooth part": "kernel estimate",
    r"foresees?|foreseen|foresight|beforehand": "predict, in advance, prior",
    r"counted rows": "held-out rows",
    r"lives|(?:is|are) over(?! (?:its?|their|ten|\d))": "is active, has finished",
    r"spoken": "supported",
    r"so many|so much": "a number, an amount",
    r"nobody|somebody|everybody|whoever|whomever": "the name of the component or person",
    r"from half a minute to many": "this can take several minutes",
    r"does not go on|do not go on": "is blocked",
    r"kind to long": "bounded delay for long requests",
    r"pods of a new spec come": "rollout strategy",
    r"real root": "root on the host or in a VM",
    r"(?-i:Alone) (?:to|in|writes|reads|knows)": "the only module that",
    r"answers as they are ready": "replies out of order",
}
_WORDS: Final = re.compile(rf"\b(?:{'|'.join(LEXICON)})\b", re.IGNORECASE)
# "Of these, only the first ..." at the beginning of a sentence.
_FRONTED: Final = re.compile(r"(?:^|[.;:] )Of (?!course)[\w' ]+, ")
# English that means what it says.
_USUAL: Final = re.compile(
    r"made (?:no |any )?progress|made (?:up )?of|made (?:an?|it|them|the) \w+ \w+"
    r"|(?:choices?|decisions?|changes?) (?:was|were|is|are) made",
    re.IGNORECASE,
)
_CODE: Final = re.compile(r"`[^`]*`")
_MARKS: Final = ('"' * 3, "'" * 3)
_QUOTES: Final = re.compile(r"""(.*?)(\"{3}|'{3})""")
_COMMENT: Final = re.compile(r"(?:^\s*|  )#+:? (.*)")
# The lexicon itself, and its tests.
_ABOUT_WORDS: Final = frozenset({"tests/tools/house/prose.py", "tests/docs/test_house.py"})


def long_lines() -> list[Finding]:
    """Returns the lines of prose in Markdown that have more than WIDTH columns."""
    return [
        Finding(path, number, f"{len(line)} columns: {line[:60]}…")
        for path in files(".md")
        for number, line in prose_of(text(path))
        if len(line) > WIDTH and " " in line.strip()[: WIDTH + 1].lstrip("-*>#0123456789. ")
    ]


def prose_of(markdown: str) -> Iterator[tuple[int, str]]:
    """Yields the lines of prose with their numbers: no code, tables, comments or pictures."""
    fence = ""
    for number, line in enumerate(markdown.splitlines(), 1):
        mark = re.match(r"\s*(```+|~~~+)", line)
        if mark and not fence:
            fence = mark[1]
        elif mark and line.strip() == fence:
            fence = ""
        elif not fence and not line.lstrip().startswith(("|", "<", "![")) and not re.match(r" {4}(?![-*\d])", line):
            yield number, line


def lexicon_hits() -> list[Finding]:
    """Returns each word of the lexicon in the documentation, in the strings that users see, and in comments and docstrings."""
    documents = [(path, number, line) for path in files(".md") for number, line in _spoken(text(path))]
    schema = [
        ("manifests/crd/aliseengines.yaml", number, line)
        for number, line in enumerate(text("manifests/crd/aliseengines.yaml").splitlines(), 1)
    ]
    helps = [("Makefile", number, line.partition("## ")[2]) for number, line in enumerate(text("Makefile").splitlines(), 1) if ":" in line]
    strings = [(path, number, sentence) for path in product_and_tools() for number, sentence in sentences(nodes(path))]
    notes = [(path, number, line) for path in files(".py") if path not in _ABOUT_WORDS for number, line in notes_of(text(path))]
    return [
        Finding(path, number, f"{word!r} in: {line.strip()[:120]}")
        for path, number, line in (*documents, *schema, *helps, *strings, *notes)
        for word in words_in(line)
    ]


def notes_of(code: str) -> Iterator[tuple[int, str]]:
    """Yields the lines of a Python file that are a comment or belong to a docstring, without the marks.

    It reads lines, not tokens, because that takes a tenth of the time: ruff has put two spaces before each comment at the end of a line.
    """
    quotes, is_docstring = "", False
    for number, line in enumerate(code.splitlines(), 1):
        # Most lines have neither, and a regular expression takes longer than this.
        begins = None if quotes or not any(mark in line for mark in _MARKS) else _QUOTES.search(line)
        if begins:
            quotes, is_docstring, line = begins[2], not begins[1].strip(" rf"), line[begins.end() :]
        if quotes:
            inside, end, _ = line.partition(quotes)
            quotes = "" if end else quotes
            if is_docstring:
                yield number, inside
        elif "# " in line and (comment := _COMMENT.search(line)):
            yield number, comment[1]


def words_in(line: str) -> list[str]:
    """Returns the words of the lexicon in a line; code is no prose."""
    line = _USUAL.sub("", _CODE.sub("", line))
    return [*(found[0] for found in _WORDS.finditer(line)), *(found[0].strip() for found in _FRONTED.finditer(line))]


def _spoken(markdown: str) -> Iterator[tuple[int, str]]:
    """Yields prose and tables, but no code."""
    fenced = False
    for number, line in enumerate(markdown.splitlines(), 1):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif not fenced:
            yield number, line


def sentences(module: Sequence[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yields the strings of several words among the nodes of a module, without docstrings, which `notes_of` yields."""
    docstrings = {
        id(node.body[0].value)
        for node in module
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in module:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings and " " in node.value.strip():
            yield node.lineno, node.value

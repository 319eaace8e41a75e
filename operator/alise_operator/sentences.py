"""What the cluster and its pods say as a part of a message, and all there is to say as one message of a bounded length. Pure."""

import json
from collections.abc import Sequence
from typing import Final

MAX_MESSAGE: Final = 1500
_MAX_WORDS: Final = 300
_MAX_QUOTED: Final = 80


def one_line(text: str) -> str:
    """The beginning of the words on one line, without control characters and their full stop; long enough to find a reason in."""
    said = " ".join("".join(char for char in text[: 20 * _MAX_WORDS] if char.isprintable() or char.isspace()).split())
    return said if said.endswith("..") else said.removesuffix(".")


def beginning(text: str) -> str:
    """The beginning of a long text: a refusal says first what it is about."""
    return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 1] + "…"


def words(text: str) -> str:
    """The cluster's words on one line, without control characters; the end of a long text, which is where a log says what happened."""
    # Cut first: of a text of megabytes only the end is looked at.
    joined = " ".join("".join(char for char in text[-20 * _MAX_WORDS :] if char.isprintable() or char.isspace()).split())
    return joined if len(joined) <= _MAX_WORDS else "…" + joined[1 - _MAX_WORDS :]


def clause(text: str) -> str:
    """The cluster's words without their full stop, so that a message can go on after them."""
    said = words(text)
    return said if said.endswith("..") else said.removesuffix(".")


def quote(value: object) -> str:
    """A value that the user gave: lists, objects, null, true and false as YAML takes them; not longer than a line."""
    shown = json.dumps(value, ensure_ascii=False, default=str) if value is None or isinstance(value, bool | list | dict) else repr(value)
    return shown if len(shown) <= _MAX_QUOTED else f"{shown[: _MAX_QUOTED - 3]}..."


def join(parts: Sequence[str]) -> str:
    """The parts as one text; of more than fit, the first ones and how many follow."""
    text = "; ".join(parts)
    if len(text) <= MAX_MESSAGE:
        return text
    rest_chars = len(_more(len(parts)))
    shown, chars = 1, len(parts[0])
    while shown < len(parts) and chars + 2 + len(parts[shown]) <= MAX_MESSAGE - rest_chars:
        chars += 2 + len(parts[shown])
        shown += 1
    text, rest = "; ".join(parts[:shown]), _more(len(parts) - shown)
    return (text if len(text) + len(rest) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1 - len(rest)] + "…") + rest


def _more(count: int) -> str:
    return f"; and {count:,} more" if count else ""

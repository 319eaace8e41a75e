"""Joins what there is to say into one message of a bounded length. Pure."""

from collections.abc import Sequence
from typing import Final

MAX_MESSAGE: Final = 1500


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

"""Makes texts fit into a message: quotes of the cluster, of pods and of users, and joins, all on one line and of a bounded length.

Pure. The modules that write messages, such as `status.py`, `observation.py` and `endings.py`, call this one.
"""

import json
import re
from collections.abc import Sequence
from typing import Final

MAX_MESSAGE: Final = 1500
_MAX_WORDS: Final = 300
_MAX_QUOTED: Final = 80
# A text that another condition has too is repeated whole up to this length; of a longer one, a clause of at most the second length.
_MAX_REPEATED: Final = 120
_MAX_CLAUSE: Final = 200
_CLAUSE_END: Final = re.compile(r"; |\. (?=[A-Z])")


def one_line(text: str) -> str:
    """Returns the beginning of a text on one line, without control characters and its final period; long enough to find a reason in."""
    line = " ".join("".join(char for char in text[: 20 * _MAX_WORDS] if char.isprintable() or char.isspace()).split())
    return line if line.endswith("..") else line.removesuffix(".")


def beginning(text: str) -> str:
    """Returns the beginning of a long text: a refusal starts with its subject."""
    return text if len(text) <= _MAX_WORDS else text[: _MAX_WORDS - 1] + "…"


def words(text: str) -> str:
    """Returns a text of the cluster on one line, without control characters; of a long text the end, where a log has its error."""
    # Cut first, so that only the end of a text of megabytes is processed.
    joined = " ".join("".join(char for char in text[-20 * _MAX_WORDS :] if char.isprintable() or char.isspace()).split())
    return joined if len(joined) <= _MAX_WORDS else "…" + joined[1 - _MAX_WORDS :]


def clause(text: str) -> str:
    """Returns a text of the cluster without its final period, so that a message can continue after it."""
    line = words(text)
    return line if line.endswith("..") else line.removesuffix(".")


def quote(value: object) -> str:
    """Returns a value that the user wrote, at most one line long; lists, objects, null, true and false as in YAML."""
    shown = json.dumps(value, ensure_ascii=False, default=str) if value is None or isinstance(value, bool | list | dict) else repr(value)
    return shown if len(shown) <= _MAX_QUOTED else f"{shown[: _MAX_QUOTED - 3]}..."


def join(parts: Sequence[str]) -> str:
    """Returns the parts as one text. If they do not fit, it is the first parts and the number of the others."""
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


def gist(parts: Sequence[str], elsewhere: str) -> str:
    """Returns the parts as one text if it is short; else the first clause of the first part, followed by `elsewhere`, the place of the
    complete text."""
    text = "; ".join(parts)
    if len(text) <= _MAX_REPEATED:
        return text
    first = _first_clause(parts[0])
    if first == text and len(text) <= _MAX_CLAUSE:
        return text
    if len(first) > _MAX_CLAUSE:
        cut = first[:_MAX_CLAUSE]
        first = (cut.rpartition(" ")[0] or cut) + "…"
    return f"{first.removesuffix('.')}; {elsewhere}"


def _first_clause(text: str) -> str:
    """Returns the text up to its first semicolon or period that is not in parentheses."""
    ends = (found.start() for found in _CLAUSE_END.finditer(text))
    return next((text[:end] for end in ends if text.count("(", 0, end) == text.count(")", 0, end)), text)


def _more(count: int) -> str:
    return f"; and {count:,} more" if count else ""

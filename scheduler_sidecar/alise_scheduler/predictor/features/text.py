"""What a prompt's text says about the length of its answer, as a row of numbers: counts, shapes, and words that ask for something.

Only the two ends of a long text are read, because its middle is material and not instruction. The text cannot be read back from the row.
Pure; `request.py` calls it for each admission, and `training/prior_fit.py` for the prior's prompts.
"""

import math
import re
from collections.abc import Callable
from typing import Final

from .lexicon import COUNT_WISH, FIRST, GROUPS, GROUPS_OF, NUMBER_WORDS, THINGS, UNIT_TOKENS

_EDGE_CHARS: Final = 2000
# The part of a text that shares are computed from.
_SHARE_CHARS: Final = 500
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+(?:[.,]\d+)*")
_MARK: Final = re.compile(r"[^\w\s]|_")
_SENTENCE: Final = re.compile(r"[.!?](?:\s|$)")
_URL: Final = re.compile(r"https?://|www\.")
_CODE: Final = re.compile(r"```|\bdef \w|\bfunction\b|#include|\bclass \w|</\w+>|[{};]\s*$|=>|\bSELECT\b|\bimport \w", re.MULTILINE)
_MATH: Final = re.compile(r"\d\s*[-+*/^=x×÷]\s*\d|\\frac|√|∫")
# Blanks within the line only: over newlines every line start would look through all that follow, 0.3 s for a prompt of nothing else.
_LIST: Final = re.compile(r"^[^\S\n]*(?:[-*•]|\d+[.)])\s", re.MULTILINE)
_OPENING: Final = re.compile(r"[\"“'‘]")
_CLOSING: Final = re.compile(r"[\"”'’]")
TEXT_NAMES: Final = (
    "chars", "words", "word_length", "lines", "sentences", "digits", "upper", "non_ascii", "punctuation", "questions", "exclaims",
    "colons", "commas", "newlines_double", "ends_question", "ends_colon", "ends_period", "unique_words", "code_marks", "math_marks",
    "list_marks", "urls", "quotes", "quoted_chars", "first_verb", "second_verb", "verb_after_please", "last_line_chars", "material",
    "wish_tokens", "things", "first_line_chars", "first_sentence_chars", "first_word_length", "last_word_group", "plural_share",
    *GROUPS,
)  # fmt: skip


def text_numbers(text: str) -> list[float]:
    """One number per name in TEXT_NAMES. Pure; 30 µs for a sentence, 0.3 ms at most. NaN where there is nothing to say."""
    edges = text if len(text) <= 2 * _EDGE_CHARS else text[:_EDGE_CHARS] + "\n" + text[-_EDGE_CHARS:]
    low = edges.lower()
    words = _WORD.findall(low)
    lines = edges.strip().split("\n")
    first_line, last_line = lines[0], lines[-1]
    stop = _SENTENCE.search(edges)
    count = len(words)
    groups = [0.0] * len(GROUPS)
    for word in words[:60] + words[-20:] if count > 80 else words:
        for number in GROUPS_OF.get(word, ()):
            groups[number] += 1.0
    opening = words[1:] if words[:1] == ["please"] else words
    last_groups = GROUPS_OF.get(words[-1], ()) if words else ()
    end = edges.rstrip()[-1:]
    head = low[:600]
    values = [
        math.log1p(len(text)), math.log1p(count), sum(map(len, words)) / count if count else math.nan, math.log1p(edges.count("\n")),
        math.log1p(len(_SENTENCE.findall(edges))), _share(edges, str.isdigit), _share(edges, str.isupper),
        0.0 if edges.isascii() else _share(edges, _not_ascii), _marks(edges), min(edges.count("?"), 9),
        min(edges.count("!"), 9), min(edges.count(":"), 9), min(edges.count(","), 30), min(edges.count("\n\n"), 9),
        float(end == "?"), float(end == ":"), float(end == "."), len(set(words)) / count if count else math.nan,
        min(len(_CODE.findall(edges)), 20), float(_MATH.search(edges) is not None), min(len(_LIST.findall(edges)), 20),
        float(_URL.search(low) is not None), min(edges.count('"') / 2, 9), float(_quoted_chars(edges)),
        float(FIRST.get(opening[0], 0)) if opening else math.nan, float(FIRST.get(opening[1], 0)) if len(opening) > 1 else math.nan,
        float(opening is not words), math.log1p(len(last_line)), math.log1p(max(0, len(text) - len(first_line))), _wish_tokens(head),
        _things(head), math.log1p(len(first_line)), math.log1p(stop.end() if stop else len(edges)), float(len(words[0])) if words else 0.0,
        float(last_groups[0]) if last_groups else -1.0, sum(word.endswith("s") for word in words) / count if count else math.nan,
    ]  # fmt: skip
    return [*map(float, values), *groups]


def _quoted_chars(text: str) -> int:
    """Length of the first quotation of at least two characters; 0 without one.

    In linear time: a pattern for it would look through the rest of the text from each opening mark.
    """
    for opening in _OPENING.finditer(text):
        closing = _CLOSING.search(text, opening.end())
        if closing is None:
            return 0
        if closing.start() - opening.end() >= 2:
            return closing.start() - opening.end()
    return 0


def _share(text: str, kind: Callable[[str], bool]) -> float:
    part = text[:_SHARE_CHARS]
    return sum(map(kind, part)) / len(part) if part else 0.0


def _not_ascii(char: str) -> bool:
    return char > "\x7f"


def _marks(text: str) -> float:
    """The share of what is neither a letter, a digit nor space."""
    part = text[:_SHARE_CHARS]
    return len(_MARK.findall(part)) / len(part) if part else 0.0


def _number(word: str) -> float:
    return float(word) if word.isdigit() else float(NUMBER_WORDS.get(word, 1))


def _wish_tokens(head: str) -> float:
    """ln(1 + tokens) of a length that is named in words, NaN without one."""
    found = COUNT_WISH.search(head)
    return math.log1p(_number(found[1]) * UNIT_TOKENS[found[2].rstrip("s")]) if found else math.nan


def _things(head: str) -> float:
    """How many things are asked for ("five ways"), NaN where no number is named."""
    found = THINGS.search(head)
    return _number(found[1]) if found else math.nan

"""What a prompt's text says about the length of its answer, as a row of numbers: counts, shapes, and words that ask for something.

Only the two ends of a long text are read, because its middle is material and not instruction. The text cannot be read back from the row.
Pure; `request.py` calls it for each admission, and `training/prior_fit.py` for the prior's prompts.
"""

import math
import re
from collections.abc import Callable
from typing import Final

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
_COUNT_WISH: Final = re.compile(
    r"\b(\d{1,4}|one|two|three|four|five|six|seven|eight|nine|ten|fifteen|twenty|hundred)[- ]"
    r"(?:\w+[- ]){0,2}(words?|sentences?|paragraphs?|pages?|lines?|characters?|tokens?|bullets?|points?|items?|stanzas?|minutes?)\b"
)
_THINGS: Final = re.compile(r"\b(\d{1,3}|two|three|four|five|six|seven|eight|nine|ten|fifteen|twenty)(?: \w+){0,2} \w+s\b")
_NUMBERS: Final = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "fifteen": 15, "twenty": 20, "hundred": 100,
}  # fmt: skip
# Tokens that one of a unit is worth, roughly.
_UNIT_TOKENS: Final = {
    "word": 1.35, "sentence": 25, "paragraph": 110, "page": 550, "line": 14, "character": 0.25, "token": 1, "bullet": 25, "point": 25,
    "item": 15, "stanza": 40, "minute": 200,
}  # fmt: skip

# Groups of words; a feature counts how many of its words occur. Verbs of the first words matter most, see `_FIRST`.
_GROUPS: Final[dict[str, str]] = {
    "story": "story poem essay article blog novel fiction tale narrative screenplay song lyrics speech dialogue sonnet scene chapter",
    "letter": "letter email message memo tweet post caption headline title slogan tagline ad advertisement haiku limerick joke name names",
    "code": "code function script python javascript java sql html css regex program algorithm api class react bash query c++ json",
    "table": "table csv spreadsheet columns column rows chart json yaml xml format markdown",
    "list": "list lists enumerate bullet bullets outline steps ideas ways tips examples reasons items suggestions recommendations",
    "translate": "translate translation french spanish german english chinese japanese italian russian portuguese latin",
    "classify": "classify categorize identify label sentiment true false correct yes choose select odd which determine detect tag",
    "edit": "edit rewrite rephrase paraphrase correct fix proofread grammar grammatical punctuation replace convert change reword"
    " transform",
    "short": "short brief briefly concise single simple quick summarize summary tldr shorten one only just answer",
    "long": "detailed detail long comprehensive thorough complete full step elaborate extensive in-depth everything guide tutorial plan",
    "explain": "explain describe discuss why how elaborate analyze evaluate compare contrast difference advantages benefits pros cons"
    " effects",
    "question": "what who when where which whose is are was do does did can could",
    "math": "calculate compute solve equation sum multiply divide area volume average probability percent number squared root fraction",
    "create": "create write generate compose design develop make construct draft build produce invent brainstorm come imagine tell",
    "extract": "extract find list name give provide fill complete sort arrange order rank match add insert remove delete",
    "continue": "continue more again next keep going elaborate expand rest further",
    "thanks": "thanks thank great ok okay yes no good nice hello hi",
    "business": "business company market marketing product customers customer brand campaign strategy sales proposal plan project",
    "second_person": "you your yourself act pretend imagine role assistant",
    "first_person": "i my me we our us",
    "compare": "compare contrast difference differences similarities versus vs between better",
    "word_play": "synonym synonyms antonym antonyms rhyme rhymes word words sentence sentences phrase letters spell acronym",
}
_GROUP_OF: Final[dict[str, tuple[int, ...]]] = {}
for _at, _words in enumerate(_GROUPS.values()):
    for _word in _words.split():
        _GROUP_OF[_word] = (*_GROUP_OF.get(_word, ()), _at)

# The word that opens an instruction, in classes of verbs that are answered at about the same length; 0 is any other.
_FIRST: Final[dict[str, int]] = {
    word: number
    for number, words in enumerate(
        (
            "write compose draft author", "create design develop construct build make", "generate produce", "explain", "describe",
            "summarize condense", "rewrite rephrase reword paraphrase restate", "edit correct fix proofread revise", "translate",
            "classify categorize label", "identify determine detect spot recognize", "name", "list enumerate", "give provide suggest offer",
            "find search", "calculate compute solve evaluate", "convert transform change turn", "compare contrast", "what what's", "how",
            "why", "who whose", "when where", "which choose select pick",
            "is are was were do does did can could should would will has have",
            "tell imagine pretend act", "analyze analyse discuss assess", "outline plan propose", "add insert replace remove fill complete",
            "sort arrange order rank organize", "continue go keep next more", "i i'm my we", "you your", "please", "the a an in",
            "if given",
            "predict estimate guess", "come brainstorm think", "use using", "arrange match combine join", "extract",
        ),
        start=1,
    )
    for word in words.split()
}  # fmt: skip

TEXT_NAMES: Final = (
    "chars", "words", "word_length", "lines", "sentences", "digits", "upper", "non_ascii", "punctuation", "questions", "exclaims",
    "colons", "commas", "newlines_double", "ends_question", "ends_colon", "ends_period", "unique_words", "code_marks", "math_marks",
    "list_marks", "urls", "quotes", "quoted_chars", "first_verb", "second_verb", "verb_after_please", "last_line_chars", "material",
    "wish_tokens", "things", "first_line_chars", "first_sentence_chars", "first_word_length", "last_word_group", "plural_share",
    *_GROUPS,
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
    groups = [0.0] * len(_GROUPS)
    for word in words[:60] + words[-20:] if count > 80 else words:
        for number in _GROUP_OF.get(word, ()):
            groups[number] += 1.0
    opening = words[1:] if words[:1] == ["please"] else words
    last_groups = _GROUP_OF.get(words[-1], ()) if words else ()
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
        float(_FIRST.get(opening[0], 0)) if opening else math.nan, float(_FIRST.get(opening[1], 0)) if len(opening) > 1 else math.nan,
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
    return float(word) if word.isdigit() else float(_NUMBERS.get(word, 1))


def _wish_tokens(head: str) -> float:
    """ln(1 + tokens) of a length that is named in words, NaN without one."""
    found = _COUNT_WISH.search(head)
    return math.log1p(_number(found[1]) * _UNIT_TOKENS[found[2].rstrip("s")]) if found else math.nan


def _things(head: str) -> float:
    """How many things are asked for ("five ways"), NaN where no number is named."""
    found = _THINGS.search(head)
    return _number(found[1]) if found else math.nan

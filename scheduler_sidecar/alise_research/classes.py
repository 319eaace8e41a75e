"""A baseline: the mean length of the answers to requests with the same kind of words.

`tests/bench/predictor.py` compares the product's predictor with it.
"""

import re
from typing import Final

from alise_scheduler.core.lengths import QUANTILES, Lengths
from alise_scheduler.predictor.interface import Observation

# Keywords are searched in the ends of a text. The middle of a long one is material and not instruction.
_EDGE_CHARS: Final = 400
# The text is put in lower case first, which is cheaper than ignoring case. First match wins; the index + 1 is the class, 0 is none.
_KEYWORDS: Final = (
    ("yes_no", r"\b(yes or no|true or false|multiple choice|which option|answer with)\b"),
    ("translate", r"\btranslat|\bin (french|german|spanish|english|chinese|japanese|russian)\b"),
    ("classify", r"\b(classify|categori[sz]e|label|sentiment|extract|identify)\b"),
    ("code", r"```|\b(code|function|script|python|javascript|java|c\+\+|sql|html|regex|bug|program|implement)\b"),
    ("rewrite", r"\b(rewrite|rephrase|paraphrase|correct|proofread|edit|fix)\b"),
    ("summarize", r"\b(summari[sz]e|summary|tl;?dr|condense|key points)\b"),
    ("list", r"\b(list|enumerate|bullet|top \d+|\d+ (ideas|ways|examples|tips|names|steps|reasons))\b"),
    ("story", r"\b(story|essay|poem|article|blog|letter|email|speech|script|novel|chapter|report)\b"),
    ("explain", r"\b(explain|describe|why|how (do|does|can|to)|discuss|compare|what is the difference)\b"),
    ("math", r"\b(calculate|solve|compute|equation|integral|derivative|sum of|how many|how much)\b"),
    ("question", r"\b(who|what|when|where|which)\b"),
)
_KEYWORD_RE: Final = tuple(re.compile(pattern) for _, pattern in _KEYWORDS)


def keyword_class(text: str) -> int:
    """Returns the first class whose words occur in the ends of a text, from 1; 0 is none."""
    edges = (text if len(text) <= 2 * _EDGE_CHARS else text[:_EDGE_CHARS] + " " + text[-_EDGE_CHARS:]).lower()
    return next((number for number, pattern in enumerate(_KEYWORD_RE, start=1) if pattern.search(edges)), 0)


class ClassMean:
    """Predicts the mean of a text's class, as a number without doubt."""

    def __init__(self) -> None:
        self._seen: dict[int, list[float]] = {}

    def predict(self, text: str, max_tokens: int) -> Lengths:
        seen = self._seen.get(keyword_class(text), [100.0])
        return Lengths((sum(seen) / len(seen),) * QUANTILES)

    def learn(self, text: str, observation: Observation) -> None:
        self._seen.setdefault(keyword_class(text), []).append(float(observation.tokens))

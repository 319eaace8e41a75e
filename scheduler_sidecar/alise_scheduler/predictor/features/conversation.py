"""All that is known of a request when it comes, as numbers: what the learned head is fed. Lives in memory and in the history; no text.

A row is REQUEST, the prompt's own (`text.py`), EXPECTED and CONVERSATION, in this order; NaN where nothing is known.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..shares import FairLru
from . import conversation_effect
from .text import TEXT_NAMES

Row = NDArray[np.float32]
Half = NDArray[np.float16]

# Version of the feature set. Increase it when a column gets another meaning or other numbers for the same request: stored rows, heads and
# priors of another version are not used. A test compares the features of fixed requests with those of this version.
FEATURES_VERSION: Final = 9

# The last: how much text a token of the conversation so far is, in logs: few characters where it is about code or in another language.
REQUEST: Final = (
    "endpoint", "structured", "turns", "prompt_chars", "earlier_chars", "earlier_per_turn", "cap", "temperature", "chars_per_token",
)  # fmt: skip
# ln(tokens) by general knowledge (`prior.py`): of such a prompt, and in a conversation whose answers are so much longer or shorter.
EXPECTED: Final = ("prior", "prior_here")
CONVERSATION: Final = (
    "said_last", "said_mean", "said_most", "said_least", "said_recent", "said_spread", "said_before", "said_times",
    "said_alike", "said_most_alike", "alike_most", "alike_last",
)  # fmt: skip
_CHARS_PER_TOKEN_AT: Final = REQUEST.index("chars_per_token")
_EARLIER_PER_TURN_AT: Final = REQUEST.index("earlier_per_turn")
# Columns at the end of a row that `complete` fills in, beside chars_per_token.
FILLED: Final = len(EXPECTED) + len(CONVERSATION)
NUMBERS: Final = len(REQUEST) + len(TEXT_NAMES) + FILLED
# Where the prompt's own numbers are.
TEXT: Final = slice(len(REQUEST), NUMBERS - FILLED)
PRIOR_AT: Final = NUMBERS - FILLED
EMBEDDING: Final = 384
_SAID_TIMES: Final = CONVERSATION.index("said_times")
SAID_TIMES_AT: Final = NUMBERS - len(CONVERSATION) + _SAID_TIMES
MAX_CONVERSATIONS: Final = 20_000
MAX_SAID: Final = conversation_effect.MOST
# Of so many newest turns, what was asked is remembered, too: an answer to the like is likely as long.
MAX_ASKED: Final = conversation_effect.TURNS
# How much more alike counts for more: weight e^(SHARPNESS · similarity).
_SHARPNESS: Final = 8.0
_RECENT: Final = 0.6
# How far an answer counts that was so many turns ago, and how many answers it takes to be believed half.
_BEYOND_RECENT: Final = 0.7
_BEYOND_PULL: Final = 1.0
_NOTHING: Final = np.zeros(EMBEDDING, np.float16)


@dataclass(frozen=True, slots=True)
class Detail:
    """`numbers` [NUMBERS], NaN where `complete` fills in; `embedding` [EMBEDDING] of length 1 or None; the rest are 64-bit hashes, 0 for
    none."""

    numbers: Row
    embedding: Row | None = field(repr=False)
    model: int = 0
    klass: int = 0
    # The conversation as the next turn will know it, and as the turn before knew it.
    now: int = 0
    previous: int = 0
    tenant: int = 0


def request_numbers(
    endpoint: int, structured: bool, turns: int, prompt_chars: int, newest_chars: int, max_tokens: int, temperature: float
) -> list[float]:
    """The REQUEST part of a row, without what only the conversation says; temperature NaN: not set."""
    earlier = max(0, prompt_chars - newest_chars)
    return [
        float(min(max(endpoint, 0), 255)),
        float(structured),
        float(min(max(turns, 1), 1000)),
        math.log1p(max(prompt_chars, newest_chars)),
        math.log1p(earlier),
        math.log1p(earlier / max(1, turns - 1)),
        math.log1p(max_tokens) if max_tokens > 0 else math.nan,
        min(max(temperature, 0.0), 10.0) if math.isfinite(temperature) else math.nan,
        math.nan,
    ]


@dataclass(frozen=True, slots=True)
class Said:
    """A conversation's answers so far: `root` names it, `log_tokens` are the newest MAX_SAID, oldest first; `asked` are the vectors of the
    newest MAX_ASKED prompts, [EMBEDDING] or None each; `beyond` is how much longer the newest MAX_SAID were than expected, in logs;
    `rests` how much higher than the head expected them the newest ranked, and `turns` what `conversation_effect.weights` makes of that.
    When another head comes they stay: heads differ little in what they expect, and a few turns later they have been replaced."""

    root: int
    log_tokens: tuple[float, ...] = ()
    asked: tuple[Half | None, ...] = ()
    beyond: tuple[float, ...] = ()
    rests: tuple[float, ...] = ()
    turns: Row | None = None


def said_numbers(said: Said | None, embedding: Row | None) -> list[float]:
    """The CONVERSATION part of a row, for a prompt of this embedding."""
    if said is None or not said.log_tokens:
        return [math.nan] * (_SAID_TIMES) + [0.0] + [math.nan] * (len(CONVERSATION) - 1 - _SAID_TIMES)
    return [*_lengths(said.log_tokens), *_alike(said, embedding)]


def _lengths(log_tokens: Sequence[float]) -> list[float]:
    count = len(log_tokens)
    weights = [_RECENT ** (count - 1 - at) for at in range(count)]
    mean = sum(log_tokens) / count
    return [
        log_tokens[-1],
        mean,
        max(log_tokens),
        min(log_tokens),
        sum(w * v for w, v in zip(weights, log_tokens, strict=True)) / sum(weights),
        math.sqrt(sum((v - mean) ** 2 for v in log_tokens) / count),
        log_tokens[-2] if count > 1 else math.nan,
        float(count),
    ]


def _alike(said: Said, embedding: Row | None) -> list[float]:
    """Of the answers to prompts like this one: their length, the length of the one to the most alike, its likeness, the last one's."""
    asked = [(v, tokens) for v, tokens in zip(reversed(said.asked), reversed(said.log_tokens), strict=False) if v is not None]
    if embedding is None or not asked:
        return [math.nan] * 4
    similarity = np.stack([v for v, _ in asked]).astype(np.float32) @ embedding
    tokens = np.array([tokens for _, tokens in asked])
    weights = np.exp(_SHARPNESS * (similarity - similarity.max()))
    best = int(similarity.argmax())
    last = float(similarity[0]) if said.asked[-1] is not None else math.nan
    return [float(weights @ tokens / weights.sum()), float(tokens[best]), float(similarity[best]), last]


class Conversations:
    """What was answered in each conversation, by the hash that its next turn will name; the least recently used of the tenant with the
    most are forgotten."""

    def __init__(self) -> None:
        self._said: FairLru[int, Said] = FairLru(MAX_CONVERSATIONS)

    def __len__(self) -> int:
        return len(self._said)

    def find(self, previous: int, tenant: int = 0) -> Said | None:
        """The conversation whose newest turn called itself `previous`."""
        return self._said.get(tenant, previous) if previous else None

    def add(
        self, previous: int, now: int, log_tokens: float, embedding: Row | None = None, prior: float = math.nan, rest: float = math.nan,
        tenant: int = 0,
    ) -> None:  # fmt: skip
        """A turn of it ended. `embedding` is its prompt's, `prior` what was expected of that, `rest` by how much its rank was above what
        the head expected; NaN: nothing."""
        if not now:
            return
        before = self.find(previous, tenant)
        lengths, beyond = (before.log_tokens, before.beyond) if before else ((), ())
        asked, rests = self._earlier(before, now, tenant)
        if not math.isnan(prior):
            beyond = (*beyond, log_tokens - prior)[-MAX_SAID:]
        asked = (*asked, None if embedding is None else embedding.astype(np.float16))[-MAX_ASKED:]
        # A turn that nothing was expected of would be a gap: it begins anew after that.
        rests = () if math.isnan(rest) else (*rests, rest)[-MAX_ASKED:]
        turns = conversation_effect.weights(_stacked(asked[-len(rests) :]), np.array(rests, np.float32)) if rests else None
        said = Said(before.root if before else now, (*lengths, log_tokens)[-MAX_SAID:], asked, beyond, rests, turns)
        self._said.put(tenant, now, said)
        if before is not None:
            # Continuing from there again is rare, and vectors are nearly all of the memory.
            self._said.replace(tenant, previous, replace(before, asked=(), rests=(), turns=None))

    def _earlier(self, before: Said | None, now: int, tenant: int) -> tuple[tuple[Half | None, ...], tuple[float, ...]]:
        """What was asked before the turn `now`, and the rests of those answers."""
        if before is None:
            return (), ()
        again = self._said.get(tenant, now)
        if again is not None and again.root == before.root:
            # Another answer to a turn that was answered before, which has what the turn before it has given away.
            return again.asked[:-1], again.rests[:-1]
        return before.asked, before.rests


def expected_here(prior: float, said: Said | None) -> float:
    """What general knowledge expects, moved by how far this conversation's answers were from it; the newest count most."""
    if said is None or not said.beyond:
        return prior
    weights = [_BEYOND_RECENT**age for age in range(len(said.beyond))]
    return prior + sum(w * v for w, v in zip(weights, reversed(said.beyond), strict=True)) / (sum(weights) + _BEYOND_PULL)


def carried_over(said: Said | None, embedding: Row | None) -> float:
    """By how much the conversation so far moves the rank that the head expects of a prompt of this embedding."""
    if said is None or said.turns is None:
        return 0.0
    asked = _stacked(said.asked[-len(said.turns) :])
    likeness = np.zeros(len(asked), np.float32) if embedding is None else asked @ embedding
    return float(conversation_effect.carried(likeness, said.turns))


def context(said: Said | None, embedding: Row | None) -> Row:
    """What the conversation is about, [EMBEDDING]: its prompts so far, or, of a first turn, this one of this embedding; 0 for unknown."""
    own = np.zeros(EMBEDDING, np.float32) if embedding is None else embedding
    return own if said is None or not said.asked else conversation_effect.context(_stacked(said.asked), own)


def _stacked(asked: Sequence[Half | None]) -> Row:
    """[K, EMBEDDING], 0 for None."""
    return np.stack([_NOTHING if vector is None else vector for vector in asked]).astype(np.float32)


def complete(detail: Detail, said: Said | None, prior: float = math.nan) -> Row:
    """The whole row of a request: `numbers` with what is expected (ln(tokens); NaN: nothing) and the conversation's part filled in."""
    row = detail.numbers.copy()
    if said is not None and said.log_tokens and row[_EARLIER_PER_TURN_AT] > 0.0:
        typical = math.fsum(map(math.exp, said.log_tokens)) / len(said.log_tokens)
        row[_CHARS_PER_TOKEN_AT] = row[_EARLIER_PER_TURN_AT] - math.log(typical)
    row[-FILLED:] = [prior, expected_here(prior, said), *said_numbers(said, detail.embedding)]
    return row

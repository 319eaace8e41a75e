"""All that is known of a request when it comes, as numbers: what the learned head is fed. Lives in memory and in the history; no text.

A row is REQUEST, the prompt's own (`lexical.py`) and CONVERSATION, in this order; NaN where nothing is known.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from . import lexical

Row = NDArray[np.float32]

REQUEST: Final = ("endpoint", "structured", "turns", "prompt_chars", "earlier_chars", "earlier_per_turn", "cap", "temperature")
CONVERSATION: Final = ("said_last", "said_mean", "said_most", "said_least", "said_recent", "said_spread", "said_before", "said_times")
NUMBERS: Final = len(REQUEST) + len(lexical.NAMES) + len(CONVERSATION)
EMBEDDING: Final = 384
MAX_CONVERSATIONS: Final = 50_000
MAX_SAID: Final = 16
_RECENT: Final = 0.6


@dataclass(frozen=True, slots=True)
class Detail:
    """`numbers` [NUMBERS], CONVERSATION left NaN; `embedding` [EMBEDDING] of length 1 or None; the rest are 64-bit hashes, 0 for none."""

    numbers: Row
    embedding: Row | None = field(repr=False)
    model: int = 0
    klass: int = 0
    # The conversation as the next turn will know it, and as the turn before knew it.
    now: int = 0
    previous: int = 0


def request_numbers(
    endpoint: int, structured: bool, turns: int, prompt_chars: int, newest_chars: int, max_tokens: int, temperature: float
) -> list[float]:
    """The REQUEST part of a row; temperature NaN: not set."""
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
    ]


@dataclass(frozen=True, slots=True)
class Said:
    """A conversation's answers so far: `root` names it, `log_tokens` are the newest MAX_SAID, oldest first."""

    root: int
    log_tokens: tuple[float, ...] = ()


def said_numbers(log_tokens: Sequence[float]) -> list[float]:
    """The CONVERSATION part of a row."""
    if not log_tokens:
        return [math.nan] * (len(CONVERSATION) - 1) + [0.0]
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


class Conversations:
    """What was answered in each conversation, by the hash that its next turn will name; the least recently used are forgotten."""

    def __init__(self) -> None:
        self._said: OrderedDict[int, Said] = OrderedDict()

    def __len__(self) -> int:
        return len(self._said)

    def find(self, previous: int) -> Said | None:
        """The conversation whose newest turn called itself `previous`."""
        return self._said.get(previous) if previous else None

    def add(self, previous: int, now: int, log_tokens: float) -> None:
        """A turn of it ended."""
        if not now:
            return
        before = self.find(previous)
        said = Said(before.root if before else now, ((*before.log_tokens, log_tokens) if before else (log_tokens,))[-MAX_SAID:])
        self._said[now] = said
        self._said.move_to_end(now)
        if len(self._said) > MAX_CONVERSATIONS:
            self._said.popitem(last=False)


def complete(detail: Detail, said: Said | None) -> Row:
    """The whole row of a request: `numbers` with the conversation's part filled in."""
    row = detail.numbers.copy()
    row[-len(CONVERSATION) :] = said_numbers(said.log_tokens if said else ())
    return row

"""What the emulated model answers: tokens that follow from the KV of all tokens before them, without any arithmetic of a model. Pure.

`worker.py` calls it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tests.emulated.memory import DeviceMemory, attended, mixed, word, words

# An answer whose length no request names has this many tokens on average (exponential), and at least a few.
MEAN_TOKENS: Final = 150.0
LEAST_TOKENS: Final = 8


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens that answers are made of, each of them visible, and the one that ends an answer."""

    visible: tuple[int, ...]
    end: int


@dataclass(slots=True)
class Answer:
    """One request on the device."""

    tokens: list[int]
    prompt_tokens: int
    block_ids: list[int]
    # The answer's length with its end token; None: it follows from the prompt.
    wanted_tokens: int | None = None
    least_tokens: int = 0
    endless: bool = False
    # What the words of the first `summed` tokens come to.
    total: int = 0
    summed: int = -1

    def compute(self, memory: DeviceMemory, computed: int, scheduled: int, vocabulary: Vocabulary) -> int | None:
        """Computes `scheduled` tokens after the first `computed`, and returns the next token unless a part of the prompt is left."""
        if self.summed != computed:
            # New, resumed, or with a part that the prefix cache or the host store had.
            self.total = memory.attended(self.block_ids, computed)
        if scheduled == 1:
            value = word(self.tokens[computed], computed)
            memory.write(self.block_ids, computed, value)
            self.total += value * (2 * computed + 1)
        else:
            values = words(self.tokens[computed : computed + scheduled], computed)
            memory.write_many(self.block_ids, computed, values)
            self.total += attended(values, computed)
        self.total &= (1 << 64) - 1
        self.summed = computed + scheduled
        if self.summed < len(self.tokens):
            return None
        token = self._next(vocabulary)
        self.tokens.append(token)
        return token

    def _next(self, vocabulary: Vocabulary) -> int:
        said = len(self.tokens) - self.prompt_tokens
        drawn = mixed(self.total)
        if self.wanted_tokens is None:
            share = (drawn >> 11) / (1 << 53)
            self.wanted_tokens = LEAST_TOKENS + round(-MEAN_TOKENS * math.log(1.0 - share))
        if said + 1 >= self.wanted_tokens and said >= self.least_tokens and not self.endless:
            return vocabulary.end
        return vocabulary.visible[drawn % len(vocabulary.visible)]

    def resumed(self, tokens: Sequence[int]) -> None:
        """Takes the tokens that the scheduler has."""
        self.tokens, self.summed = list(tokens), -1

    def truncated(self, output_tokens: int) -> None:
        """Forgets tokens that were discarded."""
        if len(self.tokens) > self.prompt_tokens + output_tokens:
            del self.tokens[self.prompt_tokens + output_tokens :]
            self.summed = -1

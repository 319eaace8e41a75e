"""What is known of a conversation from its earlier answers, and the numbers and vectors that a model is given about it.

`Conversations` keeps the newest turns of each conversation, by the hash that its next turn will name. The predictor (`learned.py`) adds a
turn when it has finished and asks for the conversation when the next one arrives. Nothing here reads a clock or a file.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..shares import FairLru
from . import conversation_effect
from .row import CHARS_PER_TOKEN_AT, EARLIER_PER_TURN_AT, EMBEDDING, FILLED, ModelInput, Row

Half = NDArray[np.float16]

MAX_CONVERSATIONS: Final = 20_000
MAX_ANSWERS: Final = conversation_effect.MOST
# The number of newest turns whose prompts are kept as well: answers to similar prompts are about as long.
MAX_PROMPTS: Final = conversation_effect.TURNS
# The weight of an answer relative to the one after it, and the number of answers that move the prior half of the way.
_PRIOR_DECAY: Final = 0.7
_PRIOR_PULL: Final = 1.0
_NOTHING: Final = np.zeros(EMBEDDING, np.float16)


@dataclass(frozen=True, slots=True)
class PastTurns:
    """The newest turns of a conversation, oldest first.

    `root` names the conversation. `log_tokens` are the lengths of the newest MAX_ANSWERS answers, and `prior_residuals` how much longer
    they were than the prior, in logs. `prompts` are the vectors of the newest MAX_PROMPTS prompts, [EMBEDDING] or None each.
    `residuals` say how much higher these answers ranked than the head expected, and `turns` is what `conversation_effect.weights`
    derives from them. Both are kept when another head is installed: heads differ little, and a few turns later they have been replaced.
    """

    root: int
    log_tokens: tuple[float, ...] = ()
    prompts: tuple[Half | None, ...] = ()
    prior_residuals: tuple[float, ...] = ()
    residuals: tuple[float, ...] = ()
    turns: Row | None = None


class Conversations:
    """The past turns of at most MAX_CONVERSATIONS conversations, by the hash that the next turn will name.

    When there are more, the least recently used one of the tenant with the most conversations is dropped.
    """

    def __init__(self) -> None:
        self._past: FairLru[int, PastTurns] = FairLru(MAX_CONVERSATIONS)

    def __len__(self) -> int:
        return len(self._past)

    def find(self, previous: int, tenant: int = 0) -> PastTurns | None:
        """Returns the conversation whose newest turn is named `previous`; None when it is not known."""
        return self._past.get(tenant, previous) if previous else None

    def add(
        self, previous: int, now: int, log_tokens: float, embedding: Row | None = None, prior: float = math.nan, residual: float = math.nan,
        tenant: int = 0,
    ) -> None:  # fmt: skip
        """Adds a finished turn.

        `embedding` is its prompt's, `prior` the ln(tokens) that the prior expected, and `residual` how much higher it ranked than the head
        expected; NaN is unknown.
        """
        if not now:
            return
        before = self.find(previous, tenant)
        lengths, prior_residuals = (before.log_tokens, before.prior_residuals) if before else ((), ())
        prompts, residuals = self._earlier(before, now, tenant)
        if not math.isnan(prior):
            prior_residuals = (*prior_residuals, log_tokens - prior)[-MAX_ANSWERS:]
        prompts = (*prompts, None if embedding is None else embedding.astype(np.float16))[-MAX_PROMPTS:]
        # A turn without an expectation would be a gap, so the residuals begin again after it.
        residuals = () if math.isnan(residual) else (*residuals, residual)[-MAX_PROMPTS:]
        turns = conversation_effect.weights(_stacked(prompts[-len(residuals) :]), np.array(residuals, np.float32)) if residuals else None
        past = PastTurns(before.root if before else now, (*lengths, log_tokens)[-MAX_ANSWERS:], prompts, prior_residuals, residuals, turns)
        self._past.put(tenant, now, past)
        if before is not None:
            # Another answer to that turn is rare, and vectors are nearly all of the memory.
            self._past.replace(tenant, previous, replace(before, prompts=(), residuals=(), turns=None))

    def _earlier(self, before: PastTurns | None, now: int, tenant: int) -> tuple[tuple[Half | None, ...], tuple[float, ...]]:
        """Returns the prompts before the turn `now`, and the residuals of their answers."""
        if before is None:
            return (), ()
        again = self._past.get(tenant, now)
        if again is not None and again.root == before.root:
            # Another answer to a turn that was answered before: that one holds what the turn before it passed on.
            return again.prompts[:-1], again.residuals[:-1]
        return before.prompts, before.residuals


def expected_here(prior: float, past: PastTurns | None) -> float:
    """Returns the prior, moved by how far this conversation's answers were from it; the newest answers count most."""
    if past is None or not past.prior_residuals:
        return prior
    weights = [_PRIOR_DECAY**age for age in range(len(past.prior_residuals))]
    return prior + sum(w * v for w, v in zip(weights, reversed(past.prior_residuals), strict=True)) / (sum(weights) + _PRIOR_PULL)


def carried_over(past: PastTurns | None, embedding: Row | None) -> float:
    """Returns by how much the conversation so far moves the rank that the head expects, for a prompt with this embedding."""
    if past is None or past.turns is None:
        return 0.0
    prompts = _stacked(past.prompts[-len(past.turns) :])
    similarity = np.zeros(len(prompts), np.float32) if embedding is None else prompts @ embedding
    return float(conversation_effect.carried(similarity, past.turns))


def context(past: PastTurns | None, embedding: Row | None) -> Row:
    """Returns what the conversation is about, [EMBEDDING]: the direction of its prompts so far.

    For a first turn it is the direction of this prompt; 0 is unknown.
    """
    own = np.zeros(EMBEDDING, np.float32) if embedding is None else embedding
    return own if past is None or not past.prompts else conversation_effect.context(_stacked(past.prompts), own)


def _stacked(prompts: Sequence[Half | None]) -> Row:
    """[K, EMBEDDING], 0 for None."""
    return np.stack([_NOTHING if vector is None else vector for vector in prompts]).astype(np.float32)


def complete(model_input: ModelInput, past: PastTurns | None, prior: float = math.nan) -> Row:
    """Returns the whole row of a request: its `numbers` with the conversation's part and the prior's ln(tokens) filled in."""
    row = model_input.numbers.copy()
    if past is not None and past.log_tokens and row[EARLIER_PER_TURN_AT] > 0.0:
        typical = math.fsum(map(math.exp, past.log_tokens)) / len(past.log_tokens)
        row[CHARS_PER_TOKEN_AT] = row[EARLIER_PER_TURN_AT] - math.log(typical)
    row[-FILLED:] = [prior, expected_here(prior, past), 0.0 if past is None else len(past.log_tokens)]
    return row

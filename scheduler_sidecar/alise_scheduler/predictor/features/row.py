"""The row of numbers that describes a request to the models: its columns, and the part that the request itself fills.

A row is REQUEST, TEXT_NAMES (`text.py`), EXPECTED and CONVERSATION, in this order; NaN means unknown. `conversation.complete` fills in what
depends on the conversation. Rows stay in memory and in the history, and no text can be read back from them. `request.py` fills one, and
`learned.py` reads it.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from .text import TEXT_NAMES

Row = NDArray[np.float32]

# Version of the feature set. Increase it when a column gets another meaning or other numbers for the same request: stored rows, heads and
# priors of another version are not used. A test compares the features of fixed requests with those of this version.
FEATURES_VERSION: Final = 10

# chars_per_token: how much text a token of the conversation so far is, in logs. It is low where the conversation is about code or in
# another language.
REQUEST: Final = (
    "endpoint", "structured", "turns", "prompt_chars", "earlier_chars", "earlier_per_turn", "cap", "temperature", "chars_per_token",
)  # fmt: skip
# ln(tokens) by the prior: for such a prompt, and moved by how this conversation's answers compared with it.
EXPECTED: Final = ("prior", "prior_here")
# The number of answers that are known of the conversation, by which training finds its turns.
CONVERSATION: Final = ("answers",)
# Columns at the end of a row that `conversation.complete` fills in, beside chars_per_token.
FILLED: Final = len(EXPECTED) + len(CONVERSATION)
NUMBERS: Final = len(REQUEST) + len(TEXT_NAMES) + FILLED
# The columns of the prompt's own text.
TEXT: Final = slice(len(REQUEST), NUMBERS - FILLED)
PRIOR_AT: Final = NUMBERS - FILLED
ANSWERS_AT: Final = NUMBERS - 1
CHARS_PER_TOKEN_AT: Final = REQUEST.index("chars_per_token")
EARLIER_PER_TURN_AT: Final = REQUEST.index("earlier_per_turn")
# Dimensions of a sentence embedding.
EMBEDDING: Final = 384


@dataclass(frozen=True, slots=True)
class ModelInput:
    """What the predictor is given about a request.

    `numbers` [NUMBERS], NaN where `conversation.complete` fills in; `embedding` [EMBEDDING] of length 1, or None. The other fields are
    64-bit hashes, 0 for none, but for `min_tokens`.
    """

    numbers: Row
    embedding: Row | None = field(repr=False)
    model: int = 0
    klass: int = 0
    # The conversation as its next turn will name it, and as the turn before named it.
    now: int = 0
    previous: int = 0
    # The newest text, in this place of this conversation.
    text: int = 0
    tenant: int = 0
    # The client's lower bound on the length.
    min_tokens: int = 0

    def without_tenant(self) -> Self:
        """The same request from no tenant, and outside of conversations: its prediction shows nothing that one tenant has sent."""
        return replace(self, previous=0, text=0, tenant=0)


def request_numbers(
    endpoint: int, structured: bool, turns: int, prompt_chars: int, newest_chars: int, max_tokens: int, temperature: float
) -> list[float]:
    """Returns the REQUEST part of a row; chars_per_token is unknown. A temperature of NaN is not set."""
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

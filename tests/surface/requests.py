"""The request surface of vLLM 0.32: at least one request for every route that generates and for every parameter that changes an answer.

A row is one HTTP request with a sentence for its id. Nothing here is random: either the temperature is 0 or there is a seed, so two servers
that behave the same way give the same answers. Rows are played in order, one at a time; a row may name an earlier one whose answer it
continues.

`case` names the report that a row comes from: D and R are inputs of hostile clients, A are public bug reports. `run.py` plays them, and
`fuzz.py` varies them.
"""

from typing import Final

from tests.surface.chat_rows import batches, chats
from tests.surface.completion_rows import completions, last
from tests.surface.other_rows import invocations, others, scores, token_ids
from tests.surface.response_rows import messages, responses
from tests.surface.row import Request

SURFACE: Final[tuple[Request, ...]] = (
    *completions(),
    *chats(),
    *batches(),
    *responses(),
    *messages(),
    *invocations(),
    *token_ids(),
    *scores(),
    *others(),
    *last(),
)

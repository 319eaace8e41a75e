"""What a row of the request surface is, and what the tables share: routes, limits of the servers, bodies and schemas.

`requests.py`, `run.py`, `compare.py` and the `*_rows.py` files read it.
"""

import json
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

JSON_TYPE: Final = "application/json"
MODEL: Final = "tiny"
# Both servers are started with these.
MAX_MODEL_LEN: Final = 2048
# One byte is one token; the special tokens come after the bytes.
VOCABULARY: Final = 262
# In a path or a body: the id that the row in `follows` was answered with.
ID_BEFORE: Final = "ID-OF-THE-ANSWER-BEFORE"


class Mark(Enum):
    # Stock vLLM's engine dies of it, so it is sent only to ours, which must answer with 2xx or 4xx.
    STOCK_DIES = "stock dies"
    # Repeated until the answer is no longer in progress.
    POLL = "poll"


@dataclass(frozen=True, slots=True)
class Request:
    id: str
    path: str
    # As JSON, unless it is bytes already.
    body: Any = None
    method: str = "POST"
    content_type: str = JSON_TYPE
    marks: frozenset[Mark] = frozenset()
    # Ids of the reports that it comes from.
    case: tuple[str, ...] = ()
    # The id of an earlier row; see ID_BEFORE.
    follows: str = ""
    # Blanks after the body.
    padding_bytes: int = 0

    @property
    def streams(self) -> bool:
        return isinstance(self.body, dict) and self.body.get("stream") is True

    def content(self) -> bytes | None:
        if self.body is None:
            return None
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return body + b" " * self.padding_bytes


COMPLETIONS: Final = "/v1/completions"
CHAT: Final = "/v1/chat/completions"
BATCH: Final = "/v1/chat/completions/batch"
RESPONSES: Final = "/v1/responses"
MESSAGES: Final = "/v1/messages"
INVOCATIONS: Final = "/invocations"
GENERATE: Final = "/inference/v1/generate"
SCORING: Final = "/generative_scoring"
DECISIONS: Final = "/v1/systemone"
COHERE: Final = "/cohere/v2/chat"
TRANSCRIPTIONS: Final = "/v1/audio/transcriptions"
TRANSLATIONS: Final = "/v1/audio/translations"
# All of vLLM 0.32's routes that put work into the engine of a model that generates.
GENERATING: Final = (
    COMPLETIONS,
    CHAT,
    BATCH,
    RESPONSES,
    MESSAGES,
    INVOCATIONS,
    GENERATE,
    SCORING,
    DECISIONS,
    COHERE,
    TRANSCRIPTIONS,
    TRANSLATIONS,
)

HELLO: Final = [{"role": "user", "content": "hello"}]
WEATHER: Final = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
JSON_SCHEMA: Final = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}}
# A red pixel.
PICTURE: Final = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def both(request: Request) -> tuple[Request, Request]:
    """The row, and the same one streamed."""
    return request, replace(request, id=f"{request.id}, streamed", body={**request.body, "stream": True})


def without(request: Request, *keys: str) -> Request:
    return replace(request, body={key: value for key, value in request.body.items() if key not in keys})

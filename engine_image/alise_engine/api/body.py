"""Reads a request's body within its limits of size and time. `middleware.py` calls it before anything reads a body."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from alise_contract.names import DEFAULT_BODY_SECONDS, DEFAULT_MAX_BODY_BYTES

from .asgi import Receive

# Commas, colons and brackets of a JSON body. vLLM's server parses it on the event loop that serves every request, some 10 million of them a
# second. Room for prompts of token ids comes on top, see `max_marks`.
BASE_MARKS: Final = 100_000
# Bytes of a body whose text vLLM tokenizes as a whole, however long it is. vLLM has one thread for that, and a megabyte takes it one to
# three seconds. Room for long contexts comes on top, see `max_text_bytes`.
BASE_TEXT_BYTES: Final = 64 * 1024
# Bytes of JSON for a model that takes nothing but text: more than several prompts of the greatest length. See `max_json_bytes`.
BASE_JSON_BYTES: Final = 4 * 1024 * 1024
# Bodies up to this size do not count towards what the bodies of a tenant may take together.
SMALL_BYTES: Final = 1024 * 1024
# The same of bodies whose text is tokenized at once.
SMALL_TEXT_BYTES: Final = 16 * 1024
# Bodies of the greatest size that a tenant may send at the same time.
BODIES_AT_ONCE: Final = 4
# The same of texts that are tokenized outside of the queue.
TEXTS_AT_ONCE: Final = 2
# CPU time of parsing a body, in this process or another. vLLM's server spends the same once more, on its event loop.
MAX_PARSE_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class BodyLimits:
    max_bytes: int = DEFAULT_MAX_BODY_BYTES
    seconds: float = DEFAULT_BODY_SECONDS


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a body is not read: an HTTP status and a sentence."""

    status: int
    message: str


class Disconnected(Exception):
    """The client went away before its body was there."""


class Uploads:
    """How many bytes of bodies are being read or worked on, by tenant. Small bodies do not count."""

    def __init__(self, most_per_tenant: int, small_bytes: int = SMALL_BYTES) -> None:
        self._most = most_per_tenant
        self._small = small_bytes
        self._held: Counter[str] = Counter()

    @contextmanager
    def upload(self, tenant: str) -> Iterator[Callable[[int], bool]]:
        """Counts one body while the context is open. Its value is a function: the body's size so far -> whether there is room for it."""
        held = 0

        def grown_to(size: int) -> bool:
            nonlocal held
            growth = size - held if size > self._small else 0
            if self._held[tenant] + growth > self._most:
                return False
            held += growth
            self._held[tenant] += growth
            return True

        try:
            yield grown_to
        finally:
            self._held[tenant] -= held
            if not self._held[tenant]:
                del self._held[tenant]


async def read(
    receive: Receive,
    declared_bytes: int | None,
    limits: BodyLimits,
    has_room: Callable[[int], bool] = lambda size: True,
    most_marks: int | None = None,
) -> bytes | Refused:
    """Returns the body, or why it is refused. `has_room` is called with the size so far; `most_marks` limits JSON. Raises Disconnected."""
    if declared_bytes is not None and declared_bytes > limits.max_bytes:
        return _too_large(limits)
    parts: list[bytes] = []
    size = found = 0
    try:
        async with asyncio.timeout(limits.seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                part = message.get("body", b"")
                size += len(part)
                if size > limits.max_bytes:
                    return _too_large(limits)
                if not has_room(size):
                    return Refused(429, "too many large requests are being sent at the same time; send some of them later")
                if most_marks is not None and (found := found + marks(part)) > most_marks:
                    return Refused(413, f"the JSON has more than {most_marks} commas, colons and brackets; send it in smaller requests")
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        return Refused(408, f"the request's body did not arrive within {limits.seconds:g} s; send it faster or in smaller requests")


def max_marks(max_model_len: int) -> int:
    """Returns how many commas, colons and brackets a JSON body may have: four prompts of token ids of the greatest length fit."""
    return BASE_MARKS + 4 * max_model_len


def max_text_bytes(max_model_len: int) -> int:
    """Returns how large a body may be whose text is tokenized however long it is: 8 bytes for each token of the model's context fit."""
    return BASE_TEXT_BYTES + 8 * max_model_len


def max_json_bytes(max_model_len: int) -> int:
    """Returns how large JSON may be for a model that takes nothing but text; beyond it there is more text than vLLM accepts."""
    return BASE_JSON_BYTES + 64 * max_model_len


def marks(body: bytes) -> int:
    """Returns the commas, colons and opening brackets in a body: no fewer than there are JSON values, and quick to count."""
    return body.count(b",") + body.count(b":") + body.count(b"[") + body.count(b"{")


def _too_large(limits: BodyLimits) -> Refused:
    return Refused(413, f"the request's body is larger than the limit of {limits.max_bytes} bytes; send smaller requests")

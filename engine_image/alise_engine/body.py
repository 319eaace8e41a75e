"""Reads a request's body within its limits of size and time."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from alise_contract.names import DEFAULT_BODY_SECONDS, DEFAULT_MAX_BODY_BYTES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

# Commas, colons and brackets of a JSON body. vLLM's server parses it on the event loop that serves everybody, about ten million of them a
# second. Room for prompts of token ids comes on top, see `max_marks`.
BASE_MARKS: Final = 100_000


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


async def read(receive: Receive, declared_bytes: int | None, limits: BodyLimits) -> bytes | Refused:
    """Returns the whole body. Raises Disconnected."""
    if declared_bytes is not None and declared_bytes > limits.max_bytes:
        return _too_large(limits)
    parts: list[bytes] = []
    size = 0
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
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        return Refused(408, f"the request's body was not there within {limits.seconds:g} s; send it faster or in smaller requests")


def max_marks(max_model_len: int) -> int:
    """Returns how many commas, colons and brackets a JSON body may have: four prompts of token ids of the greatest length fit."""
    return BASE_MARKS + 4 * max_model_len


def marks(body: bytes) -> int:
    """Returns the commas, colons and opening brackets in a body: no fewer than there are JSON values, and quick to count."""
    return body.count(b",") + body.count(b":") + body.count(b"[") + body.count(b"{")


def _too_large(limits: BodyLimits) -> Refused:
    return Refused(413, f"the request's body is larger than the {limits.max_bytes} bytes that this server reads")

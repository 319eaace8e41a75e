"""What ASGI's scopes and messages say, and how an error is sent or a WebSocket ended. `middleware.py` calls it, `body.py` uses its types.

It sends through the callables that it is given, and touches nothing else.
"""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from .outcomes import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What fits into a WebSocket's close frame beside its code (RFC 6455).
_MAX_REASON_BYTES: Final = 123


def path_of(scope: Scope) -> str:
    """Returns the path as the router sees it."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def headers_of(scope: Scope) -> dict[str, str]:
    """Returns header values as text: UTF-8 where possible, else Latin-1. The first of two equal headers counts, as in vLLM."""
    return {name.decode("latin-1").lower(): _text(value) for name, value in reversed(scope["headers"])}


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def declared_bytes(headers: dict[str, str]) -> int | None:
    value = headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None


def without_header(scope: Scope, name: str) -> Scope:
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() != name.encode()]}


def replayed(body: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that yields the body, then the client's messages: vLLM waits for `http.disconnect` to cancel the request."""
    delivered = False

    async def next_message() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message


async def close_web_socket(send: Send, refusal: Refusal, message: str) -> None:
    """Ends a WebSocket."""
    await send({"type": "websocket.close", "code": refusal.close_code, "reason": message[:_MAX_REASON_BYTES]})


async def send_error(send: Send, refusal: Refusal, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """Sends an error in the format of OpenAI's API."""
    error = {"message": message, "type": refusal.error_type, "param": None, "code": refusal.status}
    data = json.dumps({"error": error}).encode("ascii")
    base = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(data)))
    await send({"type": "http.response.start", "status": refusal.status, "headers": [*base, *refusal.headers, *headers]})
    await send({"type": "http.response.body", "body": data})

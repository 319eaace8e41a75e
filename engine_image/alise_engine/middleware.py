"""ASGI middleware in vLLM's API server: asks the sidecar about a request and stamps it. Pure ASGI, so that streams stay streams.

What it must never do is stand in the way: a body it does not understand goes on byte for byte and vLLM's own 4xx answers it; a sidecar that
is dead, slow or of another version costs order, never a request. It sits inside API-key authentication (the endpoint plugin adds it
before vLLM adds its own), so that nobody without a key reaches the sidecar.

    POST /v1/chat/completions, /v1/completions, /v1/responses    asked about and stamped
    other POSTs that generate                                    priority and our keys removed, counted as open, refused while draining
    everything else                                              untouched
"""

import json
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from alise_contract.names import NEUTRAL_LEVEL, PRIORITY_HEADER, pack_priority

from .admission import Admitted, Decision, FailedOpen, Rejected, RejectReason
from .describe import JSON, Description, Endpoint, describe, stamped, unstamped

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ENDPOINTS: Final = {endpoint.value: endpoint for endpoint in Endpoint}
# Routes of vLLM 0.32.0 that put work into the engine without being asked about.
OTHER_GENERATING: Final = frozenset(
    {
        "/invocations",
        "/inference/v1/generate",
        "/v1/chat/completions/batch",
        "/v1/messages",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/cohere/v2/chat",
        "/generative_scoring",
        "/v1/systemone",
    }
)
# A larger body (pictures, audio) is not read twice: it goes on as it comes, unstamped.
MAX_BODY_BYTES: Final = 32 * 1024 * 1024
NEUTRAL: Final = Admitted(pack_priority(NEUTRAL_LEVEL, 0), "")
# Another pod answers at once.
DRAINING: Final = Rejected(RejectReason.DRAINING, "this replica is draining; try again", 1)


class Gate(Protocol):
    """What the middleware asks of the rest; `api.EngineApi` in the server, a fake in tests."""

    @property
    def refusing(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    def open(self) -> Any:
        """A context manager around one HTTP request."""
        ...

    def serves(self, model: str) -> bool: ...
    async def decide(self, job_id: str, description: Description) -> Decision: ...
    def passed_through(self, reason: str) -> None: ...
    def rejected(self, rejected: Rejected) -> None: ...


@dataclass(frozen=True, slots=True)
class _Body:
    """As far as it was read: `complete` is False for one that is too large or whose client went away."""

    data: bytes
    complete: bool
    disconnected: bool = False


class AliseMiddleware:
    def __init__(self, app: App, gate: Gate, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._gate = gate
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path(scope) if scope["type"] == "http" and scope["method"] == "POST" else ""
        if path not in ENDPOINTS and path not in OTHER_GENERATING:
            await self._app(scope, receive, send)
            return
        with self._gate.open():
            await self._handle(path, scope, receive, send)

    async def _handle(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        # 1. Is this pod on its way out?
        if self._gate.refusing:
            await self._reject(DRAINING, send)
            return
        if self._gate.draining:
            send = _closing(send)
        # 2. Read the body; what cannot be read here is vLLM's to answer.
        scope = _without_priority_header(scope)
        body = await _read(receive, self._max_body_bytes)
        if body.disconnected:
            return
        parsed = _parsed(body)
        if not isinstance(parsed, dict):
            self._gate.passed_through("not_json" if body.complete else "too_large")
            await self._app(scope, _replay(body, receive), send)
            return
        # 3. Ask about it.
        endpoint = ENDPOINTS.get(path)
        new = unstamped(parsed) if endpoint is None else await self._admitted(endpoint, parsed, scope)
        if isinstance(new, Rejected):
            await self._reject(new, send)
            return
        # 4. Let it through, as it was when there was nothing to change.
        if new is parsed:
            await self._app(scope, _replay(body, receive), send)
            return
        data = json.dumps(new).encode("ascii")
        await self._app(_with_length(scope, len(data)), _replay(_Body(data, complete=True), receive), send)

    async def _admitted(self, endpoint: Endpoint, body: dict[str, JSON], scope: Scope) -> dict[str, JSON] | Rejected:
        description = describe(endpoint, body, _headers(scope))
        if description is None:
            self._gate.passed_through("not_described")
            return body
        if description.model and not self._gate.serves(description.model):
            self._gate.passed_through("unknown_model")
            return body
        job_id = uuid.uuid4().hex
        decision = await self._gate.decide(job_id, description)
        if isinstance(decision, Rejected):
            return decision
        # The job id goes in without a sidecar too: one that comes back learns the job from Watch.
        admitted = NEUTRAL if isinstance(decision, FailedOpen) else decision
        return stamped(body, admitted.priority, job_id, admitted.hint)

    async def _reject(self, rejected: Rejected, send: Send) -> None:
        self._gate.rejected(rejected)
        status, kind = (503, "ServiceUnavailableError") if rejected.reason is RejectReason.DRAINING else (429, "RateLimitError")
        error = {"message": rejected.message, "type": kind, "param": None, "code": status}
        data = json.dumps({"error": error}).encode("ascii")
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(data)),
            (b"retry-after", b"%d" % rejected.retry_after_seconds),
        ]
        if self._gate.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": data})


async def _read(receive: Receive, max_bytes: int) -> _Body:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return _Body(b"", complete=False, disconnected=True)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if not message.get("more_body", False):
            return _Body(b"".join(parts), complete=True)
        if size > max_bytes:
            return _Body(b"".join(parts), complete=False)


def _replay(body: _Body, receive: Receive) -> Receive:
    """First what was read, then the client itself: vLLM waits there for `http.disconnect` and cancels the request in the engine."""
    delivered = False

    async def replayed() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": body.data, "more_body": not body.complete}

    return replayed


def _parsed(body: _Body) -> JSON:
    if not body.complete:
        return None
    try:
        return json.loads(body.data)
    except (ValueError, RecursionError):
        return None


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _without_priority_header(scope: Scope) -> Scope:
    return _with_headers(scope, (pair for pair in scope["headers"] if pair[0].lower() != PRIORITY_HEADER.encode()))


def _with_length(scope: Scope, length: int) -> Scope:
    rest = (pair for pair in scope["headers"] if pair[0].lower() not in (b"content-length", b"transfer-encoding"))
    return _with_headers(scope, [*rest, (b"content-length", b"%d" % length)])


def _with_headers(scope: Scope, headers: Iterable[tuple[bytes, bytes]]) -> Scope:
    return {**scope, "headers": list(headers)}


def _closing(send: Send) -> Send:
    """While draining a connection is not kept alive: its client's next request must find another pod."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message.get("headers", ()) if pair[0].lower() != b"connection"]
            message = {**message, "headers": [*kept, (b"connection", b"close")]}
        await send(message)

    return closing

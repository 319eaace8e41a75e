"""ASGI middleware in vLLM's API server: authentication, limits, admission and rank. Pure ASGI, so that streams stay streams.

    any request                where there are API keys: 401 without one, but for probes (`routes.needs_key`)
    a request that generates   read within its limits, described, counted, asked about, and carried out under a ticket (`stamping.py`)
    any other with a body      read within the same limits
    everything else            untouched

Bodies reach vLLM byte for byte: rank, job id and hint are not in them. What vLLM would refuse is refused by vLLM, in its own words. A
scheduler that is dead, slow or of another version costs order, never a request; API keys and limits hold all the same. The endpoint plugin
adds this before vLLM adds its own middleware, so that it sits inside vLLM's own API-key check where that is switched on.
"""

import json
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from alise_contract.names import CLASS_RESPONSE_HEADER, DEFAULT_CLASS, OUTCOME_RESPONSE_HEADER, PRIORITY_HEADER

from .admission import Admitted, Ask, Decision, FailedOpen, Rejected, RejectReason
from .body import MAX_PARSE_SECONDS, BodyLimits, Disconnected, Receive, Refused, max_marks, max_text_bytes, read
from .describe import Description, Endpoint
from .identity import Caller, slo_ttft_ms
from .parsing import Busy, Parsed
from .routes import FORMS, OPEN_PATHS, Route, endpoint_of, is_metrics, needs_key, route_of
from .stamping import CURRENT, NEUTRAL_PRIORITY, Stamp, Ticket

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Another pod answers at once.
DRAINING: Final = Rejected(RejectReason.DRAINING, "this replica is draining; try again", 1)
_WRONG_KEY: Final = "this request needs an API key: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`"
# Outcomes of admission that are no rejection; with the reasons of `RejectReason` and the refusals below the label of a metric.
ADMITTED: Final = "admitted"
FAILED_OPEN: Final = "failed_open"
NEUTRAL: Final = "neutral"
UNAUTHORIZED: Final = "unauthorized"
# The client went away before its body was there.
DISCONNECTED: Final = "disconnected"
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
# The rest of the body is not read: the connection cannot be used again.
_CLOSE: Final = ((b"connection", b"close"),)
_AGAIN: Final = {429: ((b"retry-after", b"1"),)}
_REFUSED: Final = {408: "body_too_slow", 413: "body_too_large", 429: "too_many_bodies"}
OUTCOMES: Final = (
    *(ADMITTED, FAILED_OPEN, NEUTRAL, UNAUTHORIZED, DISCONNECTED),
    *_REFUSED.values(),
    *(reason.value for reason in RejectReason),
)


class Gate(Protocol):
    """What the middleware asks of the rest; `api.EngineApi` in the server."""

    @property
    def refusing(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    @property
    def limits(self) -> BodyLimits: ...
    @property
    def max_model_len(self) -> int: ...
    @property
    def max_json_bytes(self) -> int: ...
    @property
    def guards_metrics(self) -> bool: ...
    def caller(self, headers: dict[str, str]) -> Caller | None:
        """None: there are API keys, and the request has none of them."""
        ...

    def cache_salt(self, caller: Caller) -> str: ...
    def open(self) -> Any:
        """A context manager around one HTTP request that was read."""
        ...

    def upload(self, caller: Caller) -> AbstractContextManager[Callable[[int], bool]]:
        """Counts the memory of a body while it is read."""
        ...

    def text_work(self, caller: Caller) -> AbstractContextManager[Callable[[int], bool]]:
        """Counts text that is tokenized without a place in the queue."""
        ...

    async def parse(self, endpoint: Endpoint, data: bytes) -> Parsed:
        """Raises Busy."""
        ...

    async def decide(self, ask: Ask) -> Decision: ...
    def answered(self, ticket: Ticket) -> None:
        """The HTTP answer is complete, or its client has gone."""
        ...

    def seen(self, klass: str, outcome: str) -> None:
        """Counts a request that generates, or was refused."""
        ...

    def passed_through(self, reason: str) -> None: ...


@dataclass(slots=True)
class _Outcome:
    """What the answer's headers and the metric say."""

    klass: str
    name: str = NEUTRAL


class AliseMiddleware:
    def __init__(self, app: App, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path, headers = _path(scope), _headers(scope)
        method = scope.get("method", "GET")
        # 1. May this client ask at all?
        guarded = needs_key(method, path, self._gate.guards_metrics)
        caller = self._gate.caller(headers) if guarded else Caller()
        if caller is None:
            self._gate.seen("", UNAUTHORIZED)
            await _unauthorized(scope, send)
        elif scope["type"] == "websocket" or method not in _WITH_BODY or path in OPEN_PATHS or is_metrics(path):
            # Nothing here reads a body.
            await self._app(scope, receive, send)
        elif route_of(method, path) is Route.GENERATES:
            await self._generate(path, caller, headers, scope, receive, send)
        else:
            await self._pass_on(path, caller, headers, scope, receive, send)

    async def _pass_on(self, path: str, caller: Caller, headers: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        """A route that does not generate. vLLM parses its body on the same event loop, and tokenizes its text whatever the length."""
        most = max_text_bytes(self._gate.max_model_len)
        try:
            body = await self._body(path, caller, headers, receive, most)
        except Disconnected:
            return
        with self._gate.text_work(caller) as has_room:
            if isinstance(body, bytes) and not has_room(len(body)):
                body = Refused(429, "too much text is being tokenized at the same time; send some of it later")
            if isinstance(body, Refused):
                self._gate.seen("", _REFUSED[body.status])
                await _error(send, body.status, "BadRequestError", body.message, (*_CLOSE, *_AGAIN.get(body.status, ())))
                return
            await self._app(scope, _replay(body, receive), send)

    async def _body(self, path: str, caller: Caller, headers: dict[str, str], receive: Receive, most_json: int) -> bytes | Refused:
        """The whole body, unless it is over a limit. Raises Disconnected."""
        limits, most_marks = self._gate.limits, None
        if path not in FORMS:
            limits = replace(limits, max_bytes=min(limits.max_bytes, most_json))
            most_marks = max_marks(self._gate.max_model_len)
        with self._gate.upload(caller) as has_room:
            return await read(receive, _declared_bytes(headers), limits, has_room, most_marks)

    async def _generate(self, path: str, caller: Caller, headers: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        outcome = _Outcome(caller.klass)
        send = _telling(send, outcome, self._gate)
        try:
            # 2. Read the body, within its limits. A drain does not wait for a request whose body is incomplete.
            body = DRAINING if self._gate.refusing else await self._body(path, caller, headers, receive, self._gate.max_json_bytes)
            if isinstance(body, bytes) and self._gate.refusing:
                # The drain began while the body was on its way.
                body = DRAINING
            if isinstance(body, Refused | Rejected):
                await self._refuse(body, outcome, send)
                return
            with self._gate.open():
                await self._read(path, body, caller, headers, outcome, scope, receive, send)
        except Disconnected:
            outcome.name = DISCONNECTED
        finally:
            self._gate.seen(caller.klass, outcome.name)

    async def _read(
        self,
        path: str,
        body: bytes,
        caller: Caller,
        headers: dict[str, str],
        outcome: _Outcome,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        # 3. What does it say?
        description = await self._described(path, body)
        if isinstance(description, Refused | Rejected):
            await self._refuse(description, outcome, send)
            return
        job_id = uuid.uuid4().hex
        # 4. May it come in, and with which rank?
        decision = await self._decide(job_id, description, caller, headers)
        if isinstance(decision, Rejected):
            await self._refuse(decision, outcome, send)
            return
        if isinstance(decision, FailedOpen):
            outcome.name = FAILED_OPEN
        elif isinstance(decision, Admitted):
            outcome.name = NEUTRAL if description is None or description.endpoint is Endpoint.OTHER else ADMITTED
        # The job id goes in without a scheduler too: one that comes back learns the job from Watch.
        admitted = decision if isinstance(decision, Admitted) else Admitted(NEUTRAL_PRIORITY, "")
        ticket = Ticket(Stamp(job_id, admitted.priority, admitted.hint), caller.tenant, self._gate.cache_salt(caller))
        # 5. Let it through as it came.
        token = CURRENT.set(ticket)
        try:
            await self._app(_without_priority_header(scope), _replay(body, receive), send)
        finally:
            CURRENT.reset(token)
            self._gate.answered(ticket)

    async def _described(self, path: str, body: bytes) -> Description | Refused | Rejected | None:
        """None: it is no JSON, and vLLM refuses it."""
        if path in FORMS:
            return Description(Endpoint.OTHER)
        try:
            parsed = await self._gate.parse(endpoint_of(path), body)
        except Busy as error:
            return Rejected(RejectReason.OVERLOADED, f"{error}; try again", 1)
        if parsed.cpu_seconds > MAX_PARSE_SECONDS:
            return Refused(413, f"the JSON took {parsed.cpu_seconds:.1f} s to parse; send it in smaller requests")
        most = max_text_bytes(self._gate.max_model_len)
        if parsed.description is not None and parsed.description.truncates and len(body) > most:
            return Refused(413, f"with truncate_prompt_tokens a request may have {most} bytes; cut the prompt before sending it")
        return parsed.description

    async def _decide(self, job_id: str, description: Description | None, caller: Caller, headers: dict[str, str]) -> Decision | None:
        """None where there is nothing to decide: vLLM answers such a request without computing anything."""
        if description is None:
            self._gate.passed_through("not_json")
            return None
        if description.endpoint is Endpoint.OTHER:
            self._gate.passed_through("not_described")
        return await self._gate.decide(Ask(job_id, description, caller, slo_ttft_ms(headers)))

    async def _refuse(self, refusal: Refused | Rejected, outcome: _Outcome, send: Send) -> None:
        if isinstance(refusal, Refused):
            outcome.name = _REFUSED[refusal.status]
            await _error(send, refusal.status, "BadRequestError", refusal.message, (*_CLOSE, *_AGAIN.get(refusal.status, ())))
            return
        outcome.name = refusal.reason.value
        status, kind = (503, "ServiceUnavailableError") if refusal.reason is RejectReason.DRAINING else (429, "RateLimitError")
        await _error(send, status, kind, refusal.message, ((b"retry-after", b"%d" % refusal.retry_after_seconds),))


async def _unauthorized(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": _WRONG_KEY})
        return
    await _error(send, 401, "AuthenticationError", _WRONG_KEY, ((b"www-authenticate", b"Bearer"), (b"connection", b"close")))


async def _error(send: Send, status: int, kind: str, message: str, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    """An error as OpenAI's API has them."""
    error = {"message": message, "type": kind, "param": None, "code": status}
    data = json.dumps({"error": error}).encode("ascii")
    base = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(data)))
    await send({"type": "http.response.start", "status": status, "headers": [*base, *headers]})
    await send({"type": "http.response.body", "body": data})


def _replay(body: bytes, receive: Receive) -> Receive:
    """First what was read, then the client itself: vLLM waits there for `http.disconnect` and cancels the request in the engine."""
    delivered = False

    async def replayed() -> Message:
        nonlocal delivered
        if delivered:
            return await receive()
        delivered = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _telling(send: Send, outcome: _Outcome, gate: Gate) -> Send:
    """Adds to the answer which class the request had and what admission said; while draining, also that the connection ends."""

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [
                *message.get("headers", ()),
                (CLASS_RESPONSE_HEADER.encode(), (outcome.klass or DEFAULT_CLASS).encode("utf-8", "replace")),
                (OUTCOME_RESPONSE_HEADER.encode(), outcome.name.encode()),
            ]
            if gate.draining:
                # The client's next request must find another pod.
                headers = [*(pair for pair in headers if pair[0].lower() != b"connection"), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return telling


def _path(scope: Scope) -> str:
    """The path as the router sees it."""
    path, root = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _headers(scope: Scope) -> dict[str, str]:
    """Header values as text: UTF-8 where possible, else Latin-1. Of a header that comes twice the first one counts, as in vLLM."""
    return {name.decode("latin-1").lower(): _text(value) for name, value in reversed(scope["headers"])}


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _declared_bytes(headers: dict[str, str]) -> int | None:
    value = headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 18 else None


def _without_priority_header(scope: Scope) -> Scope:
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() != PRIORITY_HEADER.encode()]}

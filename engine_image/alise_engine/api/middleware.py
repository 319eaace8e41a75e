"""ASGI middleware in vLLM's API server: authentication, limits, admission and rank. Pure ASGI, so that streams stay streams.

    any request                where there are API keys: 401 without one, but for probes (`routes.needs_key`)
    a request that generates   read within its limits, described, counted, asked about, and carried out under a ticket (`stamping.py`)
    any other with a body      read within the same limits
    everything else            untouched

Bodies reach vLLM byte for byte: rank, job id and hint are not in them. What vLLM would refuse is refused by vLLM, in its own words. A
scheduler that is dead, slow or of another version costs the order of requests, never a request; API keys and limits are enforced all the
same. `endpoint.py` adds this before vLLM adds its own middleware, so that it runs inside vLLM's own API-key check, if there is one.
"""

import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

from alise_contract.describe import Description, Endpoint
from alise_contract.names import CLASS_RESPONSE_HEADER, DEFAULT_CLASS, OUTCOME_RESPONSE_HEADER, PRIORITY_HEADER, REQUEST_ID_HEADER

from ..wire.stamp import NEUTRAL_PRIORITY, Stamp
from .admission import Admitted, Ask, Decision, FailedOpen, Rejected, RejectReason
from .asgi import (
    App,
    Message,
    Receive,
    Scope,
    Send,
    close_web_socket,
    declared_bytes,
    headers_of,
    path_of,
    replayed,
    send_error,
    without_header,
)
from .body import MAX_PARSE_SECONDS, BodyLimits, Disconnected, Refused, max_marks, max_text_bytes, read
from .identity import Caller, request_id, slo_ttft_ms
from .outcomes import ADMISSION_REFUSALS, ADMITTED, BODY_REFUSALS, DISCONNECTED, FAILED_OPEN, NEUTRAL, UNAUTHORIZED, Outcome
from .parsing import Busy, Parsed
from .routes import FORMS, Route, endpoint_of, needs_key, route_of
from .stamping import CURRENT, Ticket
from .traces.record import Trace

# Another pod, if there is one, answers at once.
DRAINING: Final = Rejected(RejectReason.DRAINING, "this replica is draining; try again", 1)
_WRONG_KEY: Final = "this request needs an API key: send it as `Authorization: Bearer KEY` or as `x-api-key: KEY`"


class Gate(Protocol):
    """What the middleware needs from the rest of the process; `engine_api.EngineApi` in the server."""

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
        """Returns the caller; None if there are API keys and the request has none of them."""
        ...

    def cache_salt(self, caller: Caller) -> str: ...
    def full(self, caller: Caller) -> Rejected | None:
        """Returns why no further request of this caller may wait now; None if one may."""
        ...

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
        """Notes that the HTTP answer is complete, or that its client has gone."""
        ...

    def seen(self, klass: str, outcome: str) -> None:
        """Counts a request that generates, or was refused."""
        ...

    def begin_trace(self, job_id: str, client_id: str, path: str, headers: dict[str, str], caller: Caller) -> Trace | None:
        """Begins the trace of a request; None if traces are off."""

    def end_trace(self, trace: Trace, outcome: str, status: int) -> None:
        """Notes the end of a request with a trace. `status` is 0 if it has no answer."""

    def passed_through(self, reason: str) -> None: ...


@dataclass(slots=True)
class _Fate:
    """The id, the class and the outcome of a request, for the answer's headers and the metric."""

    klass: str
    request_id: str = ""
    what: Outcome = NEUTRAL
    # HTTP status of the answer; 0: it has none yet.
    status: int = 0


@dataclass(frozen=True, slots=True)
class _Request:
    """An HTTP request or a WebSocket, and the caller that it belongs to."""

    scope: Scope
    receive: Receive
    send: Send
    path: str
    headers: dict[str, str]
    caller: Caller
    # Its own id, which no other request has, and the one that its client gave it; empty: none.
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    client_id: str = ""
    # None: traces are off.
    trace: Trace | None = None

    @property
    def is_traced(self) -> bool:
        return self.trace is not None and bool(self.trace.job_id)


class AliseMiddleware:
    def __init__(self, app: App, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path, headers = path_of(scope), headers_of(scope)
        method = scope.get("method", "GET")
        # 1. May this client ask at all?
        guarded = needs_key(method, path, self._gate.guards_metrics)
        caller = self._gate.caller(headers) if guarded else Caller()
        if caller is None:
            self._gate.seen("", UNAUTHORIZED.name)
            await _unauthorized(scope, send)
            return
        client_id = request_id(headers)
        # vLLM builds its ids from the client's, which the engine then reports with every change: one that is refused must not get there.
        scope = scope if client_id else without_header(scope, REQUEST_ID_HEADER)
        request = _Request(scope, receive, send, path, headers, caller, client_id=client_id)
        route = Route.GENERATES if scope["type"] == "websocket" else route_of(method, path)
        if route is Route.GENERATES and (trace := self._gate.begin_trace(request.job_id, client_id, path, headers, caller)) is not None:
            request = replace(request, trace=trace)
        if scope["type"] == "websocket":
            await self._web_socket(request)
            return
        match route:
            case Route.GENERATES:
                await self._generate(request)
            case Route.UNREAD:
                await self._app(scope, receive, send)
            case _:
                await self._pass_on(request, route)

    async def _pass_on(self, request: _Request, route: Route) -> None:
        """A route that does not generate: vLLM parses its body on the event loop that serves every request."""
        most = max_text_bytes(self._gate.max_model_len) if route is Route.TOKENIZES else self._gate.max_json_bytes
        try:
            body = await self._body(request, most)
        except Disconnected:
            return
        with self._gate.text_work(request.caller) as has_room:
            if route is Route.TOKENIZES and isinstance(body, bytes) and not has_room(len(body)):
                body = Refused(429, "too much text is being tokenized at the same time; send some of it later")
            if isinstance(body, Refused):
                self._gate.seen("", BODY_REFUSALS[body.status].name)
                await _refuse_body(request.send, body)
                return
            await self._app(request.scope, replayed(body, request.receive), request.send)

    async def _web_socket(self, request: _Request) -> None:
        """Speech comes in and text goes out while it does; the connection counts as one request and has the neutral rank."""
        fate = _Fate(request.caller.klass)
        try:
            ask = Ask(request.job_id, Description(Endpoint.OTHER), request.caller, request_id=request.client_id, traced=request.is_traced)
            decision = DRAINING if self._gate.refusing else await self._gate.decide(ask)
            if isinstance(decision, Rejected):
                fate.what = refusal = ADMISSION_REFUSALS[decision.reason]
                await close_web_socket(request.send, refusal, decision.message)
                return
            fate.what = _outcome_of(decision, Endpoint.OTHER)
            with self._gate.open():
                await self._carry_out(request, decision, request.scope, request.receive)
        finally:
            self._seen(request, fate)

    async def _generate(self, request: _Request) -> None:
        fate = _Fate(request.caller.klass, request.client_id or request.job_id)
        request = replace(request, send=_telling(request.send, fate, self._gate))
        try:
            # 2. Read the body, within its limits. A drain does not wait for a request whose body is incomplete.
            body = DRAINING if self._gate.refusing else await self._body(request, self._gate.max_json_bytes)
            if isinstance(body, bytes) and self._gate.refusing:
                # The drain began while the body was on its way.
                body = DRAINING
            if isinstance(body, Refused | Rejected):
                await _refuse(request.send, body, fate)
                return
            with self._gate.open():
                await self._answer(request, body, fate)
        except Disconnected:
            fate.what = DISCONNECTED
        finally:
            self._seen(request, fate)

    def _seen(self, request: _Request, fate: _Fate) -> None:
        self._gate.seen(request.caller.klass, fate.what.name)
        if request.trace is not None:
            self._gate.end_trace(request.trace, fate.what.name, fate.status)

    async def _answer(self, request: _Request, body: bytes, fate: _Fate) -> None:
        # 3. Is there room? Asked before the body is parsed, so that a flood costs little.
        description: Description | Refused | Rejected | None = self._gate.full(request.caller)
        # 4. What does it ask for?
        if description is None:
            description = await self._described(request.path, body)
        if isinstance(description, Refused | Rejected):
            await _refuse(request.send, description, fate)
            return
        # 5. May it come in, and with which rank?
        decision = await self._decide(description, request)
        if isinstance(decision, Rejected):
            await _refuse(request.send, decision, fate)
            return
        fate.what = _outcome_of(decision, description.endpoint if description is not None else Endpoint.OTHER)
        # 6. Let it through as it came.
        scope = without_header(request.scope, PRIORITY_HEADER)
        await self._carry_out(request, decision, scope, replayed(body, request.receive))

    async def _carry_out(self, request: _Request, decision: Admitted | FailedOpen | None, scope: Scope, receive: Receive) -> None:
        """Runs vLLM's handler under a ticket."""
        # The job id goes in without a scheduler too: one that comes back learns the job from Watch.
        admitted = decision if isinstance(decision, Admitted) else Admitted(NEUTRAL_PRIORITY, "")
        stamp = Stamp(request.job_id, admitted.priority, admitted.hint)
        headers = request.trace.headers if request.trace is not None else None
        ticket = Ticket(stamp, request.caller.tenant, self._gate.cache_salt(request.caller), headers)
        token = CURRENT.set(ticket)
        try:
            await self._app(scope, receive, request.send)
        finally:
            CURRENT.reset(token)
            self._gate.answered(ticket)

    async def _body(self, request: _Request, most_json: int) -> bytes | Refused:
        """Returns the body, or why it is refused. Raises Disconnected."""
        limits, most_marks = self._gate.limits, None
        if request.path not in FORMS:
            limits = BodyLimits(min(limits.max_bytes, most_json), limits.seconds)
            most_marks = max_marks(self._gate.max_model_len)
        with self._gate.upload(request.caller) as has_room:
            return await read(request.receive, declared_bytes(request.headers), limits, has_room, most_marks)

    async def _described(self, path: str, body: bytes) -> Description | Refused | Rejected | None:
        """Returns the body's description, or why it is refused; None if it is no JSON, which vLLM refuses."""
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

    async def _decide(self, description: Description | None, request: _Request) -> Decision | None:
        """Returns the decision; None if there is none to make, because vLLM answers such a request without the engine."""
        if description is None:
            self._gate.passed_through("not_json")
            return None
        if description.endpoint is Endpoint.OTHER:
            self._gate.passed_through("not_described")
        return await self._gate.decide(
            Ask(request.job_id, description, request.caller, slo_ttft_ms(request.headers), request.client_id, request.is_traced)
        )


def _outcome_of(decision: Admitted | FailedOpen | None, endpoint: Endpoint) -> Outcome:
    match decision:
        case FailedOpen():
            return FAILED_OPEN
        case Admitted() if endpoint is not Endpoint.OTHER:
            return ADMITTED
        case _:
            return NEUTRAL


async def _refuse(send: Send, refusal: Refused | Rejected, fate: _Fate) -> None:
    if isinstance(refusal, Refused):
        fate.what = BODY_REFUSALS[refusal.status]
        await _refuse_body(send, refusal)
        return
    fate.what = refused = ADMISSION_REFUSALS[refusal.reason]
    await send_error(send, refused, refusal.message, ((b"retry-after", b"%d" % refusal.retry_after_seconds),))


async def _refuse_body(send: Send, refused: Refused) -> None:
    await send_error(send, BODY_REFUSALS[refused.status], refused.message)


async def _unauthorized(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await close_web_socket(send, UNAUTHORIZED, _WRONG_KEY)
        return
    await send_error(send, UNAUTHORIZED, _WRONG_KEY)


def _telling(send: Send, fate: _Fate, gate: Gate) -> Send:
    """Adds headers with the request's id, class and outcome to the answer; while draining, also that the connection closes."""

    # No coroutine: a stream sends a message per token, and all but the first pass through.
    def telling(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            fate.status = message["status"]
            headers = [
                *message.get("headers", ()),
                (REQUEST_ID_HEADER.encode(), fate.request_id.encode()),
                (CLASS_RESPONSE_HEADER.encode(), (fate.klass or DEFAULT_CLASS).encode("utf-8", "replace")),
                (OUTCOME_RESPONSE_HEADER.encode(), fate.what.name.encode()),
            ]
            if gate.draining:
                # The client's next request must find another pod.
                headers = [*(pair for pair in headers if pair[0].lower() != b"connection"), (b"connection", b"close")]
            message = {**message, "headers": headers}
        return send(message)

    return telling

"""HTTP requests through the real middleware: headers and bodies of any content, cut anywhere, with and without API keys and a sidecar.

An input begins with a byte of flags (which server, how the body arrives), then is a request as HTTP/1 writes one: a line with method and
path, header lines, an empty line, the body. Behind the middleware is an application that hands requests to an engine as vLLM's handlers do:
it believes the client's priority and arguments, answers, streams, refuses or fails. `targets.py` lists it.
"""

import asyncio
import atexit
import base64
import contextlib
import functools
import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from alise_contract.names import pack_priority
from alise_contract.v1 import admission_pb2
from alise_engine.api.body import BodyLimits
from alise_engine.api.identity import Rules
from alise_engine.api.middleware import AliseMiddleware
from alise_engine.api.routes import METRICS_PATH, OPEN_PATHS, Route, route_of
from alise_engine.wire.stamp import NEUTRAL_PRIORITY
from tests.engine.api_fakes import admission_server
from tests.engine.middleware_server import Params, Server, serving
from tests.fuzz.bodies import BODIES
from tests.fuzz.finding import Finding, expect
from tests.fuzz.inputs import Reader

API_KEY: Final = "sk-right"
_LIMITS: Final = BodyLimits(max_bytes=2048, seconds=0.005)
# Waiting for longer than this is a finding.
_SECONDS: Final = 20.0
# Then a client goes away that sends no more of its body.
_PATIENCE_SECONDS: Final = 0.05
# What the application answers, and what the middleware may answer instead.
_STATUSES: Final = frozenset({200, 400, 401, 408, 413, 429, 503})
_NEUTRAL: Final = (NEUTRAL_PRIORITY, b"")
_HEADERS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-_.!#$%&'*+^`|~")
_NO_KEYS, _KEYS, _NO_KEYS_AND_SIDECAR, _KEYS_AND_SIDECAR = range(4)
_ARRIVES_IN_PIECES, _CLIENT_GOES, _WEBSOCKET = 4, 8, 16
# Two bits, so that few inputs take time.
_BODY_STOPS: Final = 96


class HandlerError(Exception):
    """The application failed, as vLLM's handlers may."""


@dataclass
class _Client:
    """The ASGI server's side of one request, and what came back."""

    flags: int
    parts: list[bytes]
    sent: list[dict[str, Any]] = field(default_factory=list)
    _gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> dict[str, Any]:
        if self.parts:
            part = self.parts.pop(0)
            if self.flags & _CLIENT_GOES and not self.parts:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": bool(self.parts) or _stops(self.flags)}
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._gone.wait(), _PATIENCE_SECONDS)
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))
        if message.get("body"):
            # It has seen enough: a stream ends with its client.
            self._gone.set()


@dataclass
class _World:
    """The four servers and the loop they run in; started once."""

    runner: asyncio.Runner
    servers: list[Server]
    # Priority and hint that the sidecar gave to each job of this input.
    admitted: dict[str, tuple[int, bytes]]
    cleanup: contextlib.AsyncExitStack

    def close(self) -> None:
        self.runner.run(self.cleanup.aclose())
        self.runner.close()


def target(data: bytes) -> None:
    world = _world()
    reader = Reader(data)
    flags = reader.byte()
    scope, body = _request(reader.rest(), flags)
    server = world.servers[flags % len(world.servers)]
    server.engine.clear()
    world.admitted.clear()
    client = _Client(flags, _parts(body, flags))
    guarded = flags % 4 in (_KEYS, _KEYS_AND_SIDECAR)
    try:
        world.runner.run(asyncio.wait_for(server.app(scope, client.receive, client.send), _SECONDS))
    except HandlerError:
        pass
    except TimeoutError:
        raise Finding(f"no answer within {_SECONDS} s") from None
    _check_answer(scope, client)
    _check_engine(world, server, scope, guarded)
    _check_counts(server)


def _request(data: bytes, flags: int) -> tuple[dict[str, Any], bytes]:
    """As uvicorn makes a scope of it: names in lower case, no line breaks within values."""
    head, _, body = data.partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, path = first.partition(b" ")
    headers = [(name.strip().lower(), value.strip(b" \t\r\0")) for name, _, value in (line.partition(b":") for line in lines)]
    scope = {
        "type": "websocket" if flags & _WEBSOCKET else "http",
        "method": method.decode("latin-1"),
        "path": path.decode("utf-8", "replace"),
        "headers": [(name, value) for name, value in headers if name and set(name) <= _HEADERS],
        "query_string": b"",
        "root_path": "",
    }
    if flags & _WEBSOCKET:
        del scope["method"]
    return scope, body


def _parts(body: bytes, flags: int) -> list[bytes]:
    size = 7 if flags & _ARRIVES_IN_PIECES else len(body) + 1
    return [body[at : at + size] for at in range(0, len(body), size)] or [b""]


def _stops(flags: int) -> bool:
    """Whether the rest of the body never comes."""
    return flags & _BODY_STOPS == _BODY_STOPS


def _check_answer(scope: dict[str, Any], client: _Client) -> None:
    """Checks that the answer is complete and well formed, unless the client has gone."""
    if scope["type"] == "websocket":
        expect(len(client.sent) == 1 and client.sent[0]["type"] in ("websocket.close", "websocket.accept"), f"{client.sent}")
        return
    if not client.sent:
        waits = _stops(client.flags) and not client.flags & _CLIENT_GOES and route_of(scope["method"], scope["path"]) is Route.GENERATES
        expect(not waits, "a body that does not come is waited for without end")
        return
    start, *rest = client.sent
    expect(start["type"] == "http.response.start", f"the answer begins with {start['type']}")
    expect(start["status"] in _STATUSES, f"status {start['status']}")
    for name, value in start["headers"]:
        expect(not set(name + value) & set(b"\r\n\0"), f"a header breaks the line: {name!r}: {value!r}")
    expect(all(message["type"] == "http.response.body" for message in rest), "something other than the body follows")


def _check_engine(world: _World, server: Server, scope: dict[str, Any], guarded: bool) -> None:
    if guarded and not _has_key(scope) and not _is_open(scope):
        expect(not server.engine, f"without an API key {scope.get('method')} {scope['path']} reached the engine")
    for request in server.engine:
        stamp, ours = request.stamp, {name for name in request.extra_args if str(name).startswith("alise_")}
        if stamp is None:
            expect(not ours, f"arguments of a client's under our names: {ours}")
            expect(request.priority == NEUTRAL_PRIORITY, f"priority {request.priority} without a job")
            continue
        expect(request.priority == stamp.priority, f"priority {request.priority} beside a stamp of {stamp.priority}")
        # Neutral where the sidecar did not answer in time.
        said = {world.admitted.get(stamp.job_id, _NEUTRAL), _NEUTRAL}
        expect((stamp.priority, base64.b64decode(stamp.hint)) in said, f"stamped {stamp}; the sidecar said {said}")


def _check_counts(server: Server) -> None:
    expect(server.api.report().open_requests == 0, "a request counts as open after its answer")
    found = server.registry.restricted_registry(["alise_engine_pending_requests"])
    [pending] = [sample.value for metric in found.collect() for sample in metric.samples]
    expect(pending == 0, f"{pending:.0f} requests count as waiting after their answer")


def _has_key(scope: dict[str, Any]) -> bool:
    return any(name in (b"authorization", b"x-api-key") and API_KEY.encode() in value for name, value in scope["headers"])


def _is_open(scope: dict[str, Any]) -> bool:
    """What needs no key in vLLM's application does not generate there; the application here generates everywhere."""
    path = scope["path"]
    return scope.get("method") == "OPTIONS" or path in OPEN_PATHS or path == METRICS_PATH or path.startswith(METRICS_PATH + "/")


@functools.cache
def _world() -> _World:
    runner, cleanup = asyncio.Runner(), contextlib.AsyncExitStack()
    admitted: dict[str, tuple[int, bytes]] = {}
    servers = runner.run(_start(cleanup, admitted))
    world = _World(runner, servers, admitted, cleanup)
    atexit.register(world.close)
    return world


async def _start(cleanup: contextlib.AsyncExitStack, admitted: dict[str, tuple[int, bytes]]) -> list[Server]:
    async def decide(request: admission_pb2.AdmitRequest) -> admission_pb2.AdmitResponse:
        if request.max_tokens == 13:
            return admission_pb2.AdmitResponse(rejected=admission_pb2.Rejected(message="\r\nno"))
        priority, hint = pack_priority(request.n % 256 - 128, request.max_tokens % 1000), request.job_id[:8].encode()
        admitted[request.job_id] = (priority, hint)
        return admission_pb2.AdmitResponse(admitted=admission_pb2.Admitted(priority=priority, hint=hint))

    servers = []
    for number in (_NO_KEYS, _KEYS, _NO_KEYS_AND_SIDECAR, _KEYS_AND_SIDECAR):
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="alise-fuzz-")))
        (folder / "keys").mkdir()
        (folder / "keys" / "team-a").write_text(API_KEY)
        if number in (_NO_KEYS_AND_SIDECAR, _KEYS_AND_SIDECAR):
            sidecar = await cleanup.enter_async_context(admission_server(folder / "admission.sock"))
            sidecar.answer = decide
        has_keys = number in (_KEYS, _KEYS_AND_SIDECAR)
        servers.append(
            await cleanup.enter_async_context(
                serving(
                    folder,
                    limits=_LIMITS,
                    max_pending=2,
                    auth_dir=folder / "keys" if has_keys else None,
                    rules=Rules(frozenset({"gold"}), {"team-a": "gold"}, trust_headers=number == _NO_KEYS_AND_SIDECAR),
                    isolates_prefix_cache=has_keys,
                )
            )
        )
        servers[-1].app = AliseMiddleware(_application(servers[-1]), servers[-1].api)
    return servers


def _application(server: Server) -> Any:
    """Hands requests to the engine as vLLM's handlers do, whatever the path."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await server.add_request("r", {}, Params(None), priority=-99)
            await send({"type": "websocket.accept"})
            return
        body = await _json(receive)
        if body is None:
            await _answer(send, 400, b"vLLM's own")
            return
        theirs, priority = body.get("vllm_xargs"), body.get("priority", 0)
        for _ in range(2 if body.get("n") == 2 else 1):
            await server.add_request("r", {"type": "token"}, Params(theirs if isinstance(theirs, dict) else None), priority=priority)
        if body.get("echo") == "fail":
            raise HandlerError
        if body.get("stream") is True:
            await _stream(receive, send)
        else:
            await _answer(send, 200, b"{}")

    return application


async def _json(receive: Any) -> dict[str, Any] | None:
    data = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        data += message["body"]
        if not message["more_body"]:
            break
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


async def _answer(send: Any, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})


async def _stream(receive: Any, send: Any) -> None:
    """Chunks until the client has gone, as Starlette does it."""
    await send({"type": "http.response.start", "status": 200, "headers": []})

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"data: x\n\n"
            await asyncio.sleep(0)

    async def write() -> None:
        async for chunk in chunks():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})

    writing = asyncio.create_task(write())
    try:
        await receive()
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def seeds() -> list[bytes]:
    def request(flags: int, first: str, body: bytes, *headers: str) -> bytes:
        return bytes([flags]) + "\n".join([first, *headers, "", ""]).encode() + body

    key, json_type = f"authorization: Bearer {API_KEY}", "content-type: application/json"
    found = []
    for number, (path, body) in enumerate(BODIES):
        data = json.dumps(body).encode()
        found.append(request(number % 4, f"POST {path}", data, json_type, key, f"content-length: {len(data)}"))
    chat = json.dumps(BODIES[7][1]).encode()
    forged = json.dumps(BODIES[2][1]).encode()
    found += [
        request(_KEYS, "POST /v1/completions", forged, json_type, "authorization: Bearer wrong"),
        request(_KEYS, "POST /invocations", forged, json_type, "x-api-key: wrong"),
        request(_KEYS_AND_SIDECAR, "POST /v1/completions", forged, f"x-api-key: {API_KEY}", "x-vllm-priority: -99"),
        request(_KEYS, "GET /health", b""),
        request(_KEYS, "OPTIONS /v1/chat/completions", chat, "origin: http://somewhere"),
        request(_KEYS, "GET /metrics", b""),
        request(_NO_KEYS | _ARRIVES_IN_PIECES, "POST /v1/chat/completions", chat, json_type),
        request(_NO_KEYS | _ARRIVES_IN_PIECES | _CLIENT_GOES, "POST /v1/chat/completions", chat, json_type),
        request(_NO_KEYS | _BODY_STOPS, "POST /v1/chat/completions", chat, json_type),
        request(_KEYS | _WEBSOCKET, "GET /v1/realtime", b""),
        request(_NO_KEYS | _WEBSOCKET, "GET /v1/realtime", b""),
        request(_NO_KEYS, "POST /v1/completions", b'{"prompt": "' + b"a" * 3000 + b'"}', json_type),
        request(_NO_KEYS, "POST /v1/completions", b"{}", "content-length: 999999999999"),
        request(_NO_KEYS, "POST /v1/completions", b"[" * 2000, json_type),
        request(_NO_KEYS, "POST /v1/audio/transcriptions", b"--x\r\n", "content-type: multipart/form-data; boundary=x"),
        request(_NO_KEYS_AND_SIDECAR, "POST /v1/completions", b'{"prompt": "a", "max_tokens": 13}', "x-llm-d-inference-objective: gold"),
        request(_NO_KEYS_AND_SIDECAR, "POST /v1/completions", b'{"prompt": "a", "echo": "fail"}', "x-llm-d-inference-fairness-id: a"),
        request(_NO_KEYS_AND_SIDECAR, "POST /v1/responses/x/cancel", b'{"priority": -99}', "x-slo-ttft-ms: 5"),
    ]
    return found

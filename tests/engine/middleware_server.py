"""An application behind the middleware, without vLLM and without a socket; it hands requests to an engine as vLLM does.

`test_middleware.py`, the tests beside it and `tests/fuzz/requests.py` send requests to it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.trace import Tracer
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from alise_contract.names import POD_KEY_BYTES
from alise_engine.api.engine_api import ApiSettings, EngineApi
from alise_engine.api.metrics import Metrics
from alise_engine.api.middleware import AliseMiddleware
from alise_engine.wire.stamp import Stamp, read_stamp, stamp_key
from tests.engine.api_fakes import Exchange, FakeCore

CHAT = "/v1/chat/completions"
# Generous: this machine may be busy, and nothing here is about 50 ms.
DEADLINE_SECONDS = 5.0
POD_KEY = b"p" * POD_KEY_BYTES


def chat(**more: Any) -> dict[str, Any]:
    """The body of a small chat."""
    return {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **more}


@dataclass
class Params:
    """Sampling parameters, as far as the stamp is concerned."""

    extra_args: dict[str, Any] | None


@dataclass(frozen=True)
class EngineRequest:
    """What the engine's client was handed."""

    prompt: Any
    extra_args: dict[str, Any]
    priority: int
    trace_headers: dict[str, str] | None = None

    @property
    def stamp(self) -> Stamp | None:
        """As EngineCore reads it."""
        return read_stamp(self.extra_args, stamp_key(POD_KEY))


@dataclass
class Server:
    """The application behind the middleware, and what it saw."""

    api: EngineApi
    registry: CollectorRegistry
    core: FakeCore
    app: Any = None
    add_request: Any = None
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    engine: list[EngineRequest] = field(default_factory=list)
    streams_open: int = 0
    # Answers wait for it: requests that are open and have not begun.
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    async def post(self, body: Any, path: str = CHAT, headers: dict[str, str] | None = None, method: str = "POST") -> Exchange:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        exchange = Exchange(path, data, headers or {}, method, chunk_bytes=1 << 16)
        await self.app(exchange.scope, exchange.receive, exchange.send)
        return exchange

    def seen(self) -> EngineRequest:
        """The newest engine request."""
        return self.engine[-1]

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"alise_engine_{name}", labels) or 0.0

    async def _add_request(self, request_id: str, prompt: Any, params: Params, priority: int = 0, trace_headers: Any = None) -> None:
        self.engine.append(EngineRequest(prompt, params.extra_args or {}, priority, trace_headers))

    async def _generate(self, request: Request) -> Response:
        data = await request.body()
        self.bodies.append(data)
        self.headers.append(dict(request.headers))
        try:
            body = json.loads(data)
            streaming = body.get("stream") is True
        except (ValueError, AttributeError, RecursionError):
            return JSONResponse({"error": {"message": "vLLM's own", "code": 400}}, status_code=400)
        if body.get("refused"):
            return JSONResponse({"error": {"message": "vLLM's own", "code": 400}}, status_code=400)
        priority = int(request.headers.get("x-vllm-priority", body.get("priority", 0)))
        prompt = {"type": "token", "prompt_token_ids": [1], **({"cache_salt": salt} if (salt := body.get("cache_salt")) else {})}
        await self.add_request("r", prompt, Params(body.get("vllm_xargs")), priority=priority)
        await self.may_answer.wait()
        return StreamingResponse(self._endless()) if streaming else JSONResponse({"ok": True})

    async def _endless(self) -> AsyncIterator[bytes]:
        self.streams_open += 1
        try:
            while True:
                yield b"data: x\n\n"
                await asyncio.sleep(0.001)
        finally:
            self.streams_open -= 1


@asynccontextmanager
async def serving(
    directory: Path,
    deadline_seconds: float = DEADLINE_SECONDS,
    text_only: bool = False,
    names: Sequence[str] = (),
    tracer: Tracer | None = None,
    **settings: Any,
) -> AsyncIterator[Server]:
    """`settings` are fields of ApiSettings."""
    registry, core = CollectorRegistry(), FakeCore()
    api = EngineApi(ApiSettings(directory, deadline_seconds, "0.32.0", POD_KEY, **settings), Metrics(registry))
    await api.connect(core, text_only, names, tracer)
    server = Server(api, registry, core)
    server.may_answer.set()
    server.add_request = api.stamping(server._add_request)
    routes = [Route("/{path:path}", server._generate, methods=["GET", "POST"])]
    server.app = AliseMiddleware(Starlette(routes=routes), api)
    try:
        yield server
    finally:
        await api.stop()

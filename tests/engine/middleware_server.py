"""An application behind the middleware, without vLLM and without a socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from alise_engine.api import ApiSettings, EngineApi
from alise_engine.metrics import Metrics
from alise_engine.middleware import MAX_BODY_BYTES, AliseMiddleware
from tests.engine.api_fakes import Exchange, FakeCore

CHAT = "/v1/chat/completions"
# Generous: this machine may be busy, and nothing here is about 50 ms.
DEADLINE_SECONDS = 5.0


@dataclass
class Server:
    """The application behind the middleware, and what it saw."""

    api: EngineApi
    registry: CollectorRegistry
    app: Any
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    streams_open: int = 0

    async def post(self, body: Any, path: str = CHAT, headers: dict[str, str] | None = None, method: str = "POST") -> Exchange:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        exchange = Exchange(path, data, headers or {}, method, chunk_bytes=8)
        await self.app(exchange.scope, exchange.receive, exchange.send)
        return exchange

    def seen(self) -> Any:
        return json.loads(self.bodies[-1])

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"alise_engine_{name}", labels) or 0.0

    async def _generate(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        try:
            streaming = json.loads(body).get("stream") is True
        except (ValueError, AttributeError, RecursionError):
            return JSONResponse({"error": {"message": "vLLM's own", "code": 400}}, status_code=400)
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
    directory: Path, deadline_seconds: float = DEADLINE_SECONDS, max_body_bytes: int = MAX_BODY_BYTES
) -> AsyncIterator[Server]:
    registry = CollectorRegistry()
    api = EngineApi(ApiSettings(directory, deadline_seconds, "0.32.0"), Metrics(registry))
    await api.connect(FakeCore(), lambda model: model == "tiny")
    server = Server(api, registry, None)
    routes = [Route("/{path:path}", server._generate, methods=["GET", "POST"])]
    server.app = AliseMiddleware(Starlette(routes=routes), api, max_body_bytes)
    try:
        yield server
    finally:
        await api.stop()

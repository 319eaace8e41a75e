"""HTTP for people and probes: /metrics (Prometheus), /healthz, /statusz (JSON)."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_STALE_SECONDS: Final = 5.0


def make_app(registry: CollectorRegistry, status: Callable[[], dict[str, Any]]) -> web.Application:
    """The application. Healthy means that the dispatcher turned lately; being disconnected is no illness."""

    async def metrics(_: web.Request) -> web.Response:
        # In a thread: rendering takes milliseconds, which an Admit should not wait for.
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        idle = float(status()["seconds_since_turn"])
        if idle > _STALE_SECONDS:
            return web.Response(status=503, text=f"the dispatcher has not turned for {idle:.1f} s\n")
        return web.Response(text="ok\n")

    async def statusz(_: web.Request) -> web.Response:
        return web.json_response(status())

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/statusz", statusz)
    return app


class HttpServer:
    """Serves an application on an address."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(app, access_log=None)
        self._host, self._port = host, port

    async def start(self) -> int:
        """Listens; returns the port. Raises OSError when it is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

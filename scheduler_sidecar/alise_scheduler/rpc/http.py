"""HTTP for people and probes: /metrics (Prometheus), /healthz, and /statusz (JSON).

`run.py` serves it. It reads the metrics' registry and the dispatcher's status, and changes nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

_STALE_SECONDS: Final = 5.0


def make_app(registry: CollectorRegistry, status: Callable[[], dict[str, Any]]) -> web.Application:
    """The application. It is healthy if the dispatcher turned lately, even without a connection to the engine."""

    async def metrics(_: web.Request) -> web.Response:
        # In a thread, because rendering takes milliseconds for which no admission should wait.
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
    """Serves an application on one address."""

    def __init__(self, app: web.Application, host: str, port: int) -> None:
        self._runner = web.AppRunner(app, access_log=None)
        self._host, self._port = host, port

    async def start(self) -> int:
        """Listens and returns the port. Raises OSError if the port is taken."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        await self._runner.cleanup()

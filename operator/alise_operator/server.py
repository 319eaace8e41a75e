"""Serves /metrics for Prometheus and /healthz for the kubelet, by default on port 9500. __main__.py runs it for the life of the process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from alise_operator import metrics


@asynccontextmanager
async def serving(unhealthy: Callable[[], str | None], host: str, port: int) -> AsyncIterator[int]:
    """Serves while the block runs, and yields the port, which differs from `port` if that is 0.

    `unhealthy` returns why this process should be restarted, None if it works.
    """

    async def show_metrics(_: web.Request) -> web.Response:
        # In a thread, because rendering thousands of resources takes long enough to delay a renewal of the lease.
        body = await asyncio.to_thread(generate_latest, metrics.REGISTRY)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def show_health(_: web.Request) -> web.Response:
        problem = unhealthy()
        return web.Response(text=(problem or "ok") + "\n", status=503 if problem else 200)

    site = web.Application()
    site.add_routes([web.get("/metrics", show_metrics), web.get("/healthz", show_health)])
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()

"""HTTP of the picker: /metrics, /healthz, and /waiting for the operator, which wakes a resource whose requests are held.

`__main__.py` starts it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from alise_contract.names import WAITING_PATH
from alise_picker.metrics import Metrics
from alise_picker.picker import Picker
from alise_picker.replicas import Replicas


@asynccontextmanager
async def serving(picker: Picker, replicas: Replicas, metrics: Metrics, resource: str, host: str, port: int) -> AsyncIterator[int]:
    """Serves while the block runs, and yields the port, which differs from `port` if that is 0."""

    async def show_metrics(_: web.Request) -> web.Response:
        picker.count_states()
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def show_health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if replicas.listed else web.Response(status=503, text="the replicas are not listed yet\n")

    async def show_waiting(_: web.Request) -> web.Response:
        return web.json_response({resource: picker.waiting})

    site = web.Application()
    site.add_routes([web.get("/metrics", show_metrics), web.get("/healthz", show_health), web.get(WAITING_PATH, show_waiting)])
    runner = web.AppRunner(site, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()

"""Serves the page on the loopback of the operator's pod. Only `kubectl port-forward` leads there, and so the rights of its namespace.

It answers GET on three kinds of paths and changes nothing. Every answer has a deadline and forbids scripts, frames and other hosts. A
request whose Host header is not this machine's is refused: it comes from a website whose name resolves to the loopback. `__main__.py`
starts it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from alise_contract import page
from alise_operator.errors import ApplyError, ClusterError, Gone
from alise_operator.page import render
from alise_operator.page.read import Reader

log = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
# For all that one page reads.
READ_SECONDS: Final = 10.0
# Pages that are read at once; others wait for their turn within the deadline.
_AT_A_TIME: Final = 4
_STATIC: Final = {"page.css": "text/css", "icon.svg": "image/svg+xml"}


@asynccontextmanager
async def serving_page(reader: Reader, port: int) -> AsyncIterator[int | None]:
    """Serves while the block runs, and yields the port. Yields None if the port is taken: the operator works without its page."""
    runner = web.AppRunner(application(reader), access_log=None)
    await runner.setup()
    try:
        yield await _listening(runner, port)
    finally:
        await runner.cleanup()


async def _listening(runner: web.AppRunner, port: int) -> int | None:
    try:
        await web.TCPSite(runner, HOST, port).start()
    except OSError as error:
        log.warning("the page is not served", extra={"port": port, "error": str(error)})
        return None
    found = int(runner.addresses[0][1])
    log.info("page served", extra={"port": found})
    return found


def application(reader: Reader, read_seconds: float = READ_SECONDS) -> web.Application:
    """Returns the application. `read_seconds`: the deadline of a page."""
    turn = asyncio.Semaphore(_AT_A_TIME)

    def told(request: web.Request, status: int, title: str, text: str) -> web.Response:
        return _html(render.message(title, text, reader.time(), render.pause_of(request.query)), status)

    async def read(request: web.Request, reading: Callable[[], Awaitable[str]]) -> web.Response:
        try:
            async with asyncio.timeout(read_seconds), turn:
                return _html(await reading())
        except Gone:
            return told(request, 404, "There is no such AliseEngine", "It may have been deleted, or this operator does not manage it.")
        except TimeoutError:
            text = f"The cluster did not answer within {read_seconds:.0f} s. The page tries again."
            return told(request, 504, "The cluster does not answer", text)
        except (ApplyError, ClusterError) as error:
            return told(request, 502, "The cluster could not be read", f"{error}. The page tries again.")
        except Exception:
            # A bug with one AliseEngine must not take the page of the others.
            log.exception("a page failed unexpectedly", extra={"path": request.path})
            return told(request, 500, "This page failed", "Please report this bug with the operator's log.")

    async def overview(request: web.Request) -> web.Response:
        namespace = request.query.get("namespace", "")
        if namespace and page.NAMESPACE.fullmatch(namespace) is None:
            return told(request, 404, "There is no such namespace", "The list of all AliseEngines leads to every page.")

        async def reading() -> str:
            return render.overview(await reader.overview(namespace), reader.time(), render.pause_of(request.query))

        return await read(request, reading)

    async def engine(request: web.Request) -> web.Response:
        match = page.ENGINE_PATH.fullmatch(request.path)
        if match is None:
            return told(request, 404, "There is no such page", "The list of all AliseEngines leads to every page.")

        async def reading() -> str:
            return render.engine(await reader.engine(match[1], match[2]), reader.time(), render.pause_of(request.query))

        return await read(request, reading)

    @web.middleware
    async def guarded(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if not page.is_local(request.headers.get("Host", "")):
            answer: web.StreamResponse = told(request, 421, "This page is for this machine", "Open it as http://127.0.0.1 or localhost.")
        else:
            try:
                answer = await handler(request)
            except web.HTTPException as error:
                answer = told(request, error.status, "There is no such page", "The list of all AliseEngines leads to every page.")
        answer.headers.update(page.HEADERS)
        return answer

    site = web.Application(middlewares=[guarded], client_max_size=1024)
    site.router.add_get("/", overview, allow_head=False)
    site.router.add_get("/engines/{namespace}/{name}", engine, allow_head=False)
    for name, kind in _STATIC.items():
        site.router.add_get(f"/{name}", _file(name, kind), allow_head=False)
    return site


def _file(name: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=render.static(name), content_type=kind, charset="utf-8")

    return answer


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")

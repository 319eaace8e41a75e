"""HTTP on a unix socket for people in the pod: `/requests`, and `/requests/ID`, which says why a request waits. JSON, read-only.

`run.py` serves it. The metrics' port is open to every pod of the cluster, and ids of requests and names of tenants are not for all of them.
This socket is in the pod's own folder with mode 0600: only `kubectl exec`, and so the namespace's RBAC, leads to it (`commands.py`).
"""

import os
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

List = Callable[[int], dict[str, Any]]
Explain = Callable[[str], dict[str, Any]]

DEFAULT_LIMIT: Final = 100


def make_requests_app(requests: List, explain: Explain) -> web.Application:
    """The application. `requests` is called with the largest number to list, `explain` with an id."""

    async def listed(request: web.Request) -> web.Response:
        text = request.query.get("limit", str(DEFAULT_LIMIT))
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            return web.json_response({"error": f"limit={text}: expected a whole number, for example {DEFAULT_LIMIT}"}, status=400)
        return web.json_response(requests(int(text)))

    async def explained(request: web.Request) -> web.Response:
        return web.json_response(explain(request.match_info["id"]))

    app = web.Application()
    app.router.add_get("/requests", listed)
    app.router.add_get("/requests/{id}", explained)
    return app


class SocketServer:
    """Serves an application on a unix socket that only this user may open."""

    def __init__(self, app: web.Application, path: str) -> None:
        self._runner = web.AppRunner(app, access_log=None)
        self._path = path

    async def start(self) -> None:
        """Listens, replacing the socket that a dead process left. Raises OSError."""
        await self._runner.setup()
        mask = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, self._path).start()
        finally:
            os.umask(mask)

    async def stop(self) -> None:
        await self._runner.cleanup()

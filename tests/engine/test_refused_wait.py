"""A sidecar's process beside the middleware: in overload a request that would wait too long is refused in words, the others are served."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from alise_engine.wire import calls as core
from alise_engine.wire import terms
from tests.engine.api_fakes import Exchange, eventually, make_row
from tests.engine.middleware_server import Server, chat, serving

pytestmark = pytest.mark.process

SLOTS = 16
BOUND_SECONDS = 10
PATIENCE_SECONDS = 60.0


@asynccontextmanager
async def sidecar(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {
        **os.environ, "ALISE_SOCKET_DIR": str(directory), "ALISE_HTTP_PORT": "0", "ALISE_HTTP_HOST": "127.0.0.1",
        "ALISE_PREDICTOR": "light", "ALISE_MAX_WAIT_SECONDS": str(BOUND_SECONDS),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "alise_scheduler", "run", env=env, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def overloaded(directory: Path) -> AsyncIterator[tuple[Server, asyncio.subprocess.Process]]:
    """All slots are taken by long requests, and three times as many wait. Answers are held back."""
    async with serving(directory) as server, sidecar(directory) as process, asyncio.timeout(PATIENCE_SECONDS):
        await eventually(lambda: server.api.report().sidecar.connected, "the sidecar has connected", PATIENCE_SECONDS)
        server.may_answer.clear()
        held = [asyncio.create_task(server.post(chat(max_tokens=1500))) for _ in range(4 * SLOTS)]
        try:
            await eventually(lambda: len(server.engine) + sum(task.done() for task in held) == len(held), "all have been decided")
            for number, request in enumerate(server.engine):
                assert request.stamp is not None
                phase = terms.PHASE_RUNNING if number < SLOTS else terms.PHASE_WAITING
                server.core.put(make_row(f"r{number}", job_id=request.stamp.job_id, phase=phase, max_tokens=1500))
            await eventually(lambda: ranked(server) >= jobs(server), "the sidecar knows the queue", PATIENCE_SECONDS)
            yield server, process
        finally:
            server.may_answer.set()
            await asyncio.gather(*held)


def jobs(server: Server) -> set[str]:
    return {row.job_id for row in server.core.live.values()}


def ranked(server: Server) -> set[str]:
    """The jobs that plans have named so far."""
    return {rank.job_id for call in server.core.calls if isinstance(call, core.ApplyCall) for rank in call.ranks}


async def answered(server: Server, max_tokens: int) -> Exchange:
    """What a client gets: refused at once, or let through to an engine that may answer."""
    before = len(server.engine)
    task = asyncio.create_task(server.post(chat(max_tokens=max_tokens)))
    await eventually(lambda: len(server.engine) > before or task.done(), "it has been decided")
    server.may_answer.set()
    exchange = await task
    server.may_answer.clear()
    return exchange


async def test_in_overload_a_long_request_gets_429_and_a_short_one_is_answered(tmp_path: Path) -> None:
    async with overloaded(tmp_path) as (server, _):
        long, short = await answered(server, 1500), await answered(server, 1)
        assert (long.status, short.status) == (429, 200)
        assert long.response_headers["x-alise-outcome"] == "wait_too_long"
        error, again = long.json()["error"], long.response_headers["retry-after"]
        assert (error["type"], error["code"]) == ("RateLimitError", 429)
        assert error["message"].startswith("this request would wait about ")
        assert f"longer than {BOUND_SECONDS} s, because " in error["message"]
        assert f" requests are ahead of it; send it again in {again} s, or now with a smaller max_tokens" in error["message"]
        assert server.metric("http_requests_total", **{"class": "default", "outcome": "wait_too_long"}) >= 1


async def test_a_dead_sidecar_refuses_no_request_for_its_wait(tmp_path: Path) -> None:
    async with overloaded(tmp_path) as (server, process):
        assert (await answered(server, 1500)).status == 429
        process.kill()
        await process.wait()
        assert (await answered(server, 1500)).status == 200

"""Large bodies are parsed in a process that may end or not start at any time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import pytest

from alise_contract.describe import Endpoint
from alise_engine.api import parsing
from alise_engine.api.parsing import INLINE_BYTES, Busy, Parsed, Parser

LARGE = b" " * (INLINE_BYTES + 1)


class FakePool(Executor):
    """Keeps what it is given until the test answers."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        return self.futures[-1]


class PoolWithoutRoom(Executor):
    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        raise BlockingIOError(11, "Resource temporarily unavailable")


def begin(parser: Parser) -> "asyncio.Task[Parsed]":
    return asyncio.create_task(parser.parse(Endpoint.OTHER, LARGE))


async def test_bodies_of_a_process_that_ended_leave_the_new_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[FakePool] = []

    def opened(*_: Any, **__: Any) -> FakePool:
        pools.append(FakePool())
        return pools[-1]

    monkeypatch.setattr(parsing, "ProcessPoolExecutor", opened)
    parser = Parser()
    first, second = begin(parser), begin(parser)
    await asyncio.sleep(0)
    pools[0].futures[0].set_exception(BrokenProcessPool("killed"))
    with pytest.raises(Busy):
        await first
    third = begin(parser)
    await asyncio.sleep(0)
    pools[0].futures[1].set_exception(BrokenProcessPool("killed"))
    with pytest.raises(Busy):
        await second
    fourth = begin(parser)
    await asyncio.sleep(0)
    for future in pools[1].futures:
        future.set_result(Parsed(None))
    assert (await third, await fourth, len(pools)) == (Parsed(None), Parsed(None), 2)


async def test_a_process_that_does_not_start_makes_large_bodies_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "ProcessPoolExecutor", lambda *args, **kwargs: PoolWithoutRoom())
    with pytest.raises(Busy):
        await Parser().parse(Endpoint.OTHER, LARGE)

"""Draining over the control socket: nothing is cut, nothing new gets in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from alise_contract.names import CONTRACT_VERSION
from alise_contract.v1 import engine_control_pb2 as pb
from alise_engine.wire import calls as core
from alise_engine.wire import terms
from tests.engine.api_fakes import eventually, make_finished, make_row
from tests.engine.control_client import TIMEOUT_SECONDS, Engine, refused, running


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as engine:
        yield engine


async def test_an_idle_engine_drains_at_once(engine: Engine) -> None:
    response = await engine.drain()
    assert (response.finished, response.open_requests) == (True, 0)
    assert engine.api.refusing is True
    assert engine.api.report().draining is True
    assert engine.metric("draining") == 1


async def test_it_accepts_for_a_while_and_then_refuses(engine: Engine) -> None:
    task = asyncio.create_task(engine.drain(accept_seconds=0.3))
    await eventually(lambda: engine.api.draining, "the drain began")
    while_accepting = engine.api.refusing
    await task
    assert (while_accepting, engine.api.refusing) == (False, True)


async def test_it_waits_for_the_open_requests(engine: Engine) -> None:
    with engine.api.open():
        task = asyncio.create_task(engine.drain())
        await eventually(lambda: engine.api.refusing, "new requests are refused")
        while_open = task.done()
    assert while_open is False
    assert (await task).finished is True


async def test_it_waits_for_a_background_response_that_outlives_its_http_request(engine: Engine) -> None:
    engine.core.put(make_row("background", phase=terms.PHASE_OFFLOADED))
    task = asyncio.create_task(engine.drain())
    await eventually(lambda: engine.core.count(core.PollCall) > 2, "the engine was asked what it still has")
    while_alive = task.done()
    engine.core.end(make_finished("background"))
    assert while_alive is False
    assert (await task).finished is True


async def test_it_says_what_is_left_when_its_time_is_over(engine: Engine) -> None:
    with engine.api.open():
        response = await engine.drain(timeout_seconds=0.1)
    assert (response.finished, response.open_requests) == (False, 1)


async def test_an_engine_that_is_gone_does_not_hold_the_drain(engine: Engine) -> None:
    engine.core.down = True
    assert (await engine.drain()).finished is True


async def test_an_engine_that_does_not_answer_does_not_prolong_the_drain(engine: Engine) -> None:
    engine.core.put(make_row("long", phase=terms.PHASE_RUNNING))
    engine.core.stuck = True
    response = await engine.drain(timeout_seconds=0.3)
    assert (response.finished, response.open_requests) == (False, 0)


async def test_the_watcher_is_told_when_new_work_is_refused(engine: Engine) -> None:
    watching = engine.watch()
    await watching.snapshot()
    await engine.drain()
    assert (await watching.update()).draining is True
    assert (await engine.watch().snapshot()).draining is True


async def test_a_caller_that_gives_up_does_not_undo_the_drain(engine: Engine) -> None:
    with engine.api.open():
        request = pb.DrainRequest(contract_version=CONTRACT_VERSION, accept_seconds=0.1, timeout_seconds=5)
        call = engine.stub.Drain(request, timeout=TIMEOUT_SECONDS)
        await eventually(lambda: engine.api.draining, "the drain began")
        call.cancel()
        await eventually(lambda: engine.api.refusing, "new requests are refused all the same")


@pytest.mark.parametrize("seconds", [pytest.param(-1.0, id="negative"), pytest.param(float("nan"), id="no number")])
async def test_times_that_are_none_are_refused(engine: Engine, seconds: float) -> None:
    assert await refused(engine.drain(accept_seconds=seconds)) == grpc.StatusCode.INVALID_ARGUMENT
    assert engine.api.draining is False

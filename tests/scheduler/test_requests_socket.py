"""The socket for people, and the commands that ask over it."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from alise_scheduler import commands
from alise_scheduler.commands import AskError
from alise_scheduler.core.reports import EngineUpdate, Phase
from alise_scheduler.explain import explain, list_requests
from alise_scheduler.rpc.requests import SocketServer, make_requests_app
from alise_scheduler.state import State
from tests.scheduler.builders import make_ask, make_request, make_state, opened


@pytest.fixture
def state() -> State:
    """One request that runs, and one with an unusual id that waits for it."""
    state = opened(make_state(), max_num_seqs=1)
    for job, phase, name in (("a", Phase.RUNNING, ""), ("b", Phase.WAITING, "?id=1&x/../#u")):
        state.admit(make_ask(job, request_id=name, model="tiny"), 0.0)
        state.update(EngineUpdate((make_request(job, phase),)), 0.1)
    return state


@pytest_asyncio.fixture
async def path(state: State, tmp_path: Path) -> AsyncIterator[str]:
    socket = tmp_path / "requests.sock"
    app = make_requests_app(lambda limit: list_requests(state, 5.0, limit), lambda name: explain(state, name, 5.0))
    server = SocketServer(app, str(socket))
    await server.start()
    try:
        yield str(socket)
    finally:
        await server.stop()


async def test_only_the_pods_own_user_may_open_the_socket(path: str) -> None:
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600  # noqa: ASYNC240


async def test_top_is_a_table_by_rank(path: str) -> None:
    text = await asyncio.to_thread(commands.top, path, 100, False)
    first, headings, *rows = text.splitlines()
    assert "2 requests, 1 of them run on 1 slots" in first
    assert headings.split()[:4] == ["#", "REQUEST", "PHASE", "CLASS"]
    assert [row.split()[1:3] for row in rows] == [["a", "running"], ["?id=1&x/../#u", "waiting"]]
    assert [row.split()[-1] for row in rows] == ["-", "arrival"]


async def test_a_table_that_is_cut_says_how_many_are_missing(path: str) -> None:
    text = await asyncio.to_thread(commands.top, path, 1, False)
    assert text.splitlines()[-1] == "1 more are not shown; see --limit."


async def test_explain_finds_any_id_that_a_client_may_choose(path: str) -> None:
    text, found = await asyncio.to_thread(commands.explain, path, "?id=1&x/../#u", False)
    assert found
    assert "Request ?id=1&x/../#u (job b, model tiny, class default)\n  It has waited 5.0 s for its first step.\n" in text


async def test_an_unknown_request_is_said_to_be_unknown_and_where_to_look(path: str) -> None:
    text, found = await asyncio.to_thread(commands.explain, path, "req-unknown", False)
    assert not found
    assert "Another pod may have served it" in text


async def test_json_is_what_the_socket_answers(path: str) -> None:
    listed: Any = json.loads(await asyncio.to_thread(commands.top, path, 100, True))
    text, _ = await asyncio.to_thread(commands.explain, path, "b", True)
    assert ([one["job"] for one in listed["requests"]], json.loads(text)["matches"][0]["phase"]) == (["a", "b"], "waiting")


@pytest.mark.parametrize("limit", [-1, 10**12])
async def test_a_limit_that_is_none_is_refused_with_an_example(path: str, limit: int) -> None:
    with pytest.raises(AskError, match=r"expected a whole number, for example 100"):
        await asyncio.to_thread(commands.top, path, limit, False)


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(AskError, match=r"does not answer on .*requests\.sock.*see its log"):
        commands.top(str(tmp_path / "requests.sock"), 100, False)


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_an_id_that_cannot_be_one_is_refused(name: str) -> None:
    with pytest.raises(AskError, match="1 to 256 characters"):
        commands.explain("unused", name, False)

"""The table is whole, and playing it finds what differs and who died, between two small HTTP servers."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from alise_engine.api.routes import DESCRIBED, Route, route_of
from tests.surface.requests import SURFACE
from tests.surface.row import COMPLETIONS, GENERATING, ID_BEFORE, RESPONSES, Mark, Request
from tests.surface.run import ALIVE, OURS, STOCK, Result, Server, play

Reply = Callable[[str, Any], tuple[int, Any]]


def test_every_row_has_a_sentence_of_its_own() -> None:
    assert len(SURFACE) == len({request.id for request in SURFACE}) >= 80


@pytest.mark.parametrize("path", sorted({*GENERATING, *DESCRIBED}))
def test_every_route_that_generates_has_a_row(path: str) -> None:
    assert (route_of("POST", path), any(request.path == path for request in SURFACE)) == (Route.GENERATES, True)


def test_what_a_row_continues_comes_before_it() -> None:
    at = {request.id: number for number, request in enumerate(SURFACE)}
    assert all(at[request.follows] < at[request.id] for request in SURFACE if request.follows)


def test_what_stock_dies_of_comes_last() -> None:
    marked = [Mark.STOCK_DIES in request.marks for request in SURFACE]
    assert marked == sorted(marked)


# --- playing --------------------------------------------------------------------------------------------------------------------------


class Pretend:
    """A server that is healthy until it answers 500."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.dead = False
        self.asked: list[tuple[str, Any]] = []

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        if self.dead:
            return 503, {}
        if path == "/health" or body == ALIVE:
            return 200, {}
        self.asked.append((path, body))
        status, content = self.reply(path, body)
        self.dead = status == 500
        return status, content

    def revive(self) -> None:
        self.dead = False


@contextmanager
def serving(pretend: Pretend) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            status, content = pretend.answer(self.path, json.loads(body) if body else None)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def compared(stock: Reply, ours: Reply, *requests: Request, revives: bool = True) -> tuple[Result, Pretend]:
    theirs, own = Pretend(stock), Pretend(ours)
    with serving(theirs) as stock_url, serving(own) as our_url:
        revive = own.revive if revives else None
        return play(Server(STOCK, stock_url, theirs.revive), Server(OURS, our_url, revive), requests), own


def good(path: str, body: Any) -> tuple[int, Any]:
    return 200, {"id": "given", "text": "abc"}


def fatal(path: str, body: Any) -> tuple[int, Any]:
    return 500, {}


A_ROW = Request("a row", COMPLETIONS, {"prompt": "a"})
ANOTHER = Request("another row", COMPLETIONS, {"prompt": "b"})
DEADLY = Request("a deadly row", COMPLETIONS, {"prompt": "c"}, marks=frozenset({Mark.STOCK_DIES}))


def test_alike_answers_are_compared_and_nothing_more() -> None:
    result, _ = compared(good, good, A_ROW, ANOTHER)
    assert (result.compared, result.unlike, result.deaths) == (("a row", "another row"), (), ())


def test_an_unlike_answer_is_kept_with_both_sides() -> None:
    result, _ = compared(good, lambda path, body: (200, {"id": "given", "text": "abd"}), A_ROW)
    (unlike,) = result.unlike
    assert unlike.stock is not None
    assert (unlike.stock.json()["text"], unlike.ours.json()["text"]) == ("abc", "abd")


def test_an_engine_of_ours_that_dies_is_counted_and_the_rest_goes_on() -> None:
    def ours(path: str, body: Any) -> tuple[int, Any]:
        return fatal(path, body) if body["prompt"] == "a" else good(path, body)

    result, _ = compared(good, ours, A_ROW, ANOTHER)
    assert ([death.request.id for death in result.engine_deaths], result.compared) == (["a row"], ("a row", "another row"))


def test_an_engine_that_does_not_come_back_ends_the_run() -> None:
    result, _ = compared(good, fatal, A_ROW, ANOTHER, revives=False)
    assert (len(result.engine_deaths), result.compared, bool(result.ended_early)) == (1, (), True)


def test_a_death_of_stock_is_none_of_ours() -> None:
    result, _ = compared(fatal, good, A_ROW)
    assert ([death.server for death in result.deaths], result.engine_deaths) == ([STOCK], ())


def test_what_stock_dies_of_is_sent_to_ours_alone() -> None:
    result, ours = compared(fatal, good, DEADLY)
    assert (result.not_compared, result.compared, result.deaths, len(ours.asked)) == ({"a deadly row": 200}, (), (), 1)


def test_what_stock_dies_of_has_to_be_answered_by_ours() -> None:
    result, _ = compared(good, fatal, DEADLY)
    assert ([unlike.request.id for unlike in result.unlike], len(result.engine_deaths)) == (["a deadly row"], 1)


def test_a_row_continues_the_answer_of_an_earlier_one() -> None:
    later = Request("the rest", f"{RESPONSES}/{ID_BEFORE}", {"previous_response_id": ID_BEFORE}, follows="a row")
    _, ours = compared(good, good, A_ROW, later)
    assert ours.asked[-1] == (f"{RESPONSES}/given", {"previous_response_id": "given"})


def test_a_row_is_polled_until_it_is_done() -> None:
    states = iter(["queued", "in_progress", "completed"] * 2)
    polled = Request("a poll", RESPONSES, method="GET", marks=frozenset({Mark.POLL}))
    result, ours = compared(lambda path, body: (200, {"status": "completed"}), lambda path, body: (200, {"status": next(states)}), polled)
    assert (result.unlike, len(ours.asked)) == ((), 3)

"""Plays the table against stock vLLM and against ours, one request at a time, and reports where they differ and which engine died.

    python -m tests.surface                                              starts both on this machine
    python -m tests.surface http://127.0.0.1:8001 http://127.0.0.1:8002  stock and ours

Requests are sent one at a time: the other requests of a batch can change the last bits of a result, and with them the text.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from tests.surface.compare import Answer, Difference, differences, reasons, unwanted
from tests.surface.requests import SURFACE
from tests.surface.row import COMPLETIONS, ID_BEFORE, JSON_TYPE, MODEL, Mark, Request

REQUEST_SECONDS: Final = 60.0
ALIVE_SECONDS: Final = 30.0
# A response in the background, of a few tokens.
POLL_SECONDS: Final = 30.0
POLL_EVERY_SECONDS: Final = 0.05
IN_PROGRESS: Final = frozenset({"queued", "in_progress"})
# How the tokens of a stream are split into chunks depends on timing, and rarely the order of its events does too.
ATTEMPTS: Final = 2
# A connection per request: a server closes idle ones, and a request on one of those would look like a death.
ONE_CONNECTION_EACH: Final = httpx.Limits(max_keepalive_connections=0)
ALIVE: Final = {"model": MODEL, "prompt": [72], "max_tokens": 1, "temperature": 0}


class ServerDown(Exception):
    """A server died and could not be restarted; the message says which."""


@dataclass(frozen=True, slots=True)
class Death:
    """An engine that did not survive a row."""

    server: str
    request: Request


@dataclass(slots=True)
class Server:
    """One of the two servers. `revive` restarts it or waits until it is restarted; without it the run ends when the engine dies."""

    name: str
    url: str
    revive: Callable[[], None] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    # By row: the id of the answer to it.
    ids: dict[str, str] = field(default_factory=dict)

    def ask(self, client: httpx.Client, request: Request) -> Answer:
        """Send a row and return the answer; a connection that breaks is an answer with status 0."""
        before = self.ids.get(request.follows, "id-of-nothing")
        content = request.content()
        if content is not None:
            content = content.replace(ID_BEFORE.encode(), before.encode())
        headers = {**self.headers, **({"content-type": request.content_type} if content is not None and request.content_type else {})}
        url = self.url + request.path.replace(ID_BEFORE, before)
        deadline = time.monotonic() + POLL_SECONDS
        while True:
            answer = _ask(client, request.method, url, content, headers)
            document = answer.json() if Mark.POLL in request.marks else None
            if not isinstance(document, dict) or document.get("status") not in IN_PROGRESS or time.monotonic() > deadline:
                break
            time.sleep(POLL_EVERY_SECONDS)
        self.ids[request.id] = answer.id()
        return answer

    def alive(self, client: httpx.Client) -> bool:
        """Return whether it is healthy and its engine generates a token."""
        headers = {**self.headers, "content-type": JSON_TYPE}
        token = _ask(client, "POST", self.url + COMPLETIONS, json.dumps(ALIVE).encode(), headers, ALIVE_SECONDS)
        return token.status == 200 and _ask(client, "GET", self.url + "/health", None, self.headers, ALIVE_SECONDS).status == 200

    def survived(self, client: httpx.Client, request: Request, deaths: list[Death]) -> bool:
        """Return whether its engine is alive; if not, record the death and restart it. Raises ServerDown when that fails."""
        if self.alive(client):
            return True
        deaths.append(Death(self.name, request))
        if self.revive is None:
            raise ServerDown(f"{self.name} at {self.url} is dead, and this run cannot restart it")
        self.revive()
        return False


def _ask(
    client: httpx.Client, method: str, url: str, content: bytes | None, headers: dict[str, str], timeout_seconds: float = REQUEST_SECONDS
) -> Answer:
    try:
        response = client.request(method, url, content=content, headers=headers, timeout=timeout_seconds)
    except httpx.HTTPError as error:
        return Answer(0, {}, b"", f"{type(error).__name__}: {error}")
    return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content)


@dataclass(frozen=True, slots=True)
class Unlike:
    """A row with a difference that `compare.WANTED` does not explain."""

    request: Request
    differences: tuple[Difference, ...]
    stock: Answer | None
    ours: Answer

    def __str__(self) -> str:
        return "\n".join([self.request.id, *(f"    {difference}" for difference in self.differences)])


@dataclass(frozen=True, slots=True)
class Result:
    compared: tuple[str, ...]
    unlike: tuple[Unlike, ...]
    # Rows that stock does not survive, with the status of our answer.
    not_compared: dict[str, int]
    deaths: tuple[Death, ...]
    # By reason: rows with a difference that is on purpose.
    wanted: Mapping[str, tuple[str, ...]]
    # Why not all rows were played; '' when they were.
    ended_early: str = ""

    @property
    def engine_deaths(self) -> tuple[Death, ...]:
        """Those of ours."""
        return tuple(death for death in self.deaths if death.server == OURS)

    def figures(self) -> dict[str, int]:
        return {
            "requests_compared": len(self.compared),
            "requests_unlike_stock": len(self.unlike),
            "requests_stock_dies_of": len(self.not_compared),
            "engine_deaths": len(self.engine_deaths),
        }

    def report(self) -> str:
        lines = [f"{name}: {number}" for name, number in self.figures().items()]
        lines += [f"{death.server} died of: {death.request.id}" for death in self.deaths]
        lines += [f"on purpose in {len(rows)} rows: {reason}" for reason, rows in self.wanted.items()]
        lines += [f"ended early: {self.ended_early}"] if self.ended_early else []
        return "\n".join([*lines, *(str(unlike) for unlike in self.unlike)])


STOCK: Final = "stock"
OURS: Final = "ours"


def play(
    stock: Server, ours: Server, requests: Sequence[Request] = SURFACE, progress: Callable[[Request], None] = lambda request: None
) -> Result:
    """Send every row to both and compare; end early when a dead server cannot be restarted."""
    compared: list[str] = []
    unlike: list[Unlike] = []
    deaths: list[Death] = []
    wanted: dict[str, tuple[str, ...]] = {}
    not_compared: dict[str, int] = {}
    ended_early = ""
    try:
        with httpx.Client(limits=ONE_CONNECTION_EACH) as client:
            for request in requests:
                progress(request)
                if Mark.STOCK_DIES in request.marks:
                    answer = ours.ask(client, request)
                    not_compared[request.id] = answer.status
                    if not 200 <= answer.status < 500:
                        difference = Difference(
                            "status", "an answer below 500, since stock dies of it", f"{answer.status} {answer.failure}"
                        )
                        unlike.append(Unlike(request, (difference,), None, answer))
                    ours.survived(client, request, deaths)
                    continue
                for _ in range(ATTEMPTS):
                    theirs, own = stock.ask(client, request), ours.ask(client, request)
                    found = differences(theirs, own)
                    unexplained = unwanted(request, found)
                    survived = [server.survived(client, request, deaths) for server in (stock, ours)]
                    if not unexplained or not all(survived) or not request.streams:
                        break
                compared.append(request.id)
                if unexplained:
                    unlike.append(Unlike(request, unexplained, theirs, own))
                for reason in reasons(request, found):
                    wanted[reason] = (*wanted.get(reason, ()), request.id)
    except ServerDown as error:
        ended_early = str(error)
    return Result(tuple(compared), tuple(unlike), not_compared, tuple(deaths), wanted, ended_early)

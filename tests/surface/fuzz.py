"""Sends requests that schemathesis generates from our /openapi.json: none may get a 5xx that stock does not give, or end the engine.

Each operation gets three kinds of bodies: valid ones, invalid ones, and a good request of the table with a few fields replaced by valid
values. The third kind gets further into the server, which rejects most of the others at their first field. The seed is fixed and lengths
are bounded, so that every run sends the same requests and takes about as long. `__main__.py` and `tests/e2e/keyed/test_request_surface.py`
run it.
"""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode

from tests.surface.compare import Answer
from tests.surface.requests import SURFACE
from tests.surface.row import GENERATING, JSON_TYPE, Request
from tests.surface.run import ONE_CONNECTION_EACH, OURS, Death, Server

SEED: Final = 12
# Examples of each kind, for a route that generates and for another.
EXAMPLES: Final = 12
OTHER_EXAMPLES: Final = 4
MAX_TOKENS: Final = 16
MAX_CHOICES: Final = 4
# Above this vLLM refuses.
_MOST_CHOICES: Final = 16_384
_LENGTHS: Final = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"})


@dataclass(frozen=True, slots=True)
class Worse:
    """A request that ours answers with 5xx and stock does not."""

    request: Request
    stock: Answer
    ours: Answer

    def __str__(self) -> str:
        sent = (self.request.content() or b"").decode(errors="replace")
        said = self.ours.failure or self.ours.body.decode(errors="replace")
        return f"{self.request.method} {self.request.path} {sent[:500]}: stock {self.stock.status}, ours {self.ours.status} {said[:300]}"


@dataclass(frozen=True, slots=True)
class Fuzzed:
    # By operation: how often each status was answered.
    statuses: Mapping[str, Mapping[int, int]]
    worse: tuple[Worse, ...]
    deaths: tuple[Death, ...]

    @property
    def engine_deaths(self) -> tuple[Death, ...]:
        """Those of ours."""
        return tuple(death for death in self.deaths if death.server == OURS)

    @property
    def requests(self) -> int:
        return sum(sum(counts.values()) for counts in self.statuses.values())

    def report(self) -> str:
        lines = [f"requests: {self.requests}", *(f"{name}: {dict(counts)}" for name, counts in self.statuses.items())]
        lines += [
            f"{death.server} died of: {death.request.method} {death.request.path} {(death.request.content() or b'')[:2000]!r}"
            for death in self.deaths
        ]
        return "\n".join([*lines, *map(str, self.worse)])


def fuzz(stock: Server, ours: Server, examples: int = EXAMPLES, other_examples: int = OTHER_EXAMPLES) -> Fuzzed:
    """Send generated requests to ours, and those that it answers with 5xx also to stock. Raises ServerDown."""
    statuses: dict[str, dict[int, int]] = {}
    worse: list[Worse] = []
    deaths: list[Death] = []
    with httpx.Client(limits=ONE_CONNECTION_EACH) as client:
        document = client.get(f"{ours.url}/openapi.json", headers=ours.headers, timeout=60).raise_for_status().json()

        def send(name: str, request: Request) -> None:
            answer = ours.ask(client, request)
            counts = statuses.setdefault(name, {})
            counts[answer.status] = counts.get(answer.status, 0) + 1
            if 200 <= answer.status < 500:
                return
            theirs = stock.ask(client, request)
            if 200 <= theirs.status < 500:
                worse.append(Worse(request, theirs, answer))
            for server in (stock, ours):
                server.survived(client, request, deaths)

        for name, path, strategies in _operations(document):
            count = examples if path in GENERATING else other_examples
            for strategy in strategies:
                for request in drawn(strategy, count):
                    send(name, request)
            ours.survived(client, Request(f"the last of {name}", path), deaths)
    return Fuzzed(statuses, tuple(worse), tuple(deaths))


def drawn(strategy: st.SearchStrategy[Request], examples: int) -> list[Request]:
    """Return the examples that the fixed seed gives, without duplicates."""
    found: list[Request] = []

    @settings(max_examples=examples, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @seed(SEED)
    @given(strategy)
    def draw(request: Request) -> None:
        found.append(request)

    # An operation without parameters has exactly one valid request and no invalid one.
    with contextlib.suppress(Unsatisfiable):
        draw()
    return list(dict.fromkeys(found))


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, tuple[st.SearchStrategy[Request], ...]]]:
    """Each operation's name, path and the strategies of the requests to it."""
    whole, few = schemathesis.openapi.from_dict(document), schemathesis.openapi.from_dict(of_few_fields(document))
    goods = {row.path: row.body for row in reversed(SURFACE) if isinstance(row.body, dict)}
    for path, methods in document["paths"].items():
        for method in methods:
            operation = whole[path][method]
            strategies = [
                operation.as_strategy(generation_mode=mode).map(as_request) for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
            ]
            if path in goods and operation.body:
                strategies.append(few[path][method].as_strategy().map(_laid_over(goods[path])))
            yield f"{method.upper()} {path}", path, tuple(strategies)


def _laid_over(good: Mapping[str, Any]) -> "Callable[[Case[Any]], Request]":
    def request(case: "Case[Any]") -> Request:
        if isinstance(case.body, dict):
            case.body = {**good, **case.body}
        return as_request(case)

    return request


def of_few_fields(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with request bodies limited to known fields, all optional, to be merged into a good body."""
    changed = copy.deepcopy(document)
    for methods in changed["paths"].values():
        for operation in methods.values():
            reference = operation.get("requestBody", {}).get("content", {}).get(JSON_TYPE, {}).get("schema", {}).get("$ref", "")
            if reference:
                schema = changed["components"]["schemas"][reference.rpartition("/")[2]]
                schema |= {"additionalProperties": False, "required": [], "minProperties": 1}
    return changed


def as_request(case: "Case[Any]") -> Request:
    """Return the generated case as a row with bounded lengths, which can be sent to both servers."""
    query = f"?{urlencode(case.query, doseq=True)}" if case.query else ""
    body = case.body if isinstance(case.body, bytes) else None
    if isinstance(case.body, dict | list | str | int | float | bool) or case.body is None:
        body = json.dumps(bounded(case.body)).encode()
    return Request(
        f"{case.method} {case.path}",
        case.formatted_path + query,
        body,
        method=case.method.upper(),
        content_type=case.media_type or JSON_TYPE,
    )


def bounded(value: Any) -> Any:
    """Return the JSON with small lengths and numbers of choices; values that vLLM rejects are kept."""
    if isinstance(value, list):
        return [bounded(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _bounded_field(key, inner) for key, inner in value.items()}


def _bounded_field(key: str, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        return bounded(value)
    if key in _LENGTHS:
        return min(value, MAX_TOKENS)
    return MAX_CHOICES if key in ("n", "best_of") and MAX_CHOICES < value <= _MOST_CHOICES else value

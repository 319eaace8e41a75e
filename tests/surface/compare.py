"""Compares the answers of two servers to the same request; pure.

Equal means: the same status, content type and header names; the same JSON with the same keys, texts, token ids, finish reasons and errors.
What differs between two answers of the same server is ignored: ids, times, and how tokens are split into the chunks of a stream
(tokens that are ready together are sent in one). A stream is therefore compared by its result: the order of its kinds of events,
the keys of each kind, and the texts, lists and last numbers that the events add up to. `run.py` and `fuzz.py` call it.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.surface.row import Request

# Names of headers that every server sets for itself.
_HOP_HEADERS: Final = frozenset({"date", "server", "content-length", "transfer-encoding", "connection", "keep-alive"})
_ID_KEYS: Final = frozenset({"id", "request_id"})
_TIME_KEYS: Final = frozenset({"created", "created_at", "completed_at", "expires_at"})
# A hash of the server's configuration, in which ours has a scheduler and a connector.
_CONFIGURATION_KEYS: Final = frozenset({"system_fingerprint"})
# They depend on what was asked before.
_HISTORY_KEYS: Final = frozenset({"cached_tokens", "cache_write_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"})
# It counts chunks.
_CHUNK_KEYS: Final = frozenset({"sequence_number"})
# Strings that arrive in pieces.
_TEXT_KEYS: Final = frozenset({"text", "content", "delta", "arguments", "partial_json", "thinking", "reasoning", "refusal"})
_IN_MESSAGES: Final = re.compile(r"0x[0-9a-f]{6,}|\b[0-9a-f]{8}-[0-9a-f-]{27}\b|[0-9a-f]{16,}")
# Log probabilities of the same model on the same machine; float32 in another order of additions.
_TOLERANCE: Final = 1e-3
_SHOWN_CHARS: Final = 400


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: there was none, and `failure` says why."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    failure: str = ""

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip()

    def id(self) -> str:
        """The id that the server gave it, or ''."""
        found = self.json()
        return str(found.get("id", "")) if isinstance(found, dict) else ""

    def json(self) -> Any:
        """The body, or None when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Difference:
    where: str
    stock: str
    ours: str

    def __str__(self) -> str:
        return f"{self.where}: stock {self.stock}, ours {self.ours}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An intended difference. All three patterns match as a whole: a row's id, where it differs, and what ours answers there."""

    reason: str
    where: str
    rows: str = ".*"
    ours: str = ".*"

    def covers(self, request: Request, difference: Difference) -> bool:
        pairs = ((self.rows, request.id), (self.where, difference.where), (self.ours, difference.ours))
        return all(re.fullmatch(pattern, text, re.DOTALL) for pattern, text in pairs)


WANTED: Final = (
    Wanted("response headers name the request's id, class and outcome", where=r"header (x-request-id|x-alise-(class|outcome))"),
    Wanted("a body above the size limit is refused", where="status", rows="completion padded .*", ours="413 .*"),
    Wanted(
        "JSON with too many values is refused: parsing it would block all other requests",
        where="status",
        rows=".* of a million .*",
        ours="413 .*",
    ),
)


def unwanted(request: Request, found: Sequence[Difference], wanted: Sequence[Wanted] = WANTED) -> tuple[Difference, ...]:
    """Return the differences that are not intended."""
    return tuple(difference for difference in found if not any(reason.covers(request, difference) for reason in wanted))


def reasons(request: Request, found: Sequence[Difference], wanted: Sequence[Wanted] = WANTED) -> tuple[str, ...]:
    """Return the reasons of the intended differences."""
    return tuple(one.reason for one in wanted if any(one.covers(request, difference) for difference in found))


def differences(stock: Answer, ours: Answer) -> tuple[Difference, ...]:
    """Return how the answers differ. When the status differs, that is the only difference: the rest follows from it."""
    if stock.status != ours.status:
        return (Difference("status", _outcome(stock), _outcome(ours)),)
    return (*_headers(stock, ours), *_bodies(stock, ours))


def _outcome(answer: Answer) -> str:
    return f"{answer.status} {answer.failure or _shown(answer.body.decode(errors='replace'))}"


def _headers(stock: Answer, ours: Answer) -> Iterator[Difference]:
    if stock.content_type != ours.content_type:
        yield Difference("content type", stock.content_type, ours.content_type)
    for name in sorted((stock.headers.keys() ^ ours.headers.keys()) - _HOP_HEADERS):
        yield Difference(f"header {name}", _shown(stock.headers.get(name)), _shown(ours.headers.get(name)))


def _bodies(stock: Answer, ours: Answer) -> Iterator[Difference]:
    if stock.content_type == ours.content_type == "text/event-stream":
        yield from _unlike("stream", fold(events(stock.body)), fold(events(ours.body)))
        return
    theirs, own = stock.json(), ours.json()
    if theirs is None and own is None:
        theirs, own = stock.body.decode(errors="replace"), ours.body.decode(errors="replace")
    yield from _unlike("body", normalized(theirs), normalized(own))


# --- values ---------------------------------------------------------------------------------------------------------------------------


def normalized(value: Any, key: str = "") -> Any:
    """Return the value with ids, times and the like replaced by placeholders."""
    if isinstance(value, dict):
        return {name: normalized(inner, name) for name, inner in value.items() if name not in _CHUNK_KEYS}
    if isinstance(value, list):
        return [normalized(inner, key) for inner in value]
    if isinstance(value, str) and key in _CONFIGURATION_KEYS:
        return "<configuration>"
    if isinstance(value, str):
        return "<id>" if value and (key in _ID_KEYS or key.endswith("_id")) else _IN_MESSAGES.sub("<id>", value)
    if isinstance(value, int | float) and key in _TIME_KEYS:
        return "<time>"
    if isinstance(value, int) and key in _HISTORY_KEYS:
        return "<history>"
    return value


def _unlike(where: str, stock: Any, ours: Any) -> Iterator[Difference]:
    if isinstance(stock, dict) and isinstance(ours, dict):
        for key in [*stock, *(key for key in ours if key not in stock)]:
            if key not in stock or key not in ours:
                yield Difference(f"{where}.{key}", _present(stock, key), _present(ours, key))
            else:
                yield from _unlike(f"{where}.{key}", stock[key], ours[key])
    elif isinstance(stock, list) and isinstance(ours, list):
        if len(stock) != len(ours):
            yield Difference(where, _shown(stock), _shown(ours))
            return
        for at, (theirs, own) in enumerate(zip(stock, ours, strict=True)):
            yield from _unlike(f"{where}[{at}]", theirs, own)
    elif not _same(stock, ours):
        yield Difference(where, _shown(stock), _shown(ours))


def _same(stock: Any, ours: Any) -> bool:
    if isinstance(stock, float) and isinstance(ours, float):
        return math.isclose(stock, ours, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) or (math.isnan(stock) and math.isnan(ours))
    return type(stock) is type(ours) and bool(stock == ours)


def _present(value: Mapping[str, Any], key: str) -> str:
    return _shown(value[key]) if key in value else "nothing"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


# --- streams --------------------------------------------------------------------------------------------------------------------------


def events(body: bytes) -> list[tuple[str, Any]]:
    """Return the server-sent events, each with its name ('' without one) and its data: JSON, or the text where it is none."""
    found = []
    for block in re.split(r"\r?\n\r?\n", body.decode(errors="replace")):
        name, data = "", []
        for line in block.splitlines():
            field, _, rest = line.partition(":")
            if field == "event":
                name = rest.strip()
            elif field == "data":
                data.append(rest.removeprefix(" "))
        if data or name:
            found.append((name, _parsed("\n".join(data))))
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def fold(stream: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the order of a stream's kinds of events, the keys of each kind, and what the events add up to."""
    order: list[str] = []
    keys: dict[str, list[str]] = {}
    sums: dict[str, Any] = {}
    for name, data in stream:
        kind = _kind(name, data)
        if not order or order[-1] != kind:
            order.append(kind)
        # Sorted: which chunk has a key first is a matter of timing too.
        keys[kind] = sorted({*keys.get(kind, ()), *_keys(data)})
        _add(sums, kind, normalized(data))
    return {"order": order, "keys": keys, "sums": sums}


def _kind(name: str, data: Any) -> str:
    """The event's name; of one without, whether it belongs to choices (usage alone does not), or its text."""
    if name:
        return name
    if not isinstance(data, dict):
        return str(data)
    if "error" in data:
        return "error"
    return "choices" if data.get("choices") else "no choices"


def _keys(data: Any, where: str = "") -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield f"{where}.{key}"
            yield from _keys(value, f"{where}.{key}")
    elif isinstance(data, list):
        for item in data:
            yield from _keys(item, f"{where}[]")


def _add(sums: dict[str, Any], where: str, value: Any, key: str = "") -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _add(sums, f"{where}.{name}", inner, name)
    elif isinstance(value, list) and key == "choices":
        for choice in value:
            _add(sums, f"{where}[{choice.get('index') if isinstance(choice, dict) else '?'}]", choice)
    elif isinstance(value, list) and value and all(isinstance(item, dict) and "index" in item for item in value):
        # Tool calls arrive in pieces too.
        for item in value:
            _add(sums, f"{where}[{item['index']}]", item)
    elif isinstance(value, list):
        sums.setdefault(where, []).extend(value)
    elif isinstance(value, str) and key in _TEXT_KEYS:
        sums[where] = sums.get(where, "") + value
    elif isinstance(value, str | bool):
        seen = sums.setdefault(where, [])
        if value not in seen:
            seen.append(value)
    elif value is not None:
        sums[where] = value

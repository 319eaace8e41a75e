"""What a hostile client sends, as bytes; light to import, because the client is a process of its own.

`case` is the id of the report that an input comes from (D: the engine dies of it, R: it claims a rank, L: it locks others out); inputs
without one are variations. `hostile_beside.py` and `hostile_client.py` read them.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from alise_contract.names import OBJECTIVE_HEADERS, PRIORITY_HEADER, TENANT_HEADERS
from tests.bench.hostile_wire import message

MODEL: Final = "tiny"
COMPLETIONS: Final = "/v1/completions"
CHAT: Final = "/v1/chat/completions"
MIB: Final = 1 << 20
# Below the limit of a body, with room for what is around the text.
LARGE_BYTES: Final = 32 * MIB - 1_000
JSON_TYPE: Final = {"content-type": "application/json"}
HELLO: Final = [{"role": "user", "content": "hello"}]
# Asks for as much as an honest client's request does.
SHORT: Final[Mapping[str, Any]] = {"model": MODEL, "prompt": "The cat", "max_tokens": 6, "temperature": 0, "ignore_eos": True}
FORGED: Final[Mapping[str, Any]] = {
    "priority": -(1 << 62),
    "vllm_xargs": {"alise_job": "x", "alise_hint": "QUwB", "alise_stamp": "-549755813888.00"},
}

Build = Callable[[int, Mapping[str, str]], bytes]
REFUSED: Final = frozenset({400})
ANSWERED: Final = frozenset({200})


@dataclass(frozen=True, slots=True)
class Input:
    """`build(number, headers)` makes the request; `expected` are the statuses that are right for it."""

    id: str
    build: Build
    expected: frozenset[int]
    case: str = ""
    connections: int = 8
    # The honest request of the same work, where the work is most of the harm; the short one otherwise.
    good: Build | None = None
    # The server waits for the rest of it: the client lets go after this long and does it again. 0: it waits for an answer.
    hold_seconds: float = 0.0
    # Also with QUICK=1.
    quick: bool = False
    # Against a pod with API keys, maxPending 10, and the honest clients' own key.
    flood: bool = False
    # An honest client on both sides: how far noise alone takes the ratio from 1.
    control: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)


def post(path: str, body: Mapping[str, Any] | list[Any] | bytes) -> Build:
    """Return a builder of the same request every time; its bytes are built once."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    made: dict[int, bytes] = {}

    def build(_: int, headers: Mapping[str, str]) -> bytes:
        # Kept for the last headers alone; they do not change in a run.
        key = hash(tuple(sorted(headers.items())))
        if key not in made:
            made.clear()
            made[key] = message("POST", path, {**JSON_TYPE, **headers}, content)
        return made[key]

    return build


GOOD: Final = post(COMPLETIONS, SHORT)


def _lazy(path: str, content: Callable[[], bytes]) -> Build:
    """As `post`, but the body is built only when it is sent."""
    held: list[Build] = []

    def build(number: int, headers: Mapping[str, str]) -> bytes:
        if not held:
            held.append(post(path, content()))
        return held[0](number, headers)

    return build


def _completion(**body: Any) -> Build:
    return post(COMPLETIONS, {**SHORT, **body})


def _large_prompt(size: int) -> bytes:
    return json.dumps({**SHORT, "prompt": ""}).encode().replace(b'"prompt": ""', b'"prompt": "' + b"a" * size + b'"')


def _unfinished(_: int, headers: Mapping[str, str]) -> bytes:
    body = json.dumps(SHORT).encode()
    return message("POST", COMPLETIONS, {**JSON_TYPE, **headers}, body[:10], declared_bytes=len(body))


def _fresh_tenant(number: int, headers: Mapping[str, str]) -> bytes:
    # Whatever the number of the request, a tenant that was not seen before.
    fresh = dict.fromkeys(TENANT_HEADERS, f"tenant-{number:09d}")
    return message("POST", COMPLETIONS, {**JSON_TYPE, **headers, **fresh}, json.dumps(SHORT).encode())


def _gold(_: int, headers: Mapping[str, str]) -> bytes:
    forged = {**dict.fromkeys(OBJECTIVE_HEADERS, "gold"), PRIORITY_HEADER: str(-(1 << 62))}
    return message("POST", COMPLETIONS, {**JSON_TYPE, **headers, **forged}, json.dumps({**SHORT, **FORGED}).encode())


def _no_http(_: int, __: Mapping[str, str]) -> bytes:
    return b"\x16\x03\x01 this is no HTTP\r\n\r\n"


_LONG: Final = [letter * 1500 for letter in "abcd"]
_PARTIAL: Final = {"prompt": _LONG, "max_tokens": 8, "temperature": 0.8}

INPUTS: Final = (
    Input("logprobs of a completion", _completion(logprobs=1), ANSWERED, "D1", quick=True),
    Input("logprobs of a chat", post(CHAT, {"model": MODEL, "messages": HELLO, "max_tokens": 6, "logprobs": True, "top_logprobs": 2}),
          ANSWERED, "D1"),
    Input("long seeded prompts", _completion(**_PARTIAL, seed=1234), ANSWERED, "D2", good=_completion(**_PARTIAL), quick=True),
    Input("a response to nothing with a rank of its own", post("/v1/responses", {
        "model": MODEL, "input": [], "instructions": "hi", "max_output_tokens": 6, **FORGED}), ANSWERED, "R1", quick=True),
    Input("a rank of its own behind 33 MiB of blanks", _lazy(
        COMPLETIONS, lambda: json.dumps({**SHORT, **FORGED}).encode() + b" " * (33 * MIB)), frozenset({413}), "R1"),
    Input("a prompt of floats with a rank of its own", _completion(prompt=[72.0, 105.0], **FORGED), frozenset({200, 400}), "R1"),
    Input("a prompt of text and numbers with a rank of its own", _completion(prompt=["72", 105], **FORGED), frozenset({200, 400}), "R1"),
    Input("a fresh tenant for every request", _fresh_tenant, ANSWERED, "R3", quick=True),
    Input("a class and a priority in headers", _gold, ANSWERED, "R3"),
    Input("Anthropic's messages", post("/v1/messages", {"model": MODEL, "messages": HELLO, "max_tokens": 6}), ANSWERED, "R4",
          good=post(CHAT, {"model": MODEL, "messages": HELLO, "max_tokens": 6})),
    Input("batches of four chats", post("/v1/chat/completions/batch", {
        "model": MODEL, "messages": [HELLO] * 4, "max_tokens": 6, "temperature": 0, "ignore_eos": True}),
        ANSWERED, "R4", good=_completion(prompt=["hello"] * 4)),
    Input("empty prompts", _completion(prompt=[""]), REFUSED, "L1", quick=True),
    Input("four thousand million samples", _completion(prompt=["a", "b"], n=4294967295), REFUSED, "L2", quick=True),
    Input("a hint of 66 MiB", _lazy(COMPLETIONS, lambda: json.dumps({
        **SHORT, "vllm_xargs": {"alise_job": "x", "alise_hint": "A" * (66 * MIB)}}).encode()), frozenset({0, 413}), "L3", quick=True),
    Input("a hint of 30 MiB", _lazy(COMPLETIONS, lambda: json.dumps({
        **SHORT, "vllm_xargs": {"alise_job": "x", "alise_hint": "A" * (30 * MIB)}}).encode()), frozenset({200, 400, 413}), "L3"),
    Input("bodies that never come", _unfinished, frozenset({0}), "L4", connections=200, hold_seconds=30.0, quick=True),
    Input("bodies that never come, again and again", _unfinished, frozenset({0}), "L4", connections=32, hold_seconds=0.1),
    Input("32 MiB of brackets", _lazy(COMPLETIONS, lambda: b"[" + b"[]," * (LARGE_BYTES // 3) + b"0]"), frozenset({413}), "L4", quick=True),
    Input("a prompt of 32 MiB", _lazy(COMPLETIONS, lambda: _large_prompt(LARGE_BYTES - 200)), frozenset({400, 413}), "L4", quick=True),
    Input("a prompt of a megabyte", _lazy(COMPLETIONS, lambda: _large_prompt(MIB)), REFUSED, "L4"),
    Input("tokenize 32 MiB", _lazy("/tokenize", lambda: _large_prompt(LARGE_BYTES - 200)), frozenset({400, 413}), "L4", quick=True),
    Input("render 32 MiB", _lazy("/v1/completions/render", lambda: _large_prompt(LARGE_BYTES - 200)), frozenset({400, 413}), "L4"),
    Input("two hundred at once", GOOD, frozenset({200, 429}), "L5", connections=200, quick=True, flood=True),
    Input("JSON that breaks off", post(COMPLETIONS, b'{"model": "tiny", "prompt": '), REFUSED, quick=True),
    Input("100,000 levels of JSON", post(COMPLETIONS, b"[" * 100_000 + b"]" * 100_000), frozenset({400, 413})),
    Input("100,000 token ids", _completion(prompt=[72] * 100_000), REFUSED),
    Input("an unknown model", _completion(model="gpt-9"), frozenset({404})),
    Input("a regex that explodes", _completion(structured_outputs={"regex": "((x{1,50}){1,50}){1,50}"}), frozenset({200, 400})),
    Input("ten thousand stop strings", _completion(stop=[f"stop {number}" for number in range(10_000)]), frozenset({200, 400})),
    Input("a chat template of its own that does not end", post(CHAT, {
        "model": MODEL, "messages": HELLO, "max_tokens": 6, "chat_template": "{% for i in range(10**9) %}{{ i }}{% endfor %}"}), REFUSED),
    Input("what is no HTTP", _no_http, REFUSED),
    *(Input(f"an honest client, compared with itself ({number})", GOOD, ANSWERED, quick=number == 1, control=True) for number in (1, 2, 3)),
)  # fmt: skip
BY_ID: Final = {one.id: one for one in INPUTS}

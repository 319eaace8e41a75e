"""Headers that claim an identity, and stamps on engine requests: neither is believed unless a key or a signature proves it.

`targets.py` lists it.
"""

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from alise_contract.names import MAX_LEVEL, MIN_LEVEL, XARG_PREFIX, pack_priority, unpack_priority
from alise_engine.api.identity import MAX_LABEL_CHARS, Caller, Keyring, Rules, caller, digest, slo_ttft_ms
from alise_engine.api.stamping import CURRENT, Ticket, stamping
from alise_engine.wire.stamp import NEUTRAL_PRIORITY, Stamp, read_stamp, stamp_key, stamped_args
from tests.fuzz.bodies import BODIES
from tests.fuzz.finding import expect
from tests.fuzz.inputs import Reader, block, encoded

_KEY: Final = stamp_key(b"p" * 32)
_API_KEY: Final = "sk-right"
_KEYRING: Final = Keyring({digest(_API_KEY): "team-a"})
_CLASSES: Final = frozenset({"gold", "größe"})
_HEADERS: Final = (
    "authorization", "x-api-key", "x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id", "x-llm-d-inference-objective",
    "x-gateway-inference-objective", "x-llm-d-slo-ttft-ms", "x-slo-ttft-ms", "x-vllm-priority",
)  # fmt: skip
_HONEST: Final = Stamp("0" * 32, pack_priority(3, -7), "aGludA==")
_IDENTITY, _STAMP, _ENGINE = range(3)


def target(data: bytes) -> None:
    reader = Reader(data)
    match reader.byte() % 3:
        case 0:
            _identity(reader)
        case 1:
            _stamp(reader)
        case _:
            _engine(reader)


def _identity(reader: Reader) -> None:
    flags = reader.byte()
    rules = Rules(_CLASSES, {"team-a": "gold"} if flags & 1 else {}, trust_headers=bool(flags & 2))
    headers = {_HEADERS[part[0] % len(_HEADERS)]: part[1:].decode("latin-1") for part in reader.blocks(12) if part}
    expect(0 <= slo_ttft_ms(headers) < 1 << 32, "the SLO is no uint32")
    anybody = caller(headers, None, rules)
    expect(anybody is not None, "without API keys a caller was refused")
    known = caller(headers, _KEYRING, rules)
    for who in (anybody, known):
        _check_caller(who, rules)
    given = any(_API_KEY in headers.get(name, "") for name in ("authorization", "x-api-key"))
    expect(known is None or given, "let in without the API key")
    if known is not None:
        expect(known.tenant == "team-a" or (rules.trust_headers and known.tenant.startswith("team-a/")), f"became tenant {known.tenant!r}")
        expect(rules.trust_headers or known.klass == rules.tenant_classes.get("team-a", ""), f"became class {known.klass!r}")


def _check_caller(who: Caller | None, rules: Rules) -> None:
    if who is not None:
        expect(len(who.tenant) <= MAX_LABEL_CHARS, "the tenant is longer than its limit")
        expect(who.klass in rules.classes or not who.klass, f"a class that does not exist: {who.klass!r}")
        expect(rules.trust_headers or who.tenant in ("", "team-a"), f"a header was believed: tenant {who.tenant!r}")


def _stamp(reader: Reader) -> None:
    """A client's arguments, alone and in place of parts of an honest stamp: either the honest stamp is found, or none."""
    theirs = reader.value()
    args = theirs if isinstance(theirs, dict) else {"alise_stamp": theirs}
    for given in (args, {**stamped_args(None, _HONEST, _KEY), **args}):
        found = read_stamp(given, _KEY)
        expect(found is None or found == _HONEST, f"an unsigned stamp was believed: {found}")


@dataclass
class _Params:
    extra_args: dict[str, Any] | None


def _engine(reader: Reader) -> None:
    """What reaches the engine, whatever a client put into the request's parameters."""
    flags = reader.byte()
    stamp = Stamp(reader.take(16).hex(), pack_priority(reader.byte() - 128, reader.byte()), "") if flags & 1 else None
    theirs, priority = reader.value(), reader.value()
    params = _Params(theirs if isinstance(theirs, dict) else None)
    reached: list[int] = []
    entered: list[Ticket] = []

    async def add_request(request_id: str, prompt: Any, params: Any, priority: int) -> None:
        reached.append(priority)

    token = CURRENT.set(Ticket(stamp) if stamp is not None else None)
    try:
        _run(stamping(add_request, _KEY, entered.append)("r", {}, params, priority=priority))
    finally:
        CURRENT.reset(token)
    expect(read_stamp(params.extra_args, _KEY) == stamp, "the engine request carries another stamp")
    expect(reached == [stamp.priority if stamp is not None else NEUTRAL_PRIORITY], f"the engine was given priority {reached}")
    level, _ = unpack_priority(reached[0])
    expect(MIN_LEVEL <= level <= MAX_LEVEL, f"level {level}")
    # Everything that begins as our names do is ours.
    foreign, kept = (
        {name: value for name, value in args.items() if not name.startswith(XARG_PREFIX)}
        for args in (theirs if isinstance(theirs, dict) else {}, params.extra_args or {})
    )
    expect(repr(kept) == repr(foreign), "an argument of the client's was lost")


def _run(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Runs what does not wait, without an event loop: thousands of times a second."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    expect(False, "adding a request waited for something")


def seeds() -> list[bytes]:
    def headers(flags: int, *pairs: tuple[str, str]) -> bytes:
        parts = (block(bytes([_HEADERS.index(name)]) + value.encode("latin-1")) for name, value in pairs)
        return bytes([_IDENTITY, flags]) + b"".join(parts)

    honest = stamped_args(None, _HONEST, _KEY)
    found = [
        headers(3, ("authorization", f"Bearer {_API_KEY}"), ("x-llm-d-inference-fairness-id", "team-b")),
        headers(1, ("x-api-key", _API_KEY), ("x-gateway-inference-objective", "gold"), ("x-slo-ttft-ms", "500")),
        headers(2, ("authorization", "bearer wrong"), ("x-llm-d-inference-objective", "größe"), ("x-llm-d-slo-ttft-ms", "99999999999")),
        headers(0, ("authorization", "Basic c2stcmlnaHQ=")),
        bytes([_STAMP]) + encoded(honest),
        bytes([_STAMP]) + encoded({**honest, "alise_job": "1" * 32}),
        bytes([_STAMP]) + encoded({**honest, "alise_hint": ""}),
        bytes([_STAMP]) + encoded({"alise_stamp": honest["alise_stamp"].replace(".", ".0")}),
        bytes([_ENGINE, 1]) + bytes(18) + encoded(honest) + encoded(-99),
        bytes([_ENGINE, 0]) + encoded({"alise_jobs": 1, "alise": 2}) + encoded(0),
    ]
    found += [
        bytes([_ENGINE, 0]) + encoded(body.get("vllm_xargs")) + encoded(body.get("priority"))
        for _, body in BODIES
        if isinstance(body, dict)
    ]
    return found

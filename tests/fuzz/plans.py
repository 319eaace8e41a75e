"""Bytes in place of plans: an Apply, and a call as EngineCore gets it. Each is refused in words, or carried out within the contract.

`targets.py` lists it.
"""

from typing import Any, Final

from google.protobuf.message import DecodeError
from msgspec import msgpack

from alise_contract.names import MAX_LEVEL, MIN_LEVEL, unpack_priority
from alise_contract.v1 import engine_control_pb2 as pb
from alise_engine.api.control.convert import apply_call
from alise_engine.enginecore.decide import EMPTY_PLAN, Running, Waiting, apply, choose_codec, choose_preemptions, priority_of
from alise_engine.errors import InvalidCall, PayloadError
from alise_engine.wire.calls import ApplyCall, Call, LimitsRow, RankRow, SnapshotCall, decode_call, encode
from tests.fuzz.finding import expect
from tests.fuzz.inputs import Reader, encoded

_JOBS: Final = frozenset({"a", "b", "c"})
_MESSAGE: Final = 0


def target(data: bytes) -> None:
    """The first byte says whether the rest is an ApplyRequest or a payload as msgpack carries it."""
    reader = Reader(data)
    if reader.byte() % 2 == _MESSAGE:
        try:
            call = apply_call(pb.ApplyRequest.FromString(reader.rest()))
        except (DecodeError, InvalidCall):
            return
        _check(call)
        try:
            again = decode_call(encode(call))
        except PayloadError as error:
            expect(False, f"the API server sends what EngineCore refuses: {error}")
        expect(again == call, "the call does not survive the way to EngineCore")
        return
    payload = reader.value()
    if _fits_msgpack(payload):
        try:
            found = decode_call(msgpack.encode(payload))
        except PayloadError:
            return
        if isinstance(found, ApplyCall):
            _check(found)


def _check(call: ApplyCall) -> None:
    """Carries the plan out as far as no engine is needed for it."""
    plan = apply(EMPTY_PLAN, call.ranks, call.limits, _JOBS, 0.0)
    expect(set(plan.ranks) <= _JOBS, "a job is ranked that the engine does not have")
    priorities = {job: priority_of(plan.ranks.get(job), 0, True) for job in sorted(_JOBS)}
    for job, priority in priorities.items():
        level, _ = unpack_priority(priority)
        expect(MIN_LEVEL <= level <= MAX_LEVEL, f"job {job} has level {level}")
    limits = plan.limits
    expect(0 <= limits.int8_host_fraction <= 1, f"int8_host_fraction is {limits.int8_host_fraction}")
    expect(min(limits.preempt_levels, limits.min_quantum_steps, limits.int8_ewt_ms, limits.host_budget_bytes) >= 0, f"{limits}")
    running = [Running(job, priorities[job], 0.0, 4, 9) for job in ("a", "b")]
    chosen = choose_preemptions(running, [Waiting("c", priorities["c"], 1.0, 3)], 0, 0, limits)
    expect(set(chosen) <= {"a", "b"}, f"preempted {chosen}")
    expect(choose_codec("auto", 0, 0, 1 << 20, limits) in ("raw", "int8"), "no codec")


def _fits_msgpack(value: Any) -> bool:
    """msgpack has integers of 64 bits and text without lone surrogates."""
    match value:
        case int():
            return -(1 << 63) <= value < 1 << 64
        case str():
            return value.isascii() or value == value.encode("utf-8", "replace").decode()
        case list():
            return all(map(_fits_msgpack, value))
        case dict():
            return all(_fits_msgpack(name) and _fits_msgpack(item) for name, item in value.items())
        case _:
            return True


def _plain(call: Call) -> Any:
    """The call as lists and numbers."""
    return msgpack.decode(encode(call))


def seeds() -> list[bytes]:
    ranks = [pb.Rank(job_id="a", level=-3, order=7, ewt_ms=900), pb.Rank(job_id="b", level=127), pb.Rank(job_id="d", level=1)]
    limits = pb.Limits(preempt_levels=1, min_quantum_steps=4, int8_ewt_ms=2000, int8_host_fraction=0.5, host_budget_bytes=1 << 20)
    messages = [
        pb.ApplyRequest(contract_version=1, session_id="s", sequence=1, ranks=ranks, limits=limits),
        pb.ApplyRequest(ranks=[pb.Rank(job_id="a", level=128)]),
        pb.ApplyRequest(ranks=[pb.Rank(level=1)]),
        pb.ApplyRequest(limits=pb.Limits(int8_host_fraction=float("nan"))),
    ]
    rows = (RankRow("a", -128, -(2**31), 0), RankRow("b", 5, 0, 10))
    calls: list[Any] = [
        _plain(ApplyCall(rows, LimitsRow())),
        _plain(ApplyCall(rows, LimitsRow(int8_host_fraction=float("nan")))),
        _plain(SnapshotCall()),
        ["apply", [["a", True, 0, 0]], None],
        ["resume"],
    ]
    return [bytes([0]) + message.SerializeToString() for message in messages] + [bytes([1]) + encoded(call) for call in calls]

"""What crosses between the API-server process and EngineCore."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_engine.errors import PayloadError
from alise_engine.wire.calls import (
    ApplyAnswer,
    ApplyCall,
    Call,
    Counters,
    EngineShape,
    FinishedRow,
    LimitsRow,
    Mark,
    PollAnswer,
    PollCall,
    RankRow,
    RequestRow,
    SnapshotAnswer,
    SnapshotCall,
    StepRow,
    TraceRow,
    decode_answer,
    decode_call,
    encode,
)
from alise_engine.wire.terms import PHASES

counts = st.integers(min_value=0, max_value=2**53)
texts = st.text(max_size=12)
rows = st.builds(RequestRow, texts, texts, st.sampled_from(PHASES), *[counts] * 7, st.integers(-(2**40), 2**40), counts, counts, texts)
counters = st.builds(Counters, *[counts] * len(Counters.__struct_fields__))
ranks = st.builds(RankRow, st.text(min_size=1, max_size=8), st.integers(-128, 127), st.integers(-(2**31), 2**31 - 1), counts)
limits = st.builds(LimitsRow, counts, counts, counts, st.floats(0, 1), counts)


@given(st.lists(ranks, max_size=4), st.none() | limits)
def test_an_apply_survives_the_wire(some: list[RankRow], limit: LimitsRow | None) -> None:
    call = ApplyCall(tuple(some), limit)
    assert decode_call(encode(call)) == call


@pytest.mark.parametrize("call", [SnapshotCall(), PollCall()], ids=str)
def test_every_other_call_survives_the_wire(call: Call) -> None:
    assert decode_call(encode(call)) == call


@given(st.lists(rows, max_size=3), counters)
def test_a_poll_survives_the_wire(some: list[RequestRow], counted: Counters) -> None:
    ending = FinishedRow("r", "j", "stop", 1, 2, 3, 4, 5, 6, 7)
    story = TraceRow(ending, (Mark("running", 8), Mark("offloaded", 9, 10, "rank")), 11)
    answer = PollAnswer(tuple(some), (ending,), (StepRow(1, 2, 3, 4),), counted, (story,))
    assert decode_answer(PollAnswer, encode(answer)) == answer


@given(st.lists(rows, max_size=3), counters)
def test_a_snapshot_survives_the_wire(some: list[RequestRow], counted: Counters) -> None:
    answer = SnapshotAnswer(EngineShape(2, 2048, 1024, 32, 65, 131072, 0, "tiny"), tuple(some), counted)
    assert decode_answer(SnapshotAnswer, encode(answer)) == answer


def test_the_answer_to_an_apply_survives_the_wire() -> None:
    assert decode_answer(ApplyAnswer, encode(ApplyAnswer(("a",)))) == ApplyAnswer(("a",))


def _apply(*ranks: Any, limits: Any = None) -> list[Any]:
    return ["apply", list(ranks), limits]


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        pytest.param("poll", "Expected `array`, got `str`", id="no array"),
        pytest.param(["resume"], "Invalid value 'resume' - at `$[0]`", id="a call that does not exist"),
        pytest.param(_apply(["j", 128, 0, 0]), "Expected `int` <= 127 - at `$[1][0][1]`", id="a level above the contract's"),
        pytest.param(_apply(["j", -129, 0, 0]), "Expected `int` >= -128 - at `$[1][0][1]`", id="a level below the contract's"),
        pytest.param(_apply(["j", 0, 2**31, 0]), "Expected `int` <= 2147483647 - at `$[1][0][2]`", id="an order too large"),
        pytest.param(_apply(["j", 0, 0, -1]), "Expected `int` >= 0 - at `$[1][0][3]`", id="a negative wait"),
        pytest.param(_apply(["", 0, 0, 0]), "Expected `str` of length >= 1 - at `$[1][0][0]`", id="a rank for no job"),
        pytest.param(_apply(["j", True, 0, 0]), "Expected `int`, got `bool` - at `$[1][0][1]`", id="a truth value for a level"),
        pytest.param(_apply(["j", 0, 0]), "Expected `array` of at least length 4, got 3 - at `$[1][0]`", id="a rank that is too short"),
        pytest.param(_apply(limits=[1, -1]), "Expected `int` >= 0 - at `$[2][1]`", id="a negative quantum"),
        pytest.param(_apply(limits=[1, 4, 0, 1.5]), "Expected `float` <= 1.0 - at `$[2][3]`", id="a fraction above one"),
        pytest.param(_apply(limits=[1, 4, 0, float("nan")]), "Expected `float` >= 0.0 - at `$[2][3]`", id="a fraction that is no number"),
    ],
)
def test_a_malformed_call_is_refused_with_what_was_wrong(payload: Any, complaint: str) -> None:
    with pytest.raises(PayloadError) as refused:
        decode_call(msgspec.msgpack.encode(payload))
    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"\xc1", id="no msgpack"),
        pytest.param(b"", id="no bytes"),
        pytest.param(b"\x93\xa5apply\x91\x94\xa2\xff\xff\x00\x00\x00\xc0", id="a job's name that is no UTF-8"),
    ],
)
def test_bytes_that_are_no_call_are_refused(payload: bytes) -> None:
    with pytest.raises(PayloadError, match="cannot be decoded"):
        decode_call(payload)


def test_an_answer_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(PayloadError, match="ApplyAnswer cannot be decoded"):
        decode_answer(ApplyAnswer, b"\x91\x91\xa2\xff\xff")

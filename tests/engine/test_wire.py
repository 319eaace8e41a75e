"""What crosses between the API-server process and EngineCore."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_engine.errors import PayloadError
from alise_engine.wire.calls import (
    PHASES,
    ApplyAnswer,
    ApplyCall,
    Counters,
    EngineShape,
    FinishedRow,
    LimitsRow,
    PollAnswer,
    PollCall,
    RankRow,
    RequestRow,
    SnapshotAnswer,
    SnapshotCall,
    StepRow,
    call_from_wire,
)

counts = st.integers(min_value=0, max_value=2**53)
texts = st.text(max_size=12)
rows = st.builds(RequestRow, texts, texts, st.sampled_from(PHASES), *[counts] * 7, st.integers(-(2**40), 2**40), counts, counts, texts)
counters = st.builds(Counters, *[counts] * 15)
ranks = st.builds(RankRow, st.text(min_size=1, max_size=8), st.integers(-128, 127), st.integers(-(2**31), 2**31 - 1), counts)
limits = st.builds(LimitsRow, counts, counts, counts, st.floats(0, 1), counts)


def as_msgpack_would(value: Any) -> Any:
    """msgpack knows no tuples."""
    if isinstance(value, dict):
        return {key: as_msgpack_would(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_msgpack_would(item) for item in value]
    assert value is None or isinstance(value, (str, int, float, bool))
    return value


@given(st.lists(ranks, max_size=4), st.none() | limits)
def test_an_apply_survives_the_wire(some: list[RankRow], limit: LimitsRow | None) -> None:
    call = ApplyCall(tuple(some), limit)
    assert call_from_wire(as_msgpack_would(call.to_wire())) == call


@pytest.mark.parametrize("call", [SnapshotCall(), PollCall()], ids=str)
def test_every_other_call_survives_the_wire(call: Any) -> None:
    assert call_from_wire(call.to_wire()) == call


@given(st.lists(rows, max_size=3), counters)
def test_a_poll_survives_the_wire(some: list[RequestRow], counted: Counters) -> None:
    answer = PollAnswer(tuple(some), (FinishedRow("r", "j", "stop", 1, 2, 3, 4, 5),), (StepRow(1, 2, 3, 4),), counted)
    assert PollAnswer.from_wire(as_msgpack_would(answer.to_wire())) == answer


@given(st.lists(rows, max_size=3), counters)
def test_a_snapshot_survives_the_wire(some: list[RequestRow], counted: Counters) -> None:
    answer = SnapshotAnswer(EngineShape(2, 2048, 1024, 32, 65, 131072, 0, "tiny"), tuple(some), counted)
    assert SnapshotAnswer.from_wire(as_msgpack_would(answer.to_wire())) == answer


def test_small_answers_survive_the_wire() -> None:
    assert ApplyAnswer.from_wire(ApplyAnswer(("a",)).to_wire()) == ApplyAnswer(("a",))


def _apply(*ranks: Any, limits: Any = None) -> dict[str, Any]:
    return {"op": "apply", "ranks": list(ranks), "limits": limits}


GOOD_LIMITS = {"preempt_levels": 1, "min_quantum_steps": 4, "int8_ewt_ms": 0, "int8_host_fraction": 0.5, "host_budget_bytes": 0}


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        pytest.param("poll", "unknown op None", id="not a dict"),
        pytest.param({"op": "resume"}, "unknown op 'resume'", id="an op that does not exist"),
        pytest.param({"op": "apply"}, "a list under 'ranks'", id="an apply without ranks"),
        pytest.param(_apply(["j", 128, 0, 0]), "level 128 is outside", id="a level above the contract's"),
        pytest.param(_apply(["j", -129, 0, 0]), "level -129 is outside", id="a level below the contract's"),
        pytest.param(_apply(["j", 0, 2**31, 0]), "order 2147483648 is outside", id="an order that would change the level"),
        pytest.param(_apply(["j", 0, 0, -1]), "ewt_ms -1 is negative", id="a negative wait"),
        pytest.param(_apply(["", 0, 0, 0]), "without a job id", id="a rank for no job"),
        pytest.param(_apply(["j", True, 0, 0]), "level: expected int, got True", id="a truth value for a level"),
        pytest.param(_apply(["j", 0, 0]), "expected a list of 4", id="a rank that is too short"),
        pytest.param(_apply(limits={"preempt_levels": 1}), "expected a dict of", id="limits with fields missing"),
        pytest.param(_apply(limits={**GOOD_LIMITS, "min_quantum_steps": -1}), "min_quantum_steps -1 is negative", id="a negative quantum"),
        pytest.param(_apply(limits={**GOOD_LIMITS, "int8_host_fraction": 1.5}), "outside [0, 1]", id="a fraction above one"),
    ],
)
def test_a_malformed_call_is_refused_with_what_was_wrong(payload: Any, complaint: str) -> None:
    with pytest.raises(PayloadError) as refused:
        call_from_wire(payload)
    assert complaint in str(refused.value)

"""Absurd input: the job becomes average or extreme, all other jobs are ranked as before, and every value in the plan is sound."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_contract.names import MAX_LEVEL, MIN_LEVEL
from alise_scheduler.core.book import JobBook, Prior
from alise_scheduler.core.decide import Decision, decide
from alise_scheduler.core.job import Job
from alise_scheduler.core.lengths import MAX_TOKENS, PRIOR, sane
from alise_scheduler.core.rank import POLICIES, AgeingRule, Policy
from alise_scheduler.core.reports import EngineRequest, EngineShape, EngineSnapshot, Phase
from tests.scheduler.builders import make_job, make_request, make_snapshot, ranks_of, starvation_bound_seconds

ABSURD = [
    pytest.param([math.nan] * 10, id="NaN"),
    pytest.param([math.inf] * 10, id="infinite"),
    pytest.param([0.0] * 10, id="zero"),
    pytest.param([-7.0] * 10, id="negative"),
    pytest.param([1e9] * 10, id="a billion"),
    pytest.param([], id="none at all"),
]
OTHERS = [make_job("short", 10), make_job("long", 2000)]


def order(decision: Decision) -> list[str]:
    wanted = ranks_of(decision)
    return sorted(wanted, key=lambda job: (wanted[job].level, wanted[job].order))


def is_sound(decision: Decision) -> bool:
    ranks = ranks_of(decision).values()
    return (
        all(MIN_LEVEL <= rank.level <= MAX_LEVEL and rank.ewt_ms >= 0 for rank in ranks)
        and bool((decision.waits_seconds >= 0).all())
        and math.isfinite(float(decision.waits_seconds.sum()))
        and math.isfinite(decision.load.backlog_seconds())
        and 0 <= decision.host_memory.host_bytes <= decision.host_memory.host_budget_bytes
    )


@pytest.mark.parametrize("name", sorted(POLICIES))
@pytest.mark.parametrize("values", ABSURD)
def test_an_absurd_prediction_leaves_the_others_in_their_order(values: Sequence[float], name: str) -> None:
    decision = decide(make_snapshot([make_job("odd", lengths=sane(values)), *OTHERS]), Policy(name=name))
    assert is_sound(decision)
    assert [job for job in order(decision) if job != "odd"] == ["short", "long"]


def test_a_job_of_a_billion_tokens_is_the_last_and_one_without_a_prediction_is_average() -> None:
    jobs = [make_job("odd", lengths=sane([1e9] * 10)), make_job("none", lengths=sane([])), *OTHERS]
    assert order(decide(make_snapshot(jobs), Policy())) == ["short", "none", "long", "odd"]


def test_no_prediction_is_the_prior() -> None:
    assert sane([]) == PRIOR


def test_a_job_far_past_every_prediction_falls_behind_and_does_not_stay_there() -> None:
    """It ranks as what it has become; ageing brings it back, however wrong the prediction was."""
    policy, others = Policy(name="gittins"), [make_job("short", 10), make_job("middle", 300)]
    over = make_job("over", 10, Phase.RUNNING, generated=1500)
    assert order(decide(make_snapshot([make_job("over", 10, Phase.RUNNING, generated=5), *others]), policy))[0] == "over"
    assert order(decide(make_snapshot([over, *others]), policy)) == ["short", "middle", "over"]
    aged = replace(over, arrived_at=-starvation_bound_seconds(AgeingRule()))
    assert order(decide(make_snapshot([aged, *others]), policy)) == ["over", "short", "middle"]


def test_a_clock_that_went_backwards_makes_no_job_younger_than_new() -> None:
    future = make_job("future", 10, arrived_at=500.0, phase_at=500.0)
    assert future.age_seconds(0.0) == 0.0
    assert is_sound(decide(make_snapshot([future, *OTHERS]), Policy()))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param(EngineShape(max_num_seqs=0, num_device_blocks=0, block_size=0), id="that says zero of everything"),
        pytest.param(EngineShape(max_num_seqs=10**9, num_device_blocks=10**12, host_limit_bytes=2**62), id="without bounds"),
        pytest.param(EngineShape(max_model_len=1), id="that holds one token"),
    ],
)
def test_an_engine_of_an_absurd_shape_is_planned_for(shape: EngineShape) -> None:
    assert is_sound(decide(make_snapshot(OTHERS, shape), Policy()))


def test_a_thousand_reports_of_one_job_are_one_job() -> None:
    book = JobBook()
    said = (make_request("a", Phase.RUNNING), make_request("a"), *(make_request("a", Phase.OFFLOADED),) * 998)
    book.replace_all(EngineSnapshot("boot", "session", EngineShape(), said), 1.0, lambda _: Prior(PRIOR))
    assert [(job.id, job.phase) for job in book.in_order()] == [("a", Phase.OFFLOADED)]


numbers = st.one_of(st.integers(-(10**12), 10**12), st.sampled_from([0, -1, 2**31, 2**63 - 1]))
times = st.floats(-1e9, 1e9)
reports = st.builds(
    EngineRequest,
    request_id=st.sampled_from(["r0", "r1", "r2"]), job_id=st.sampled_from(["", "a", "b"]), phase=st.sampled_from(list(Phase)[1:]),
    prompt_tokens=st.integers(0, 10**9), generated_tokens=st.integers(0, 10**9), device_tokens=st.integers(0, 10**9),
    host_tokens=st.integers(0, 10**9), host_bytes=st.integers(0, 2**50), max_tokens=st.integers(0, 10**9),
    priority=numbers, age_seconds=times, phase_seconds=times,
)  # fmt: skip


@settings(max_examples=50)
@given(st.lists(st.tuples(st.lists(reports, max_size=4), times), min_size=1, max_size=5), st.sampled_from(sorted(POLICIES)))
def test_whatever_engines_report_and_whenever_the_plan_is_sound(events: list[tuple[list[EngineRequest], float]], name: str) -> None:
    """Unknown jobs, duplicates, ages from the future, snapshots out of order: an engine that restarts again and again."""
    book = JobBook()
    for requests, at in events:
        book.replace_all(EngineSnapshot("boot", "session", EngineShape(), tuple(requests)), at, lambda _: Prior(sane([MAX_TOKENS] * 10)))
        jobs: tuple[Job, ...] = book.in_order()
        assert is_sound(decide(make_snapshot(jobs, EngineShape(host_limit_bytes=1 << 20)), Policy(name=name)))

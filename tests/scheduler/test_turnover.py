"""Running jobs keep their slots where a slot comes free soon by itself."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MAX_LEVEL, MIN_LEVEL
from alise_scheduler.core.decide import decide
from alise_scheduler.core.fairness import OVER_SHARE_LEVEL
from alise_scheduler.core.job import Job
from alise_scheduler.core.rank import Policy, PreemptionRule
from alise_scheduler.core.reports import EngineUpdate, Finished, FinishReason, Phase
from alise_scheduler.core.turnover import frees_soon
from tests.scheduler.builders import SHAPE, make_job, make_request, make_snapshot, make_state, opened

RULE = PreemptionRule(turn_share=0.01)


def crowd(running: int, waiting: int = 1, samples: int = 1) -> list[Job]:
    phases = [Phase.RUNNING] * running + [Phase.WAITING] * waiting
    return [make_job(f"{phase.name.lower()}-{number}", phase=phase, samples=samples) for number, phase in enumerate(phases)]


def soon(running: int, seconds: float = 1.0, neutral: float = 1.0, ended: float = 0.0) -> bool:
    """Whether a slot is soon free where all running jobs have `seconds` left, and one ended `ended` seconds ago."""
    snapshot = replace(make_snapshot(crowd(running), neutral=neutral), ended_seconds=ended)
    return frees_soon(snapshot, np.full(len(snapshot), seconds), RULE)


@pytest.mark.parametrize(
    ("running", "seconds", "neutral", "expected"),
    [
        pytest.param(4, 1.0, 1.0, False, id="few run"),
        pytest.param(99, 1.0, 1.0, False, id="the next one ends after just more than the share"),
        pytest.param(101, 1.0, 1.0, True, id="the next one ends within just less than the share"),
        pytest.param(200, 50.0, 1.0, False, id="many run that are much longer than usual"),
        pytest.param(200, 50.0, 50.0, True, id="many run, and long jobs are usual"),
        pytest.param(0, 1.0, 1.0, False, id="none runs"),
    ],
)
def test_a_slot_is_soon_free_where_one_of_many_jobs_ends_within_a_small_share_of_a_typical_jobs_time(
    running: int, seconds: float, neutral: float, expected: bool
) -> None:
    assert soon(running, seconds, neutral) is expected


@pytest.mark.parametrize(
    ("ended", "expected"),
    [pytest.param(0.009, True, id="just now"), pytest.param(0.011, False, id="before"), pytest.param(math.inf, False, id="never")],
)
def test_no_slot_is_soon_free_where_no_job_has_ended_for_as_long(ended: float, expected: bool) -> None:
    """So do a thousand equal jobs that began together."""
    assert soon(1000, ended=ended) is expected


def test_the_mean_counts_and_not_the_job_that_ends_first() -> None:
    snapshot = replace(make_snapshot(crowd(10)), ended_seconds=0.0)
    assert not frees_soon(snapshot, np.array([0.0, *[10.0] * 10]), RULE)


def test_only_jobs_that_run_count() -> None:
    snapshot = replace(make_snapshot(crowd(200, 2)), ended_seconds=0.0)
    assert frees_soon(snapshot, np.array([*[1.0] * 200, 1e9, 1e9]), RULE)


def test_each_sample_of_a_job_has_a_slot() -> None:
    snapshot = replace(make_snapshot(crowd(50)), ended_seconds=0.0)
    assert not frees_soon(snapshot, np.ones(51), RULE)
    assert frees_soon(replace(snapshot, samples=np.full(51, 3.0)), np.ones(51), RULE)


@given(st.integers(1, 30), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(0, 1e6))
def test_twice_as_many_running_jobs_never_make_the_next_end_later(running: int, seconds: float, neutral: float, ended: float) -> None:
    assert soon(2 * running, seconds, neutral, ended) or not soon(running, seconds, neutral, ended)


def spared(slots: int, running: int, policy: Policy | None = None, tenants: int = 1) -> int:
    """The levels that are spared where `running` jobs run and three times as many wait, of tenants in turn."""
    jobs = [replace(job, tenant=f"team-{number % tenants}") for number, job in enumerate(crowd(running, 3 * running))]
    shape = replace(SHAPE, max_num_seqs=slots, num_device_blocks=100_000)
    snapshot = replace(make_snapshot(jobs, shape), ended_seconds=0.0)
    return decide(snapshot, policy or Policy()).limits.spared_levels


def test_none_is_spared_on_an_engine_with_few_slots() -> None:
    assert spared(8, 8) == 0


def test_all_are_spared_on_an_engine_with_hundreds_of_slots() -> None:
    assert spared(300, 300) == MAX_LEVEL - MIN_LEVEL + 1


def test_jobs_over_their_tenants_share_are_not_spared() -> None:
    assert MIN_LEVEL + spared(300, 300, tenants=2) == OVER_SHARE_LEVEL


def test_running_jobs_are_within_their_tenants_share_before_better_ones_that_wait() -> None:
    """One job of another tenant displaces one of 300, and not all of those that rank just behind a waiting one."""
    jobs = [make_job(f"run-{number}", 110, phase=Phase.RUNNING, tenant="team-a") for number in range(300)]
    jobs += [make_job(f"wait-{number}", 100, tenant="team-a") for number in range(300)]
    jobs.append(make_job("other", tenant="team-b"))
    shape = replace(SHAPE, max_num_seqs=300, num_device_blocks=100_000)
    decision = decide(replace(make_snapshot(jobs, shape), ended_seconds=0.0), Policy())
    assert decision.over_share is not None
    displaced = decision.over_share[:300]
    # A sixteenth of the slots is in no share.
    assert displaced.sum() == 300 - (300 - 300 // 16 - 1)
    assert decision.over_share[300:600].all()
    assert not decision.over_share[600]


def test_none_is_spared_where_no_share_of_a_typical_jobs_time_is_soon() -> None:
    assert spared(300, 300, Policy(preemption=PreemptionRule(turn_share=0.0))) == 0


@pytest.mark.parametrize(
    ("slots", "preemption", "expected"),
    [
        pytest.param(4, PreemptionRule(), 1, id="few slots"),
        pytest.param(300, PreemptionRule(), 0, id="hundreds of slots"),
        pytest.param(4, PreemptionRule(levels=0), 0, id="preemption is off"),
    ],
)
def test_the_metric_says_whether_ranks_preempt(slots: int, preemption: PreemptionRule, expected: int) -> None:
    requests = [make_request(f"j{number}", Phase.RUNNING) for number in range(slots + 1)]
    state = opened(make_state(Policy(preemption=preemption)), *requests, max_num_seqs=slots)
    ended = Finished(f"r-j{slots}", f"j{slots}", FinishReason.STOP, generated_tokens=5)
    state.update(EngineUpdate(finished=(ended,)), 1.0)
    state.decide(1.0)
    assert state.metrics.registry.get_sample_value("alise_scheduler_rank_preemption") == expected

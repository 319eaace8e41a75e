"""Running jobs keep their slots where a slot comes free soon by itself."""

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
from alise_scheduler.core.reports import Phase
from alise_scheduler.core.turnover import frees_soon
from tests.scheduler.builders import SHAPE, make_job, make_request, make_snapshot, make_state, opened

RULE = PreemptionRule(turn_share=0.01)


def crowd(running: int, waiting: int = 1) -> list[Job]:
    phases = [Phase.RUNNING] * running + [Phase.WAITING] * waiting
    return [make_job(f"{phase.name.lower()}-{number}", phase=phase) for number, phase in enumerate(phases)]


def soon(running: int, seconds: float, slots: float, neutral: float = 1.0, rule: PreemptionRule = RULE) -> bool:
    """Whether a slot is soon free where all running jobs have `seconds` left."""
    snapshot = make_snapshot(crowd(running), neutral=neutral)
    return frees_soon(snapshot, np.full(len(snapshot), seconds), slots, rule)


@pytest.mark.parametrize(
    ("running", "seconds", "slots", "neutral", "expected"),
    [
        pytest.param(4, 1.0, 4, 1.0, False, id="few slots"),
        pytest.param(200, 1.0, 200, 1.0, True, id="many slots"),
        pytest.param(200, 50.0, 200, 1.0, False, id="many slots, taken by jobs that are much longer than usual"),
        pytest.param(200, 50.0, 200, 50.0, True, id="many slots, and long jobs are usual"),
        pytest.param(0, 1.0, 200, 1.0, False, id="none runs"),
    ],
)
def test_a_slot_is_soon_free_where_one_of_many_jobs_ends_within_a_small_share_of_a_typical_jobs_time(
    running: int, seconds: float, slots: float, neutral: float, expected: bool
) -> None:
    assert soon(running, seconds, slots, neutral) is expected


@given(st.integers(1, 30), st.floats(1e-6, 1e6), st.floats(1, 4096), st.floats(1e-6, 1e6))
def test_more_slots_never_make_the_next_one_later(running: int, seconds: float, slots: float, neutral: float) -> None:
    assert soon(running, seconds, 2 * slots, neutral) or not soon(running, seconds, slots, neutral)


def test_only_jobs_that_run_count() -> None:
    snapshot = make_snapshot(crowd(2, 2))
    remaining = np.array([1.0, 1.0, 1e9, 1e9])
    assert frees_soon(snapshot, remaining, 200.0, RULE)


def spared(slots: int, running: int, policy: Policy | None = None, tenants: int = 1) -> int:
    """The levels that are spared where `running` jobs run and three times as many wait, of tenants in turn."""
    jobs = [replace(job, tenant=f"team-{number % tenants}") for number, job in enumerate(crowd(running, 3 * running))]
    shape = replace(SHAPE, max_num_seqs=slots, num_device_blocks=100_000)
    return decide(make_snapshot(jobs, shape), policy or Policy()).limits.spared_levels


def test_none_is_spared_on_an_engine_with_few_slots() -> None:
    assert spared(8, 8) == 0


def test_all_are_spared_on_an_engine_with_hundreds_of_slots() -> None:
    assert spared(300, 300) == MAX_LEVEL - MIN_LEVEL + 1


def test_jobs_over_their_tenants_share_are_not_spared() -> None:
    assert MIN_LEVEL + spared(300, 300, tenants=2) == OVER_SHARE_LEVEL


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
    requests = [make_request(f"j{number}", Phase.RUNNING) for number in range(slots)]
    state = opened(make_state(Policy(preemption=preemption)), *requests, max_num_seqs=slots)
    state.decide(1.0)
    assert state.metrics.registry.get_sample_value("alise_scheduler_rank_preemption") == expected

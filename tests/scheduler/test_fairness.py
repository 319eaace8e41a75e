"""Shares of tenants, their parts and their weights when the engine is full."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_contract.names import MAX_LEVEL, MIN_LEVEL
from alise_scheduler.core.decide import decide
from alise_scheduler.core.fairness import EMPTY_LEVELS, OVER_SHARE_LEVEL, behind, fill_level, lent_slots, within
from alise_scheduler.core.job import Job
from alise_scheduler.core.rank import Policy, PreemptionRule
from alise_scheduler.core.reports import EngineShape, Phase
from tests.scheduler.builders import make_job, make_snapshot, ranks_of

FOUR = EngineShape(max_num_seqs=4, max_model_len=4096, num_device_blocks=4096)


@pytest.mark.parametrize(
    ("demand", "weight", "expected"),
    [
        pytest.param([1, 2], [1, 1], math.inf, id="enough for all"),
        pytest.param([10, 10], [1, 1], 2.0, id="even"),
        pytest.param([1, 10], [1, 1], 3.0, id="what the quiet one leaves goes to the other"),
        pytest.param([10, 10], [3, 1], 1.0, id="by weight"),
        pytest.param([1, 1, 10, 10], [1, 1, 1, 1], 1.0, id="two are quiet"),
        pytest.param([5] * 8, [1] * 8, 0.5, id="more tenants than slots"),
    ],
)
def test_slots_are_dealt_out_max_min_fairly(demand: list[float], weight: list[float], expected: float) -> None:
    assert fill_level(np.array(demand, dtype=float), np.array(weight, dtype=float), 4.0) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from([0.25, 1.0, 4.0])), min_size=1, max_size=8), st.integers(1, 64))
def test_shares_use_all_slots_and_no_more(tenants: list[tuple[int, float]], slots: int) -> None:
    demand, weight = (np.array(column, dtype=float) for column in zip(*tenants, strict=True))
    fill = fill_level(demand, weight, slots)
    given_out = np.minimum(demand, fill * weight).sum()
    assert given_out == pytest.approx(min(slots, demand.sum()))


def levels(jobs: list[Job]) -> dict[str, int]:
    return {job: rank.level for job, rank in ranks_of(decide(make_snapshot(jobs, FOUR), Policy())).items()}


def test_a_flooding_tenants_short_jobs_rank_behind_a_quiet_ones_long_job() -> None:
    flood = [make_job(f"f{number}", 5, tenant="loud") for number in range(20)]
    found = levels([*flood, make_job("long", 4000, tenant="quiet")])
    # One of the four slots is in no tenant's share.
    assert sum(level < OVER_SHARE_LEVEL for level in found.values()) == 3
    assert found["long"] < OVER_SHARE_LEVEL


def test_parts_that_a_tenant_makes_up_are_no_way_to_a_larger_share() -> None:
    """R3: a fresh name per request, behind one API key."""
    flood = [make_job(f"f{number}", 5, tenant=f"loud/{number}") for number in range(20)]
    found = levels([*flood, make_job("long", 4000, tenant="quiet")])
    assert sum(level < OVER_SHARE_LEVEL for level in found.values()) == 3
    assert found["long"] < OVER_SHARE_LEVEL


def test_parts_of_a_tenant_take_turns_within_its_share() -> None:
    flood = [make_job(f"f{number}", 5, tenant="team/loud") for number in range(20)]
    found = levels([*flood, make_job("mine", 4000, tenant="team/quiet"), make_job("theirs", 4000, tenant="other")])
    within_share = {job for job, level in found.items() if level < OVER_SHARE_LEVEL}
    assert {"mine", "theirs"} <= within_share
    assert len(within_share) == 3


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        pytest.param(1.0, 0.0, id="the only slot is in a share"),
        pytest.param(2.0, 1.0, id="one of few"),
        pytest.param(40.0, 2.0, id="one in sixteen of many"),
    ],
)
def test_a_few_slots_are_lent(slots: float, expected: float) -> None:
    assert lent_slots(slots) == expected


def test_with_all_slots_taken_some_job_gives_way_to_the_next_job_of_a_quiet_tenant() -> None:
    """By the level that it is stamped with at admission, whatever its length, before any further plan."""
    flood = [make_job(f"f{number}", 100, Phase.RUNNING, 50 * number, tenant="loud") for number in range(4)]
    waiting = [make_job(f"w{number}", 100, tenant="loud") for number in range(9)]
    found = levels([make_job("first", 4000, tenant="quiet"), *flood, *waiting])
    worst_running = max(found[job.id] for job in flood)
    assert worst_running - within(np.array([MAX_LEVEL]))[0] >= PreemptionRule().levels


def test_a_quantum_protects_no_job_while_a_tenant_is_over_its_share() -> None:
    flood = [make_job(f"f{number}", 100, tenant="loud") for number in range(20)]
    policy = Policy(preemption=PreemptionRule(6, 16))
    assert decide(make_snapshot(flood, FOUR), policy).limits.min_quantum_steps == 16
    assert decide(make_snapshot([*flood, make_job("q", 5, tenant="quiet")], FOUR), policy).limits.min_quantum_steps == 0


def test_a_quantum_holds_while_many_tenants_ask_for_one_slot_each() -> None:
    jobs = [make_job(f"j{number}", 100, tenant=f"t{number}") for number in range(20)]
    assert decide(make_snapshot(jobs, FOUR), Policy(preemption=PreemptionRule(6, 16))).limits.min_quantum_steps == 16


def test_one_tenant_alone_is_ranked_as_if_there_were_none() -> None:
    jobs = [make_job(f"j{number}", 10 * number + 1) for number in range(20)]
    assert levels(jobs) == levels([replace(job, tenant="only") for job in jobs])


def test_tenants_that_fit_are_left_alone() -> None:
    jobs = [make_job("a", 10, tenant="x"), make_job("b", 4000, tenant="y")]
    assert levels(jobs) == levels([replace(job, tenant="") for job in jobs])


owned = st.lists(st.tuples(st.integers(1, 3000), st.sampled_from("abc"), st.floats(0, 500)), min_size=1, max_size=30)


@given(owned)
def test_the_order_within_a_tenant_stays_and_every_tenant_has_a_share(rows: list[tuple[int, str, float]]) -> None:
    jobs = [make_job(f"j{n}", tokens, Phase.WAITING, 0, waited, tenant=tenant) for n, (tokens, tenant, waited) in enumerate(rows)]
    alone, shared = levels([replace(job, tenant="") for job in jobs]), levels(jobs)
    for tenant in {job.tenant for job in jobs}:
        own = [job for job in jobs if job.tenant == tenant]
        assert min(shared[job.id] for job in own) < OVER_SHARE_LEVEL
        for one in own:
            for other in own:
                assert alone[one.id] >= alone[other.id] or shared[one.id] <= shared[other.id]


def test_the_bands_do_not_touch_and_stay_in_the_contracts_range() -> None:
    every = np.arange(-1000, 1000)
    assert within(every).max() + EMPTY_LEVELS < behind(every).min() == OVER_SHARE_LEVEL
    assert behind(every).max() <= MAX_LEVEL
    assert within(every).min() == MIN_LEVEL

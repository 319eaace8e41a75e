"""Levels, ageing and lateness, and that no job starves."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_contract.names import MAX_LEVEL, MIN_LEVEL
from alise_scheduler.core.decide import decide
from alise_scheduler.core.exec_time import CostModel
from alise_scheduler.core.job import Job
from alise_scheduler.core.lengths import sane
from alise_scheduler.core.level import BASE_SPAN
from alise_scheduler.core.plan import Rank
from alise_scheduler.core.rank import (
    POLICIES,
    AgeingRule,
    LatenessRule,
    Policy,
    base_levels,
    gittins_seconds,
    late,
    lateness_of,
    neutral_after,
    order_of,
    overdue,
    promote_seconds,
    view_of,
)
from alise_scheduler.core.reports import Phase
from tests.scheduler.builders import SHAPE, make_job, make_snapshot, ranks_of, starvation_bound_seconds

AGEING = AgeingRule(jobs=10.0, backlog=1.0, max_seconds=60.0)


def ranks(jobs: list[Job], policy: Policy | None = None, neutral: float = 1.0) -> dict[str, Rank]:
    return ranks_of(decide(make_snapshot(jobs, neutral=neutral), policy or Policy()))


def first(jobs: list[Job], policy: Policy | None = None) -> str:
    wanted = ranks(jobs, policy)
    return min(wanted, key=lambda job: (wanted[job].level, wanted[job].order))


def test_the_shortest_remaining_goes_first() -> None:
    assert first([make_job("long", 1000), make_job("short", 10)]) == "short"


def test_a_long_job_that_is_nearly_done_goes_before_a_short_one() -> None:
    assert first([make_job("short", 200), make_job("nearly", 1000, Phase.RUNNING, generated=990)]) == "nearly"


def test_blind_to_progress_sjf_keeps_the_short_one_first() -> None:
    jobs = [make_job("short", 200), make_job("nearly", 1000, Phase.RUNNING, generated=990)]
    assert first(jobs, Policy(name="sjf")) == "short"


def test_fcfs_is_the_order_of_arrival_at_the_neutral_level() -> None:
    wanted = ranks([make_job("first", 1000), make_job("second", 1, waited=500.0)], Policy(name="fcfs"))
    assert wanted["first"] == Rank(0, 1)
    assert wanted["second"] == Rank(0, 2)


def test_gittins_prefers_a_gamble_with_an_early_end_to_a_sure_middle() -> None:
    gamble = make_job("gamble", lengths=sane([5] * 5 + [2000] * 5))
    sure = make_job("sure", lengths=sane([300] * 10))
    assert first([sure, gamble], Policy(name="gittins")) == "gamble"
    assert first([sure, gamble], Policy(name="alise")) == "sure"


def test_gittins_gives_a_job_that_might_end_at_once_a_try_and_no_second_one() -> None:
    """A wide prediction goes before a sure one of half its mean until it has passed where a surprise would have been."""
    quantiles = sane([16, 100, 200, 300, 400, 500, 600, 700, 800, 900])
    sure = make_job("sure", lengths=sane([150] * 10))
    policy = Policy(name="gittins")
    assert first([sure, make_job("wide", lengths=quantiles)], policy) == "wide"
    assert first([sure, make_job("wide", 0, Phase.RUNNING, 40, lengths=quantiles)], policy) == "sure"


def test_gittins_of_a_known_length_is_that_length() -> None:
    snapshot = make_snapshot([make_job("a", 100)])
    known = gittins_seconds(view_of(snapshot))[0]
    assert known == pytest.approx(snapshot.cost.seconds_left(np.array([10.0]), np.array([100.0]), np.array([10.0]))[0], rel=0.06)


def level_of(seconds: float, weight: float, neutral_seconds: float) -> float:
    return float(base_levels(np.array([seconds]), np.array([weight]), neutral_seconds)[0])


def test_a_long_prompt_before_a_gamble_makes_it_a_worse_one() -> None:
    """The same answer behind 10 and behind 1,000 tokens of prompt: the prefill is spent whether the answer ends early or not."""
    view = view_of(make_snapshot([replace(make_job("a", 50), prompt_tokens=10), replace(make_job("b", 50), prompt_tokens=1000)]))
    little, much = gittins_seconds(view)
    assert much - little >= view.snapshot.cost.coefficients.prefill_seconds * 990


def test_the_typical_job_is_at_the_neutral_level() -> None:
    assert level_of(2.5, 1.0, neutral_seconds=2.5) == 0


def test_four_levels_are_a_factor_of_two() -> None:
    assert level_of(5.0, 1.0, 2.5) == 4
    assert level_of(1.25, 1.0, 2.5) == -4


def test_a_weight_of_two_is_worth_half_the_work() -> None:
    assert level_of(5.0, 2.0, 2.5) == 0


@pytest.mark.parametrize("seconds", [pytest.param(0.0, id="no work"), pytest.param(1e30, id="absurd work")])
def test_levels_stay_inside_the_base_span(seconds: float) -> None:
    assert abs(level_of(seconds, 1.0, 1.0)) == BASE_SPAN


def test_a_long_wait_promotes_a_long_job_past_a_fresh_short_one() -> None:
    waited = starvation_bound_seconds(AGEING)
    assert first([make_job("short", 1), make_job("long", 4000, waited=waited)]) == "long"


def test_ageing_slows_down_with_the_backlog_between_its_bounds() -> None:
    assert [promote_seconds(AGEING, backlog, neutral_seconds=1.0) for backlog in (0.0, 30.0, 1e9)] == [10.0, 30.0, 60.0]


def test_the_typical_job_moves_slowly_and_never_to_nonsense() -> None:
    assert neutral_after(100.0, 10_000.0) == pytest.approx(100 * 100**0.02)
    assert neutral_after(100.0, math.nan) == 100.0
    assert neutral_after(100.0, -1.0) == 100.0


def test_the_order_wraps_inside_its_range() -> None:
    assert order_of(2**31 + 5) == 5


jobs = st.builds(
    make_job,
    tokens=st.one_of(st.integers(1, 5000), st.just(10**9)),
    phase=st.sampled_from(Phase),
    generated=st.integers(0, 6000),
    waited=st.floats(0, 5000),
    weight=st.sampled_from([1 / 16, 0.5, 1.0, 4.0, 16.0]),
    samples=st.integers(1, 4),
    max_tokens=st.sampled_from([0, 1, 100, 10**9]),
)
many = st.lists(jobs, max_size=12).map(lambda made: [with_id(job, f"j{number}") for number, job in enumerate(made)])
policies = st.builds(Policy, name=st.sampled_from(sorted(POLICIES)), ageing=st.sampled_from([None, AGEING]))


def with_id(job: Job, name: str) -> Job:
    generated = max((request.generated_tokens for request in job.requests.values()), default=0)
    return replace(
        make_job(name, 1, job.phase, generated),
        lengths=job.lengths,
        waited_seconds=job.waited_seconds,
        weight=job.weight,
        max_tokens=job.max_tokens,
        samples=job.samples,
    )


@given(many, policies)
def test_the_same_snapshot_gives_the_same_decision(made: list[Job], policy: Policy) -> None:
    one, two = (decide(make_snapshot(made), policy) for _ in range(2))
    assert ranks_of(one) == ranks_of(two)
    assert one.plan == two.plan
    assert one.limits == two.limits


@given(many, policies)
def test_ranks_are_always_in_the_contracts_range(made: list[Job], policy: Policy) -> None:
    for rank in ranks(made, policy).values():
        assert MIN_LEVEL <= rank.level <= MAX_LEVEL
        assert 0 <= rank.order < 2**31
        assert rank.ewt_ms >= 0


@given(st.floats(1, 1e6), st.floats(0, 1e4), st.floats(0, 1e4), st.sampled_from(sorted(POLICIES)))
def test_with_ageing_alone_a_longer_wait_never_ranks_worse(tokens: float, waited: float, more: float, name: str) -> None:
    policy = Policy(name=name, lateness=None)
    wanted = ranks([make_job("less", tokens, waited=waited), make_job("more", tokens, waited=waited + more)], policy)
    assert wanted["more"].level <= wanted["less"].level


@settings(max_examples=200)
@given(
    st.floats(1, 1e6), st.floats(1, 1e6), st.floats(0, 1e5), st.floats(0.001, 1000), st.integers(0, 40),
    st.sampled_from(sorted(POLICIES)), st.sampled_from([1 / 16, 1.0, 16.0]), st.integers(0, 2000),
)  # fmt: skip
def test_with_ageing_alone_no_job_starves(
    old: float, young: float, age: float, neutral: float, others: int, name: str, weight: float, generated: int
) -> None:
    """A job that arrived the bound earlier is not behind a later one, whatever the lengths, weights, progress and load."""
    made = [
        make_job("old", old, waited=age + starvation_bound_seconds(AGEING), weight=weight),
        make_job("young", young, Phase.RUNNING, generated, waited=age),
    ]
    made += [make_job(f"other{number}", 3000) for number in range(others)]
    wanted = ranks(made, Policy(name=name, ageing=AGEING, lateness=None), neutral)
    assert (wanted["old"].level, wanted["old"].order) < (wanted["young"].level, wanted["young"].order)


LATENESS = LatenessRule(slowdown=6.0, overdue_seconds=210.0)


@settings(max_examples=200)
@given(many, st.sampled_from(["boost", "alise", "gittins"]), st.sampled_from([None, AGEING]), st.floats(0.001, 1000))
def test_the_oldest_of_the_overdue_go_first_in_the_order_of_arrival(
    made: list[Job], name: str, ageing: AgeingRule | None, neutral: float
) -> None:
    """What ranks before one of them arrived before it, whatever the lengths, weights, progress and load: the claim of rank.py."""
    made = sorted(made, key=lambda job: job.arrived_at)
    policy = Policy(name=name, ageing=ageing, lateness=LATENESS)
    decision = decide(make_snapshot(made, neutral=neutral), policy)
    old = overdue(make_snapshot(made, neutral=neutral), LATENESS, decision.load.slots).tolist()
    assert decision.rows[: len(old)].tolist() == old
    assert bool(old) == any(job.age_seconds(0.0) > LATENESS.overdue_seconds for job in made)


def test_overdue_jobs_take_half_of_the_slots_and_leave_the_others() -> None:
    shape = replace(SHAPE, max_num_seqs=4, num_device_blocks=10_000)
    made = [make_job(f"old{number}", 3000, arrived_at=-1000.0) for number in range(4)] + [make_job("short", 1), make_job("brief", 2)]
    decision = decide(make_snapshot(made, shape), Policy())
    assert [decision.ranks.jobs[row] for row in decision.rows[:4]] == ["old0", "old1", "short", "brief"]


def test_a_job_that_cannot_be_in_time_any_more_gives_way_to_one_that_can() -> None:
    """The first one, of about a second, has waited for ten; its age would put it first."""
    made = [make_job("late", 100, arrived_at=-10.0), make_job("fresh", 400)]
    assert first(made, Policy(lateness=None)) == "late"
    assert first(made) == "fresh"


def test_what_is_late_is_so_by_its_own_size() -> None:
    made = [make_job("long", 1000, arrived_at=-20.0), make_job("short", 10, arrived_at=-20.0)]
    assert late(view_of(make_snapshot(made)), LATENESS).tolist() == [False, True]


def test_a_job_that_runs_on_and_on_is_longer_than_was_thought_and_in_time() -> None:
    made = [make_job("a", 100, Phase.RUNNING, generated, arrived_at=-15.0) for generated in (0, 1500)]
    assert [late(view_of(make_snapshot([job])), LATENESS).tolist() for job in made] == [[True], [False]]


def test_what_a_large_batch_costs_is_not_lateness() -> None:
    """A token takes 10 ms alone, and a step of a thousand requests ten times as long: running from the start, a job has taken that."""
    made = [make_job("running", 100, Phase.RUNNING, 90, arrived_at=-9.5)]
    snapshot = make_snapshot(made)
    busy = replace(snapshot, cost=CostModel(snapshot.cost.coefficients, batch=450.0))
    assert [late(view_of(one), LATENESS).tolist() for one in (snapshot, busy)] == [[True], [False]]


def test_without_load_nothing_is_late_and_the_order_is_as_without_the_rule() -> None:
    made = [make_job(f"j{tokens}", tokens, arrived_at=-1.0) for tokens in (900, 30, 100)]
    assert ranks(made) == ranks(made, Policy(lateness=None))


@pytest.mark.parametrize("name", ["fcfs", "sjf"])
def test_orders_that_promise_something_else_know_no_lateness(name: str) -> None:
    assert lateness_of(Policy(name=name)) is None


def test_a_late_job_expects_its_turn_when_it_is_overdue() -> None:
    made = [make_job("late", 100, arrived_at=-200.0), *[make_job(f"j{number}", 100) for number in range(400)]]
    waits = decide(make_snapshot(made), Policy(lateness=LATENESS)).waits_seconds
    assert waits[0] == pytest.approx(10.0)


def test_with_boost_a_very_long_job_is_no_worse_than_a_long_one() -> None:
    policy = Policy(ageing=AgeingRule(jobs=3.0, backlog=0.0))
    wanted = ranks([make_job(f"j{tokens}", tokens) for tokens in (100, 3000, 4000)], policy, neutral=1.0)
    assert wanted["j100"].level < wanted["j3000"].level
    assert wanted["j3000"].level == wanted["j4000"].level


def test_a_job_that_has_run_for_long_is_as_old_as_one_that_has_waited() -> None:
    running = make_job("running", 2000, Phase.RUNNING, generated=500, arrived_at=-1000.0)
    assert first([make_job("short", 200), running]) == "running"

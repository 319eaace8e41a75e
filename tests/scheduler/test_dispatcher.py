"""When the dispatcher makes a plan, and what the plan sends. The engine is in memory and time is fake."""

import asyncio
from itertools import pairwise

import pytest

from alise_contract.names import MIN_LEVEL, PLAN_EXPIRES_SECONDS
from alise_scheduler.admissions import Admitted
from alise_scheduler.core.decide import Decision
from alise_scheduler.core.rank import LatenessRule, Policy
from alise_scheduler.core.reports import EngineShape, Phase, Step
from alise_scheduler.dispatcher import CHANGE_SECONDS, PLAN_SECONDS, REFRESH_SECONDS
from tests.scheduler.builders import make_request, make_state
from tests.scheduler.fake_engine import FakeEngine
from tests.scheduler.running_dispatcher import Bench, running


async def test_a_job_is_ranked_once_the_engine_has_it(bench: Bench) -> None:
    await bench.admit("a")
    await bench.clock.advance(1.0)
    assert bench.ranked("a") == []
    bench.engine.report(make_request("a"))
    await bench.clock.advance(0.1)
    assert len(bench.ranked("a")) == 1


async def test_the_plan_never_expires_in_an_idle_engine(bench: Bench) -> None:
    moments = []
    for _ in range(100):
        before = len(bench.engine.applied)
        await bench.clock.advance(0.1)
        if len(bench.engine.applied) > before:
            moments.append(bench.clock.time)
    gaps = [after - before for before, after in pairwise(moments)]
    assert len(moments) >= 10
    assert max(gaps) <= PLAN_EXPIRES_SECONDS / 2


async def test_the_plan_never_expires_after_a_decision_that_took_long(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    decide, slow = bench.state.decide, iter([0.4])

    def decide_slowly(at: float) -> Decision:
        bench.clock.time += next(slow, 0.0)
        return decide(at)

    monkeypatch.setattr(bench.state, "decide", decide_slowly)
    moments = [bench.clock.time]
    for _ in range(40):
        before = len(bench.engine.applied)
        await bench.clock.advance(0.1)
        if len(bench.engine.applied) > before:
            moments.append(bench.clock.time)
    assert next(slow, None) is None
    assert max(after - before for before, after in pairwise([*moments, bench.clock.time])) <= 0.75 * PLAN_EXPIRES_SECONDS


async def test_idle_plans_are_empty(bench: Bench) -> None:
    await bench.clock.advance(5.0)
    assert all(not plan.ranks and plan.limits is None for plan in bench.plans()[1:])


async def test_events_close_together_are_one_plan(bench: Bench) -> None:
    before = len(bench.plans())
    for number in range(50):
        bench.engine.report(make_request(f"j{number}"))
    await bench.clock.advance(0.04)
    assert sum(1 for plan in bench.plans()[before:] if plan.ranks) == 1


async def test_steps_alone_ask_for_no_plan(bench: Bench) -> None:
    await bench.enter("a", Phase.RUNNING)
    before = bench.metric("alise_scheduler_plan_seconds_count")
    for _ in range(100):
        bench.engine.steps(Step(0.01, 0, 1, 100))
        await bench.clock.advance(0.02)
    assert bench.metric("alise_scheduler_plan_seconds_count") - before <= 2 / REFRESH_SECONDS + 1


async def test_one_apply_is_in_flight_at_most(bench: Bench) -> None:
    bench.engine.apply_gate = asyncio.Event()
    bench.engine.report(make_request("a"))
    await bench.clock.advance(0.1)
    before = len(bench.plans())
    bench.engine.report(make_request("b"))
    await bench.clock.advance(3.0)
    assert len(bench.plans()) == before
    bench.engine.apply_gate.set()
    await bench.clock.advance(0.1)
    assert bench.ranked("a")
    assert bench.ranked("b")


async def test_the_engine_hears_of_a_changed_rank_only(bench: Bench) -> None:
    await bench.enter("a", Phase.RUNNING, max_tokens=2000)
    bench.engine.report(make_request("a", Phase.RUNNING, generated_tokens=120))
    await bench.clock.advance(CHANGE_SECONDS)
    first = len(bench.ranked("a"))
    bench.engine.report(make_request("a", Phase.RUNNING, generated_tokens=121))
    await bench.clock.advance(CHANGE_SECONDS)
    assert len(bench.ranked("a")) == first
    bench.engine.report(make_request("a", Phase.RUNNING, generated_tokens=900))
    await bench.clock.advance(CHANGE_SECONDS)
    assert len(bench.ranked("a")) == first + 1


async def test_a_job_that_waits_without_a_rank_is_planned_for_at_once(bench: Bench) -> None:
    for number in range(4):
        await bench.enter(f"long{number}", Phase.RUNNING, max_tokens=2000)
    bench.engine.report(make_request("short", Phase.WAITING))
    await bench.clock.advance(2 * PLAN_SECONDS)
    assert len(bench.ranked("short")) == 1


async def test_a_job_that_waits_by_its_stamp_is_not_ranked_again(bench: Bench) -> None:
    for number in range(4):
        await bench.enter(f"long{number}", Phase.RUNNING, max_tokens=2000)
    answer = await bench.admit("short", max_tokens=5)
    before = len(bench.plans())
    bench.engine.report(make_request("short", Phase.WAITING, priority=answer.priority))
    await bench.clock.advance(2 * PLAN_SECONDS)
    assert len(bench.plans()) == before


async def test_a_stamp_that_is_not_worth_its_rank_any_more_is_corrected(bench: Bench) -> None:
    for number in range(4):
        await bench.enter(f"long{number}", Phase.RUNNING, max_tokens=2000)
    answer = await bench.admit("short", max_tokens=5)
    bench.engine.report(make_request("short", Phase.WAITING, priority=answer.priority + 5 * 2**32))
    await bench.clock.advance(CHANGE_SECONDS)
    assert bench.ranked("short") == [answer.level]


async def test_while_no_job_waits_plans_come_only_to_be_renewed() -> None:
    async with running(make_state(), FakeEngine(EngineShape(max_num_seqs=64))) as bench:
        bench.engine.boot()
        await bench.clock.advance(0.1)
        before = bench.metric("alise_scheduler_plan_seconds_count")
        for number in range(20):
            answer = await bench.admit(f"j{number}")
            bench.engine.report(make_request(f"j{number}", Phase.RUNNING, priority=answer.priority))
            await bench.clock.advance(0.1)
        assert bench.metric("alise_scheduler_plan_seconds_count") - before <= 2 / REFRESH_SECONDS + 1


@pytest.mark.parametrize("phase", [Phase.OFFLOADED, Phase.PREEMPTED, Phase.RESTORING])
async def test_when_the_first_job_is_put_aside_a_plan_is_due(phase: Phase) -> None:
    async with running(make_state(), FakeEngine(EngineShape(max_num_seqs=64))) as bench:
        bench.engine.boot()
        await bench.clock.advance(0.1)
        for number in range(3):
            await bench.enter(f"j{number}", Phase.RUNNING, max_tokens=2000)
        await bench.clock.advance(REFRESH_SECONDS + CHANGE_SECONDS)
        before = bench.metric("alise_scheduler_plan_seconds_count")
        bench.engine.report(make_request("j0", phase, generated_tokens=300))
        await bench.clock.advance(2 * PLAN_SECONDS)
        assert bench.metric("alise_scheduler_plan_seconds_count") == before + 1


async def test_jobs_that_go_on_are_planned_for_now_and_then(bench: Bench) -> None:
    await bench.enter("a", Phase.RUNNING, max_tokens=2000)
    before = bench.metric("alise_scheduler_plan_seconds_count")
    for tokens in range(1, 101):
        bench.engine.report(make_request("a", Phase.RUNNING, generated_tokens=10 * tokens))
        await bench.clock.advance(0.02)
    assert bench.metric("alise_scheduler_plan_seconds_count") - before <= 2 / CHANGE_SECONDS + 1


async def test_a_tenant_that_meets_another_at_a_full_engine_is_planned_for_at_once(bench: Bench) -> None:
    for number in range(4):
        await bench.enter(f"flood{number}", Phase.RUNNING, tenant="flood")
    before = bench.metric("alise_scheduler_plan_seconds_count")
    await bench.admit("quiet", tenant="quiet")
    await bench.clock.advance(2 * PLAN_SECONDS)
    assert bench.metric("alise_scheduler_plan_seconds_count") == before + 1


async def test_waiting_promotes_without_any_event(bench: Bench) -> None:
    """First by its age; once it is late, when it is overdue."""
    await bench.enter("a")
    await bench.clock.advance(LatenessRule().overdue_seconds + 1.0)
    levels = bench.ranked("a")
    late = levels.index(max(levels))
    assert levels[:late] == sorted(levels[:late], reverse=True)
    assert levels[-1] == MIN_LEVEL


async def test_a_clock_that_goes_backwards_stands_still(bench: Bench) -> None:
    await bench.enter("a")
    bench.clock.time -= 50.0
    answer = await bench.admit("b")
    assert isinstance(answer, Admitted)
    assert bench.state.book.jobs["b"].arrived_at >= bench.state.book.jobs["a"].arrived_at


async def test_ranks_follow_the_configured_policy() -> None:
    async with running(make_state(policy=Policy(name="fcfs"))) as bench:
        bench.engine.boot()
        answer = await bench.enter("a", max_tokens=1)
        assert answer.level == 0
        assert bench.ranked("a") == [0]

"""The single writer against the fake engine, in fake time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from alise_contract.names import MIN_LEVEL, PLAN_EXPIRES_SECONDS, unpack_priority
from alise_scheduler.core.admit import AdmitLimits, Reason, Rejected
from alise_scheduler.core.decide import Decision
from alise_scheduler.core.plan import Plan
from alise_scheduler.core.rank import LatenessRule, Policy, PreemptionRule
from alise_scheduler.core.reports import EngineEvent, EngineShape, FinishReason, Phase, Step
from alise_scheduler.dispatcher import CHANGE_SECONDS, MAX_INBOX, PLAN_SECONDS, REFRESH_SECONDS, Dispatcher
from alise_scheduler.errors import EngineUnavailableError, InboxFullError, SessionLostError
from alise_scheduler.metrics import BATCH
from alise_scheduler.state import Admitted, ClassRule, State
from tests.scheduler.builders import FakeClock, make_ask, make_request, make_state, settle
from tests.scheduler.fake_engine import FakeEngine


@dataclass
class Bench:
    state: State
    engine: FakeEngine
    clock: FakeClock
    dispatcher: Dispatcher
    task: "asyncio.Task[None]"

    async def admit(self, job_id: str, **fields: object) -> Admitted:
        answer = await self.dispatcher.admit(make_ask(job_id, **fields))
        assert isinstance(answer, Admitted)
        return answer

    async def enter(self, job_id: str, phase: Phase = Phase.WAITING, **fields: object) -> Admitted:
        """Admits a job and lets it show up in the engine."""
        answer = await self.admit(job_id, **fields)
        self.engine.report(make_request(job_id, phase, hint=answer.hint))
        await self.clock.advance(0.05)
        return answer

    def plans(self) -> list[Plan]:
        return [plan for _, _, plan in self.engine.applied]

    def ranked(self, job_id: str) -> list[int]:
        return [plan.ranks[job_id].level for plan in self.plans() if job_id in plan.ranks]

    def metric(self, name: str, **labels: str) -> float:
        return self.state.metrics.registry.get_sample_value(name, labels) or 0.0


@contextlib.asynccontextmanager
async def running(state: State, engine: FakeEngine | None = None) -> AsyncIterator[Bench]:
    engine, clock = engine or FakeEngine(), FakeClock()
    dispatcher = Dispatcher(state, engine, clock)
    task = asyncio.create_task(dispatcher.run())
    try:
        yield Bench(state, engine, clock, dispatcher, task)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running(make_state()) as made:
        made.engine.boot()
        await made.clock.advance(0.1)
        yield made


async def test_an_admitted_job_gets_a_priority_and_a_hint(bench: Bench) -> None:
    answer = await bench.admit("a", max_tokens=5)
    level, order = unpack_priority(answer.priority)
    assert level == answer.level < 0
    assert order == 1
    assert answer.hint


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


async def test_sequences_count_up_from_one_in_each_session(bench: Bench) -> None:
    await bench.clock.advance(2.0)
    bench.engine.lose_session()
    bench.engine.open_session()
    await bench.clock.advance(2.0)
    for session in ("session-1", "session-2"):
        numbers = [sequence for name, sequence, _ in bench.engine.applied if name == session]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers


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


async def test_no_request_is_refused_for_work_that_is_done() -> None:
    async with running(make_state(limits=AdmitLimits(max_wait_seconds=1.0))) as bench:
        bench.engine.boot()
        await bench.clock.advance(0.1)
        answers = [await bench.dispatcher.admit(make_ask(f"j{number}", prompt=f"{number}")) for number in range(12)]
        for number, answer in enumerate(answers):
            if isinstance(answer, Admitted):
                bench.engine.report(make_request(f"j{number}", Phase.RUNNING))
                bench.engine.finish(f"r-j{number}")
        await settle()
        assert isinstance(await bench.dispatcher.admit(make_ask("next")), Admitted)


async def test_waiting_promotes_without_any_event(bench: Bench) -> None:
    """First by its age; once it is late, when it is overdue."""
    await bench.enter("a")
    await bench.clock.advance(LatenessRule().overdue_seconds + 1.0)
    levels = bench.ranked("a")
    late = levels.index(max(levels))
    assert levels[:late] == sorted(levels[:late], reverse=True)
    assert levels[-1] == MIN_LEVEL


async def test_an_admitted_job_that_never_comes_expires_after_five_seconds(bench: Bench) -> None:
    await bench.admit("a")
    await bench.clock.advance(4.8)
    assert bench.dispatcher.status()["jobs"]["admitted"] == 1
    await bench.clock.advance(1.0)
    assert bench.dispatcher.status()["jobs"]["admitted"] == 0
    assert bench.metric("alise_scheduler_jobs_expired_total") == 1


async def test_a_job_admitted_twice_is_one_job(bench: Bench) -> None:
    one = await bench.admit("a")
    two = await bench.admit("a")
    assert unpack_priority(one.priority)[1] == unpack_priority(two.priority)[1]
    assert bench.dispatcher.status()["jobs"]["admitted"] == 1
    assert bench.state.load.live == 1


async def test_a_caller_that_gave_up_leaves_no_job(bench: Bench) -> None:
    call = asyncio.create_task(bench.dispatcher.admit(make_ask("a")))
    await asyncio.sleep(0)
    call.cancel()
    await settle()
    assert bench.state.load.live == 0


async def test_a_request_that_failed_open_is_ranked_as_average(bench: Bench) -> None:
    bench.engine.report(make_request("around"))
    await bench.clock.advance(0.1)
    # Not far enough from the neutral level to preempt what is there, or to be preempted by it.
    assert abs(bench.ranked("around")[0]) < PreemptionRule().levels


async def test_a_restarted_sidecar_knows_a_job_by_its_hint(bench: Bench) -> None:
    await bench.enter("short", max_tokens=3)
    engine = FakeEngine()
    engine.boot()
    async with running(make_state(), engine) as reborn:
        engine.requests = {"r-short": bench.engine.requests["r-short"]}
        engine.lose_session()
        engine.open_session()
        await reborn.clock.advance(0.1)
        assert abs(reborn.ranked("short")[-1] - bench.ranked("short")[0]) <= 1


async def test_a_foreign_hint_is_ignored(bench: Bench) -> None:
    bench.engine.report(make_request("a", hint=b"\xff" * 100))
    await bench.clock.advance(0.1)
    assert abs(bench.ranked("a")[0]) < PreemptionRule().levels


async def test_a_fresh_engine_starts_with_no_jobs_and_everything_is_sent_anew(bench: Bench) -> None:
    await bench.enter("old")
    await bench.admit("on its way")
    bench.engine.boot()
    await bench.clock.advance(0.1)
    status = bench.dispatcher.status()
    assert sum(status["jobs"].values()) == 0
    assert bench.plans()[-1].limits is not None
    assert bench.metric("alise_scheduler_engine_boots_total") == 2


async def test_a_new_session_of_the_same_engine_keeps_what_is_on_its_way(bench: Bench) -> None:
    await bench.admit("on its way")
    bench.engine.lose_session()
    bench.engine.open_session()
    await bench.clock.advance(0.1)
    assert bench.dispatcher.status()["jobs"]["admitted"] == 1


async def test_an_engine_restart_in_the_middle_of_a_plan_leaves_no_trace_of_it(bench: Bench) -> None:
    gate = bench.engine.apply_gate = asyncio.Event()
    bench.engine.report(make_request("old"))
    await bench.clock.advance(0.1)
    bench.engine.boot()
    await settle()
    gate.set()
    bench.engine.report(make_request("old"))
    await bench.clock.advance(0.2)
    assert "old" in bench.plans()[-1].ranks or any("old" in plan.ranks for name, _, plan in bench.engine.applied if name == "session-2")


async def test_while_disconnected_nothing_is_sent_and_requests_are_still_admitted(bench: Bench) -> None:
    bench.engine.lose_session()
    await bench.clock.advance(0.1)
    before = len(bench.plans())
    await bench.admit("a")
    await bench.clock.advance(3.0)
    assert len(bench.plans()) == before
    assert bench.metric("alise_scheduler_engine_connected") == 0


async def test_a_failed_apply_is_sent_again(bench: Bench) -> None:
    bench.engine.failures = [EngineUnavailableError("the test says so")]
    bench.engine.report(make_request("a"))
    await bench.clock.advance(0.1)
    assert bench.ranked("a") == []
    await bench.clock.advance(0.5)
    assert len(bench.ranked("a")) == 1
    assert bench.metric("alise_scheduler_apply_failures_total", reason="unavailable") == 1


async def test_a_lost_session_is_opened_again(bench: Bench) -> None:
    bench.engine.failures = [SessionLostError("the test says so")]
    bench.engine.report(make_request("a"))
    await bench.clock.advance(1.0)
    assert bench.engine.reconnects == 1
    assert bench.dispatcher.status()["session_id"] == "session-2"
    assert bench.ranked("a")


async def test_an_engine_that_never_applies_is_reconnected_to(bench: Bench) -> None:
    bench.engine.failures = [EngineUnavailableError("hung")] * 3
    await bench.clock.advance(2.0)
    assert bench.engine.reconnects == 1


async def test_jobs_the_engine_does_not_have_are_sent_again_when_it_has_them(bench: Bench) -> None:
    await bench.enter("a")
    request = bench.engine.requests.pop("r-a")
    # Ageing changes the rank: it is sent once, and not again while the engine does not have the job.
    await bench.clock.advance(3.0)
    assert bench.metric("alise_scheduler_apply_unknown_jobs_total") == 1
    before = len(bench.ranked("a"))
    bench.engine.report(request)
    await bench.clock.advance(0.1)
    assert len(bench.ranked("a")) == before + 1


async def test_an_impossible_report_asks_for_a_snapshot(bench: Bench) -> None:
    await bench.enter("a", Phase.RUNNING)
    bench.engine.report(make_request("a", Phase.WAITING))
    await bench.clock.advance(0.2)
    assert bench.engine.reconnects == 1
    assert bench.metric("alise_scheduler_refused_reports_total") == 1
    assert bench.dispatcher.status()["jobs"]["waiting"] == 1


async def test_a_draining_engine_rejects_and_a_fresh_one_does_not(bench: Bench) -> None:
    bench.engine.drain()
    await bench.clock.advance(0.1)
    answer = await bench.dispatcher.admit(make_ask("a"))
    assert isinstance(answer, Rejected)
    assert answer.reason is Reason.DRAINING
    bench.engine.draining = False
    bench.engine.boot()
    await bench.clock.advance(0.1)
    assert isinstance(await bench.dispatcher.admit(make_ask("b")), Admitted)


async def test_the_predicted_wait_counts_those_admitted_at_once(bench: Bench) -> None:
    asks = [make_ask(f"j{number}", neutral=True, slo_ttft_ms=1) for number in range(4)]
    answers = await asyncio.gather(*(bench.dispatcher.admit(ask) for ask in asks))
    # The fake engine has two slots: a job that arrives at a free slot does not wait.
    assert [type(answer) for answer in answers] == [Admitted] * 2 + [Rejected] * 2


async def test_the_wait_limit_rejects_with_a_time_to_come_back() -> None:
    async with running(make_state(limits=AdmitLimits(max_wait_seconds=1.0))) as bench:
        bench.engine.boot()
        await bench.clock.advance(0.1)
        answers = [await bench.dispatcher.admit(make_ask(f"j{number}", prompt=f"{number}")) for number in range(12)]
        rejected = [answer for answer in answers if isinstance(answer, Rejected)]
        assert rejected
        assert rejected[0].reason is Reason.WAIT_TOO_LONG
        assert rejected[0].retry_after_seconds >= 1


async def test_a_class_has_its_weight_and_its_objective() -> None:
    classes = {"gold": ClassRule(weight=4.0), "strict": ClassRule(slo_ttft_ms=1)}
    async with running(make_state(classes=classes)) as bench:
        bench.engine.boot()
        await bench.clock.advance(0.1)
        plain = await bench.admit("plain")
        gold = await bench.admit("gold", objective="gold")
        # Two doublings, of which the boost's curve takes a little.
        assert gold.level == pytest.approx(plain.level - 8, abs=1)
        assert isinstance(await bench.dispatcher.admit(make_ask("strict", objective="strict")), Rejected)


async def test_it_learns_from_what_ends(bench: Bench) -> None:
    for number in range(BATCH):
        await bench.enter(f"j{number}", Phase.RUNNING)
        bench.engine.report(make_request(f"j{number}", Phase.RUNNING, generated_tokens=7))
        bench.engine.finish(f"r-j{number}", FinishReason.STOP)
        await bench.clock.advance(0.05)
    assert (await bench.admit("next")).predicted_tokens == pytest.approx(7, rel=0.3)
    assert bench.metric("alise_scheduler_requests_ended_total", reason="stop") == BATCH
    assert bench.metric("alise_scheduler_length_ratio_count") == BATCH


async def test_a_clock_that_goes_backwards_stands_still(bench: Bench) -> None:
    await bench.enter("a")
    bench.clock.time -= 50.0
    answer = await bench.admit("b")
    assert isinstance(answer, Admitted)
    assert bench.state.book.jobs["b"].arrived_at >= bench.state.book.jobs["a"].arrived_at


async def test_a_full_inbox_refuses_instead_of_growing(bench: Bench) -> None:
    calls = [asyncio.create_task(bench.dispatcher.admit(make_ask(f"j{number}"))) for number in range(MAX_INBOX + 1)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(answer, InboxFullError) for answer in answers) == 1


async def test_when_the_dispatcher_dies_its_callers_are_let_go() -> None:
    class Broken(FakeEngine):
        async def events(self) -> AsyncIterator[EngineEvent]:
            raise RuntimeError("a bug")
            yield

    state, clock = make_state(), FakeClock()
    with pytest.raises(RuntimeError, match="a bug"):
        await Dispatcher(state, Broken(), clock).run()


async def test_ranks_follow_the_configured_policy() -> None:
    async with running(make_state(policy=Policy(name="fcfs"))) as bench:
        bench.engine.boot()
        answer = await bench.enter("a", max_tokens=1)
        assert answer.level == 0
        assert bench.ranked("a") == [0]


async def test_hints_are_kept_when_later_reports_have_none(bench: Bench) -> None:
    await bench.enter("a", max_tokens=3)
    bench.engine.report(replace(bench.engine.requests["r-a"], phase=Phase.RUNNING, generated_tokens=1))
    await bench.clock.advance(0.1)
    assert bench.state.book.jobs["a"].lengths.tokens[-1] <= 3

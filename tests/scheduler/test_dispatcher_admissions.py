"""What the dispatcher answers to admissions, and what becomes of the admitted jobs."""

import asyncio
from dataclasses import replace

import pytest

from alise_contract.names import unpack_priority
from alise_scheduler.admissions import Admitted, ClassRule
from alise_scheduler.core.admit import AdmitLimits, Reason, Rejected
from alise_scheduler.core.rank import PreemptionRule
from alise_scheduler.core.reports import FinishReason, Phase
from alise_scheduler.dispatcher import MAX_INBOX
from alise_scheduler.errors import InboxFullError
from alise_scheduler.metrics import BATCH
from tests.scheduler.builders import make_ask, make_request, make_state, settle
from tests.scheduler.fake_engine import FakeEngine
from tests.scheduler.running_dispatcher import Bench, running


async def test_an_admitted_job_gets_a_priority_and_a_hint(bench: Bench) -> None:
    answer = await bench.admit("a", max_tokens=5)
    level, order = unpack_priority(answer.priority)
    assert level == answer.level < 0
    assert order == 1
    assert answer.hint


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


async def test_a_hint_that_is_not_signed_here_is_ignored(bench: Bench) -> None:
    bench.engine.report(make_request("a", hint=b"\xff" * 100))
    await bench.clock.advance(0.1)
    assert abs(bench.ranked("a")[0]) < PreemptionRule().levels


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


@pytest.mark.parametrize("named", ["", "unknown", "default"])
async def test_a_class_called_default_is_that_of_requests_without_a_class(named: str) -> None:
    async with running(make_state(classes={"default": ClassRule(weight=0.25), "usual": ClassRule()})) as bench:
        bench.engine.boot()
        await bench.clock.advance(0.1)
        usual = await bench.admit("usual", objective="usual")
        light = await bench.admit("light", objective=named)
        # Two doublings, of which the boost's curve takes a little.
        assert light.level == pytest.approx(usual.level + 8, abs=1)


async def test_it_learns_from_what_ends(bench: Bench) -> None:
    count = 3 * BATCH
    for number in range(count):
        await bench.enter(f"j{number}", Phase.RUNNING)
        bench.engine.report(make_request(f"j{number}", Phase.RUNNING, generated_tokens=7))
        bench.engine.finish(f"r-j{number}", FinishReason.STOP)
        await bench.clock.advance(0.05)
    assert (await bench.admit("next")).predicted_tokens == pytest.approx(7, rel=0.3)
    assert bench.metric("alise_scheduler_requests_ended_total", reason="stop", **{"class": "default"}) == count
    assert bench.metric("alise_scheduler_length_ratio_count") == count


async def test_a_full_inbox_refuses_instead_of_growing(bench: Bench) -> None:
    calls = [asyncio.create_task(bench.dispatcher.admit(make_ask(f"j{number}"))) for number in range(MAX_INBOX + 1)]
    await asyncio.sleep(0)
    # The dispatcher has not had its turn. It leaves out those whose callers have given up.
    for call in calls[1:-1]:
        call.cancel()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers[0], Admitted)
    assert [type(answer) for answer in answers[1:-1]] == [asyncio.CancelledError] * (MAX_INBOX - 1)
    assert isinstance(answers[-1], InboxFullError)


async def test_hints_are_kept_when_later_reports_have_none(bench: Bench) -> None:
    await bench.enter("a", max_tokens=3)
    bench.engine.report(replace(bench.engine.requests["r-a"], phase=Phase.RUNNING, generated_tokens=1))
    await bench.clock.advance(0.1)
    assert bench.state.book.jobs["a"].lengths.tokens[-1] <= 3

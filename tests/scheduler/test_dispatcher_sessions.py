"""The dispatcher across restarts, broken sessions and plans that cannot be applied."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from alise_scheduler.admissions import Admitted
from alise_scheduler.core.admit import Reason, Rejected
from alise_scheduler.core.reports import EngineEvent, Phase
from alise_scheduler.dispatcher import Dispatcher
from alise_scheduler.errors import EngineUnavailableError, SessionLostError
from tests.scheduler.builders import FakeClock, make_ask, make_request, make_state, settle
from tests.scheduler.fake_engine import FakeEngine
from tests.scheduler.running_dispatcher import Bench


async def test_sequences_count_up_from_one_in_each_session(bench: Bench) -> None:
    await bench.clock.advance(2.0)
    bench.engine.lose_session()
    bench.engine.open_session()
    await bench.clock.advance(2.0)
    for session in ("session-1", "session-2"):
        numbers = [sequence for name, sequence, _ in bench.engine.applied if name == session]
        assert numbers == list(range(1, len(numbers) + 1))
        assert numbers


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


async def test_when_the_dispatcher_dies_its_callers_are_let_go() -> None:
    class Broken(FakeEngine):
        async def events(self) -> AsyncIterator[EngineEvent]:
            raise RuntimeError("a bug")
            yield

    state, clock = make_state(), FakeClock()
    with pytest.raises(RuntimeError, match="a bug"):
        await Dispatcher(state, Broken(), clock).run()

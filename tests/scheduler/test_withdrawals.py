"""Withdrawn admissions: they stop counting at once, whatever their order."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.admissions import Admitted
from alise_scheduler.core.admit import AdmitLimits, Rejected
from alise_scheduler.core.reports import EngineUpdate
from alise_scheduler.dispatcher import Dispatcher
from alise_scheduler.errors import InboxFullError
from tests.scheduler.admission_stream import connected
from tests.scheduler.builders import make_ask, make_request, make_state, opened
from tests.scheduler.pod import started, until


def test_l1_ten_withdrawn_requests_leave_room_for_ten_more_at_once() -> None:
    state = opened(make_state())
    for number in range(10):
        state.admit(make_ask(f"bad{number}", neutral=True), 1.0)
    # Room for ten, of which four run: the tenth waits for six others, and an eleventh would wait for seven.
    seconds_each = state.decide(1.0).load.backlog_seconds() * 4 / 10
    state.admit_limits = AdmitLimits(max_wait_seconds=6.5 * seconds_each / 4)
    assert isinstance(state.admit(make_ask("one more", neutral=True), 1.0), Rejected)
    for number in range(10):
        assert state.withdraw(f"bad{number}")
    assert all(isinstance(state.admit(make_ask(f"good{number}", neutral=True), 1.0), Admitted) for number in range(10))


async def test_l1_a_withdrawal_on_the_stream_takes_the_job_off_the_load_and_is_not_answered(tmp_path: Path) -> None:
    async with started(tmp_path / "sock") as pod:
        stream = await connected(pod)
        await stream.ask("bad")
        assert (await stream.answer()).job_id == "bad"
        await stream.ask("bad", withdrawn=True)
        await stream.ask("good")
        answer = await stream.answer()
        assert (answer.job_id, answer.response.WhichOneof("decision")) == ("good", "admitted")
        assert (list(pod.state.book.jobs), pod.state.load.live) == (["good"], 1)
        assert pod.metric("alise_scheduler_jobs_withdrawn_total") == 1


async def test_a_withdrawal_overtakes_an_admission_that_is_not_decided_yet(tmp_path: Path) -> None:
    async with started(tmp_path / "sock") as pod:
        pod.encoding.hold = asyncio.Event()
        stream = await connected(pod)
        await stream.ask("bad")
        await until(lambda: pod.encoding.asked == 1)
        await stream.ask("bad", withdrawn=True)
        await until(lambda: pod.metric("alise_scheduler_admits_total", outcome="gave_up") == 1)
        pod.encoding.hold.set()
        await stream.ask("good")
        assert (await stream.answer()).job_id == "good"
        assert list(pod.state.book.jobs) == ["good"]


def test_a_job_that_the_engine_has_is_not_withdrawn() -> None:
    state = opened(make_state())
    state.admit(make_ask("a"), 1.0)
    state.update(EngineUpdate(requests=(make_request("a"),)), 2.0)
    assert not state.withdraw("a")
    assert "a" in state.book.jobs


def test_withdrawing_what_was_never_admitted_changes_nothing() -> None:
    state = opened(make_state())
    before = state.load
    assert not state.withdraw("unknown")
    assert state.load == before


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["admit", "withdraw", "plan"])), max_size=30))
def test_the_load_is_what_is_there_and_never_negative(moves: list[tuple[str, str]]) -> None:
    state = opened(make_state())
    for job, move in moves:
        match move:
            case "admit":
                state.admit(make_ask(job, prompt="hello" * len(moves)), 1.0)
            case "withdraw":
                state.withdraw(job)
            case _:
                state.decide(1.0)
        assert state.load.live == len(state.book)
        assert state.load.work_seconds is None or bool((state.load.work_seconds >= 0).all())


async def test_a_flood_of_withdrawals_does_not_grow_the_inbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.dispatcher.MAX_INBOX", 10)
    dispatcher = Dispatcher(make_state(), None, None)  # type: ignore[arg-type]
    for number in range(100):
        dispatcher.withdraw(f"j{number}")
    with pytest.raises(InboxFullError, match="20 events wait"):
        await dispatcher.admit(make_ask())

"""The active jobs: what a snapshot, a report and an end do to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.core.book import JobBook, Prior
from alise_scheduler.core.job import MOVES, move
from alise_scheduler.core.lengths import PRIOR
from alise_scheduler.core.reports import EngineRequest, EngineShape, EngineSnapshot, EngineUpdate, Finished, FinishReason, Phase
from alise_scheduler.errors import IllegalMoveError
from tests.scheduler.builders import make_request

AVERAGE = Prior(PRIOR)


def describe(_: EngineRequest) -> Prior:
    return AVERAGE


def snapshot(*requests: EngineRequest) -> EngineSnapshot:
    return EngineSnapshot("boot", "session", EngineShape(), requests)


def updated(book: JobBook, *requests: EngineRequest, at: float = 1.0) -> tuple[str, ...]:
    return book.update(EngineUpdate(requests), at, describe).refused


def admitted(book: JobBook, job_id: str, at: float = 0.0) -> None:
    book.admit(job_id, AVERAGE, 0, 1, 10, at)


@pytest.mark.parametrize("before", list(Phase))
@pytest.mark.parametrize("after", list(Phase))
def test_every_move_is_either_in_the_table_or_refused(before: Phase, after: Phase) -> None:
    if after in MOVES[before]:
        assert move(before, after, "r") is after
    else:
        with pytest.raises(IllegalMoveError, match=f"{after.name} after {before.name}"):
            move(before, after, "r")


def test_nothing_becomes_never_run_again() -> None:
    book = JobBook()
    updated(book, make_request("a", Phase.RUNNING))
    assert updated(book, make_request("a", Phase.WAITING))
    assert book.jobs["a"].phase is Phase.RUNNING


def test_a_phase_moves_on_what_the_engine_reports() -> None:
    book = JobBook()
    admitted(book, "a")
    assert book.counts()[Phase.ADMITTED] == 1
    updated(book, make_request("a", Phase.WAITING))
    assert book.counts()[Phase.WAITING] == 1


def test_a_job_admitted_twice_keeps_its_place_and_is_counted_once() -> None:
    book = JobBook()
    admitted(book, "a")
    admitted(book, "b")
    admitted(book, "a", at=9.0)
    assert [(job.id, job.order, job.arrived_at) for job in book.in_order()] == [("a", 1, 0.0), ("b", 2, 0.0)]


def test_a_report_about_an_unknown_job_makes_it() -> None:
    book = JobBook()
    updated(book, make_request("new", Phase.RUNNING, age_seconds=5.0, phase_seconds=2.0), at=100.0)
    job = book.jobs["new"]
    assert job.arrived_at == 95.0
    assert job.waiting_seconds(100.0) == pytest.approx(3.0)


def test_the_end_of_an_unknown_request_changes_nothing() -> None:
    book = JobBook()
    changes = book.update(EngineUpdate(finished=(Finished("r", "ghost", FinishReason.STOP),)), 1.0, describe)
    assert changes.ended[0].job is None
    assert len(book) == 0


def test_a_request_that_came_and_went_within_one_update_leaves_nothing() -> None:
    book = JobBook()
    request = make_request("a", Phase.RUNNING)
    book.update(EngineUpdate((request,), (Finished(request.request_id, "a", FinishReason.STOP),)), 1.0, describe)
    assert len(book) == 0


def test_requests_without_a_job_id_are_jobs_of_their_own_and_not_ranked() -> None:
    book = JobBook()
    updated(book, make_request("", request_id="x"), make_request("", request_id="y"))
    assert sorted(book.jobs) == ["request:x", "request:y"]
    assert not any(job.rankable for job in book.in_order())


def test_a_job_of_several_requests_ends_with_the_last() -> None:
    book = JobBook()
    updated(book, make_request("a", Phase.RUNNING, request_id="0"), make_request("a", Phase.WAITING, request_id="1"))
    assert book.counts()[Phase.RUNNING] == 1
    first = book.update(EngineUpdate(finished=(Finished("0", "a", FinishReason.STOP),)), 2.0, describe)
    assert not first.ended[0].last
    assert book.counts()[Phase.WAITING] == 1
    second = book.update(EngineUpdate(finished=(Finished("1", "a", FinishReason.STOP),)), 3.0, describe)
    assert second.ended[0].last
    assert len(book) == 0


def test_an_empty_snapshot_forgets_what_was_in_the_engine_and_keeps_what_is_on_its_way() -> None:
    book = JobBook()
    admitted(book, "coming")
    updated(book, make_request("there", Phase.RUNNING))
    assert book.replace_all(snapshot(), 2.0, describe) == ("there",)
    assert list(book.jobs) == ["coming"]


def test_a_snapshot_may_say_what_no_update_may() -> None:
    book = JobBook()
    updated(book, make_request("a", Phase.RUNNING))
    book.replace_all(snapshot(make_request("a", Phase.WAITING)), 2.0, describe)
    assert book.jobs["a"].phase is Phase.WAITING


def test_after_a_restart_the_oldest_request_is_first() -> None:
    book = JobBook()
    book.replace_all(snapshot(make_request("young", age_seconds=1.0), make_request("old", age_seconds=9.0)), 10.0, describe)
    assert [job.id for job in book.in_order()] == ["old", "young"]


def test_admitted_jobs_expire_and_others_do_not() -> None:
    book = JobBook()
    admitted(book, "coming", at=0.0)
    admitted(book, "later", at=3.0)
    updated(book, make_request("there"))
    assert book.expire(4.9, 5.0) == ()
    assert book.expire(5.0, 5.0) == ("coming",)
    assert sorted(book.jobs) == ["later", "there"]


def test_a_job_that_came_and_is_admitted_anew_has_its_whole_time_again() -> None:
    book = JobBook()
    admitted(book, "again", at=0.0)
    updated(book, make_request("again"))
    book.replace_all(snapshot(), 0.5, describe)
    admitted(book, "between", at=1.0)
    admitted(book, "again", at=2.0)
    assert book.expire(6.5, 5.0) == ("between",)
    assert book.expire(7.0, 5.0) == ("again",)


phases = st.sampled_from([phase for phase in Phase if phase is not Phase.ADMITTED])


@given(st.lists(st.tuples(st.sampled_from("abc"), phases, st.floats(0, 10), st.floats(-5, 20)), max_size=40))
def test_waiting_never_shrinks_and_never_goes_negative(reports: list[tuple[str, Phase, float, float]]) -> None:
    book, at = JobBook(), 0.0
    seen: dict[str, float] = {}
    for job_id, phase, pause, phase_seconds in reports:
        at += pause
        updated(book, make_request(job_id, phase, phase_seconds=phase_seconds, age_seconds=phase_seconds), at=at)
        waited = book.jobs[job_id].waiting_seconds(at)
        # What a late report says about the past may move a phase's start back, not before the one it was known to begin after.
        assert waited >= 0
        if phase is Phase.RUNNING:
            seen[job_id] = waited
        else:
            assert waited >= seen.get(job_id, 0.0)

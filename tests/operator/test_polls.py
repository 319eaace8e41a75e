"""What a pod's polls say together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_operator.polls import Poll, answered, failed
from tests.operator.builders import make_report


def after(before: Poll | None, at_seconds: float, boot: str = "boot-1", **counts: int) -> Poll:
    return answered(before, make_report(boot_id=boot, failed_open_by_reason=tuple(counts.items())), at_seconds)


def filled(before: Poll | None, used: int, limit: int = 100) -> Poll:
    return answered(before, make_report(host_limit_bytes=limit, host_used_bytes=used), 0.0)


def test_one_poll_that_fails_keeps_the_last_report_and_two_in_a_row_lose_it() -> None:
    good = after(None, 0.0)
    once = failed(good, "no answer", 15.0)
    twice = failed(once, "no answer", 30.0)
    assert (once.report, once.error) == (good.report, None)
    assert (twice.report, twice.error) == (None, "no answer")
    assert (after(twice, 45.0).error, after(twice, 45.0).failed) == (None, 0)


def test_a_pod_that_never_answered_is_given_a_second_poll() -> None:
    once = failed(None, "no answer", 0.0)
    assert (once.report, once.error, failed(once, "no answer", 15.0).error) == (None, None, "no answer")


def test_polls_without_a_plan_go_on_counting_over_one_that_failed() -> None:
    unranked = answered(None, make_report(plan_fresh=False), 0.0)
    again = answered(failed(unranked, "no answer", 15.0), make_report(plan_fresh=False), 30.0)
    assert (unranked.unranked, again.unranked, answered(again, make_report(), 45.0).unranked) == (1, 2, 0)


def test_reasons_are_those_of_the_last_minute_and_not_since_boot() -> None:
    first = after(None, 0.0, deadline=50)
    second = after(first, 15.0, deadline=50, unavailable=4)
    later = second
    for at in (30.0, 45.0, 60.0, 75.0):
        later = after(later, at, deadline=50, unavailable=4, error=1)
    assert first.recent_failed_open == {}
    assert second.recent_failed_open == {"unavailable": 4}
    assert later.recent_failed_open == {"error": 1}
    assert len(later.counts) <= 6


def test_another_engine_process_counts_from_nothing() -> None:
    first = after(None, 0.0, deadline=50)
    assert after(first, 15.0, boot="boot-2", error=3).recent_failed_open == {"error": 3}


def test_a_full_host_store_stays_full_until_there_is_room_again() -> None:
    full = filled(None, 95)
    assert [filled(None, 94).host_full, full.host_full] == [False, True]
    assert [filled(full, 90).host_full, filled(None, 90).host_full, filled(full, 84).host_full] == [True, False, False]
    assert failed(full, "no answer", 1.0).host_full


def test_without_a_host_store_it_is_never_full() -> None:
    assert not filled(None, 0, limit=0).host_full


@pytest.mark.parametrize("polls", [2, 5])
@given(grown=st.lists(st.integers(0, 9), min_size=8, max_size=8))
def test_what_is_counted_as_recent_is_what_was_added_since_a_minute_or_a_poll_more(polls: int, grown: list[int]) -> None:
    poll, total = after(None, 0.0, deadline=7), 7
    for index, more in enumerate(grown, start=1):
        total += more
        poll = after(poll, index * 60.0 / polls, deadline=total)
    assert poll.recent_failed_open.get("deadline", 0) == sum(grown[-polls:])

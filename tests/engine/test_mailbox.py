"""What a slow watcher finds when it reads again."""

from typing import Any

import pytest

from alise_engine.api.control.mailbox import MAX_FINISHED, Mailbox
from alise_engine.errors import WatcherTooSlow
from alise_engine.wire import calls as core
from tests.engine.api_fakes import make_finished, make_row


def poll(*requests: core.RequestRow, **more: Any) -> core.PollAnswer:
    answer = {"requests": requests, "finished": (), "steps": (), "counters": core.Counters(), **more}
    return core.PollAnswer(**answer)


def mailbox(*announced: str) -> Mailbox:
    return Mailbox(frozenset(announced), core.Counters(), draining=False)


def test_a_request_that_moved_twice_is_told_once_as_it_is_now() -> None:
    box = mailbox()
    box.put(poll(make_row(generated_tokens=1)))
    box.put(poll(make_row(generated_tokens=2)))
    assert [row.generated_tokens for row in box.take().requests] == [2]


def test_a_hint_survives_until_it_was_read_and_is_not_told_again() -> None:
    box = mailbox()
    box.put(poll(make_row(hint="aGk=")))
    box.put(poll(make_row(generated_tokens=1)))
    first = box.take().requests
    box.put(poll(make_row(generated_tokens=2, hint="aGk=")))
    assert [row.hint for row in (*first, *box.take().requests)] == ["aGk=", ""]


def test_a_request_of_the_snapshot_comes_without_its_hint() -> None:
    box = mailbox("r1")
    box.put(poll(make_row("r1", hint="aGk=")))
    assert [row.hint for row in box.take().requests] == [""]


def test_a_known_request_that_ended_is_only_an_ending() -> None:
    box = mailbox("r1")
    box.put(poll(make_row("r1", generated_tokens=5)))
    box.put(poll(finished=(make_finished("r1"),)))
    changes = box.take()
    assert (changes.requests, [ending.request_id for ending in changes.finished]) == ((), ["r1"])


def test_one_that_came_and_went_unread_is_told_with_its_hint() -> None:
    box = mailbox()
    box.put(poll(make_row("r1", hint="aGk=")))
    box.put(poll(finished=(make_finished("r1"),)))
    changes = box.take()
    assert [row.hint for row in changes.requests] == ["aGk="]
    assert [ending.request_id for ending in changes.finished] == ["r1"]


def test_an_id_that_is_used_again_is_new_again() -> None:
    box = mailbox("r1")
    box.put(poll(finished=(make_finished("r1"),)))
    box.take()
    box.put(poll(make_row("r1", hint="aGk=")))
    assert [row.hint for row in box.take().requests] == ["aGk="]


def test_only_the_newest_steps_are_kept() -> None:
    box = mailbox()
    for number in range(core.MAX_STEPS_PER_POLL + 6):
        box.put(poll(steps=(core.StepRow(number, 0, 1, 0),)))
    steps = box.take().steps
    assert (len(steps), steps[0].duration_us) == (core.MAX_STEPS_PER_POLL, 6)


def test_a_poll_without_news_is_no_news() -> None:
    box = mailbox()
    box.put(poll())
    assert box.changed is False


@pytest.mark.parametrize(
    "news",
    [
        pytest.param(poll(counters=core.Counters(steps=1)), id="a counter"),
        pytest.param(poll(make_row()), id="a request"),
        pytest.param(poll(steps=(core.StepRow(1, 0, 1, 0),)), id="a step"),
    ],
)
def test_news_is_news_until_it_is_taken(news: core.PollAnswer) -> None:
    box = mailbox()
    box.put(news)
    before = box.changed
    box.take()
    assert (before, box.changed) == (True, False)


def test_endings_that_nobody_reads_end_the_watch() -> None:
    box = mailbox()
    endings = tuple(make_finished(f"r{number}") for number in range(MAX_FINISHED))
    box.put(poll(finished=endings))
    with pytest.raises(WatcherTooSlow, match="open a new Watch"):
        box.put(poll(finished=(make_finished("one more"),)))

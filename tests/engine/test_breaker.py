"""The circuit breaker's table, walked."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_engine.api import breaker
from alise_engine.api.breaker import FAILURES_TO_OPEN, OPEN_SECONDS, Breaker, Event, Phase


def opened(at_seconds: float = 0.0) -> Breaker:
    state = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        state = breaker.failed(state, at_seconds)
    return state


def test_it_opens_at_the_nth_failure_in_a_row_and_not_before() -> None:
    state = Breaker()
    phases = []
    for _ in range(FAILURES_TO_OPEN):
        state = breaker.failed(state, 0.0)
        phases.append(state.phase)
    assert phases == [Phase.CLOSED] * (FAILURES_TO_OPEN - 1) + [Phase.OPEN]


def test_an_answer_between_failures_starts_the_count_again() -> None:
    state = Breaker()
    for _ in range(FAILURES_TO_OPEN - 1):
        state = breaker.failed(state, 0.0)
    state = breaker.failed(breaker.answered(state), 0.0)
    assert (state.phase, state.failures) == (Phase.CLOSED, 1)


def test_nobody_asks_while_it_is_open() -> None:
    assert breaker.asked(opened(), OPEN_SECONDS / 2) == (opened(), False)


def test_after_the_open_time_exactly_one_asks() -> None:
    probing, first = breaker.asked(opened(), OPEN_SECONDS)
    _, second = breaker.asked(probing, OPEN_SECONDS)
    assert (probing.phase, first, second) == (Phase.HALF_OPEN, True, False)


def test_a_probe_that_is_answered_closes_it() -> None:
    probing, _ = breaker.asked(opened(), OPEN_SECONDS)
    assert breaker.answered(probing) == Breaker(Phase.CLOSED, 0, 0.0)


def test_a_probe_that_fails_opens_it_for_the_whole_time_again() -> None:
    probing, _ = breaker.asked(opened(), OPEN_SECONDS)
    again = breaker.failed(probing, 5.0)
    assert again.phase is Phase.OPEN
    assert breaker.asked(again, 5.0 + OPEN_SECONDS / 2)[1] is False
    assert breaker.asked(again, 5.0 + OPEN_SECONDS)[1] is True


def test_a_late_failure_does_not_push_the_probe_away() -> None:
    late = breaker.failed(opened(), OPEN_SECONDS * 0.9)
    assert breaker.asked(late, OPEN_SECONDS)[1] is True


def test_a_late_answer_is_a_sign_of_life() -> None:
    assert breaker.answered(opened()).phase is Phase.CLOSED


ILLEGAL = [pair for pair in itertools.product(Phase, Event) if pair not in breaker.TRANSITIONS]


@pytest.mark.parametrize(("phase", "event"), [pytest.param(*pair, id=f"{pair[1].value} in {pair[0].value}") for pair in ILLEGAL])
def test_a_move_that_is_not_in_the_table_raises(phase: Phase, event: Event) -> None:
    with pytest.raises(KeyError):
        breaker._moved(Breaker(phase), event)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["ask", "answered", "failed"]), max_size=60))
def test_a_breaker_always_lets_somebody_ask_within_the_open_time(events: list[str]) -> None:
    state, now = Breaker(), 0.0
    for event in events:
        now += 0.01
        match event:
            case "ask":
                state, _ = breaker.asked(state, now)
            case "answered":
                state = breaker.answered(state)
            case _:
                state = breaker.failed(state, now)
    # A probe ends one way or the other.
    state = breaker.failed(state, now) if state.phase is Phase.HALF_OPEN else state
    assert breaker.asked(state, now + OPEN_SECONDS + 0.001)[1] is True

"""Which requests are traced."""

import pytest

from alise_engine.api.traces.sampling import ASKED_PER_SECOND, Bucket, sampled

EMPTY = Bucket(0.0, 100.0)


@pytest.mark.parametrize(
    ("asked", "ratio", "draw", "expected"),
    [
        pytest.param(None, 0.1, 0.05, True, id="a draw below the ratio"),
        pytest.param(None, 0.1, 0.1, False, id="a draw that is not below the ratio"),
        pytest.param(None, 1.0, 0.999, True, id="a ratio of one"),
        pytest.param(None, 0.0, 0.0, False, id="a ratio of zero"),
        pytest.param(False, 1.0, 0.0, False, id="a client that does not want a trace"),
        pytest.param(True, 0.0, 0.5, True, id="a client that asks for a trace"),
    ],
)
def test_a_request_is_traced_by_the_ratio_and_by_its_clients_flag(asked: bool | None, ratio: float, draw: float, expected: bool) -> None:
    traced, _ = sampled(asked, ratio, draw, Bucket(), 100.0)
    assert traced is expected


def test_clients_that_ask_all_the_time_get_a_bounded_number_of_traces_beyond_the_ratio() -> None:
    bucket, traced = EMPTY, 0
    for request in range(10_000):
        wanted, bucket = sampled(True, 0.0, 0.5, bucket, 100.0 + request / 1000)
        traced += wanted
    assert abs(traced - 10 * ASKED_PER_SECOND) <= 1


def test_after_a_quiet_time_no_more_than_a_seconds_worth_is_left() -> None:
    bucket, traced = EMPTY, 0
    for _ in range(1000):
        wanted, bucket = sampled(True, 0.0, 0.5, bucket, 9_999.0)
        traced += wanted
    assert traced == ASKED_PER_SECOND


def test_the_ratio_holds_for_clients_that_ask_when_nothing_is_left_for_them() -> None:
    assert sampled(True, 0.2, 0.1, EMPTY, 100.0)[0] is True
    assert sampled(True, 0.2, 0.3, EMPTY, 100.0)[0] is False

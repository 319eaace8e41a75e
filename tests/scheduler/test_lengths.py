"""Distributions of lengths: what remains after some tokens, and absurd predictions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.core.lengths import MAX_TOKENS, PRIOR, QUANTILES, Lengths, remaining_mean, remaining_points, sane

floats = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(
    ("values", "limit", "expected"),
    [
        pytest.param([0.0] * 10, 0, (1.0,) * 10, id="zero reads as one token"),
        pytest.param([-5.0] * 10, 0, (1.0,) * 10, id="a negative length reads as one token"),
        pytest.param([1e9] * 10, 0, (float(MAX_TOKENS),) * 10, id="a billion tokens are cut to the maximum"),
        pytest.param([1e9] * 10, 64, (64.0,) * 10, id="the client's cap cuts a prediction"),
        pytest.param([math.nan] * 10, 0, PRIOR.tokens, id="NaN reads as the prior"),
        pytest.param([5.0], 0, PRIOR.tokens, id="too few quantiles read as the prior"),
        pytest.param(range(10, 0, -1), 0, tuple(float(v) for v in range(1, 11)), id="descending quantiles are sorted"),
    ],
)
def test_odd_predictions_are_mended(values: list[float], limit: int, expected: tuple[float, ...]) -> None:
    assert sane(values, limit).tokens == expected


@given(st.lists(floats, max_size=12), st.integers(0, 10**9))
def test_whatever_comes_in_is_usable(values: list[float], limit: int) -> None:
    tokens = sane(values, limit).tokens
    assert len(tokens) == QUANTILES
    assert list(tokens) == sorted(tokens)
    assert tokens[0] >= 1
    assert tokens[-1] <= (min(limit, MAX_TOKENS) if limit else MAX_TOKENS)


def test_lengths_that_cannot_be_are_refused_with_their_value() -> None:
    with pytest.raises(ValueError, match="ascending numbers"):
        Lengths((2.0, 1.0) * 5)


def left(generated: float, limit: float = math.inf, tokens: tuple[float, ...] = PRIOR.tokens) -> float:
    return float(remaining_mean(np.array([tokens]), np.array([generated]), np.array([limit]))[0])


def test_what_was_generated_conditions_the_rest() -> None:
    known = (100.0,) * 10
    assert left(0, tokens=known) > left(50, tokens=known) > left(90, tokens=known)


def test_a_job_that_overruns_its_prediction_is_expected_to_go_on_longer_and_longer() -> None:
    known = (100.0,) * 10
    assert left(100, tokens=known) < left(400, tokens=known) < left(3000, tokens=known)


def test_the_clients_cap_bounds_what_is_left() -> None:
    assert left(90, limit=100, tokens=(500.0,) * 10) == pytest.approx(10.0)


@given(st.lists(st.floats(1, 1e6), min_size=10, max_size=10), st.floats(0, 1e6), st.floats(1, 1e6))
def test_the_remaining_distribution_is_one(values: list[float], generated: float, limit: float) -> None:
    points, weights = remaining_points(np.array([sorted(values)]), np.array([generated]), np.array([limit]))
    assert weights.sum() == pytest.approx(1.0)
    assert (points >= 1).all()
    assert (np.diff(points, axis=1) >= 0).all()

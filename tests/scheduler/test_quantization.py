"""Points on a grid: what is compared in INT8 is what was meant, and one point at a time says what many say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alise_scheduler.predictor.models.kernel import STEP, landmarks
from alise_scheduler.predictor.models.quantization import REACH, UNIT_STEP, products, quantize, squares

COORDINATES = st.floats(-1.0, 1.0, width=32)
POINTS = st.integers(1, 24).flatmap(lambda d: st.integers(2, 12).map(lambda n: (n, d))).flatmap(
    lambda shape: arrays(np.float32, shape, elements=COORDINATES)
)  # fmt: skip


@given(POINTS)
def test_no_coordinate_is_moved_by_more_than_half_a_step(points: np.ndarray) -> None:
    assert np.abs(quantize(points, UNIT_STEP) * UNIT_STEP - points).max() <= UNIT_STEP / 2 + 1e-6


@given(POINTS)
def test_one_point_has_the_same_products_as_among_others(points: np.ndarray) -> None:
    quantized = quantize(points, UNIT_STEP)
    assert (products(quantized[:1], quantized)[0] == products(quantized, quantized)[0]).all()


@given(POINTS)
def test_squared_lengths_are_products_with_oneself(points: np.ndarray) -> None:
    quantized = quantize(points, UNIT_STEP)
    assert (squares(quantized) == np.diag(products(quantized, quantized))).all()


@given(POINTS)
def test_a_landmark_is_at_no_distance_from_itself_and_none_is_nearer(points: np.ndarray) -> None:
    seen = landmarks(quantize(points, STEP), STEP).features(points, gamma=0.4)
    assert (np.diag(seen) == 1.0).all()
    assert seen.max() <= 1.0


def test_a_landmark_says_as_much_of_a_point_as_their_distance() -> None:
    rng = np.random.default_rng(3)
    points, others = (rng.normal(0.0, 0.1, (40, 300)).astype(np.float32) for _ in range(2))
    real = np.exp(-0.4 * ((points[:, None] - others[None]) ** 2).sum(axis=2))
    assert landmarks(quantize(others, STEP), STEP).features(points, gamma=0.4) == pytest.approx(real, abs=0.005)


def test_what_is_beyond_the_grid_is_at_its_edge() -> None:
    assert quantize(np.array([-9.0, np.inf], np.float32), UNIT_STEP).tolist() == [-REACH, REACH]


def test_vectors_of_length_1_are_within_reach() -> None:
    assert quantize(np.eye(3, dtype=np.float32), UNIT_STEP).max() == REACH


def test_a_point_among_no_others_has_no_products() -> None:
    assert products(np.zeros((1, 4), np.int8), np.zeros((0, 4), np.int8)).shape == (1, 0)

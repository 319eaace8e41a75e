"""The kernel regression of the predictor's head: it finds the rule behind its points, and a fit of the most rows takes bounded memory."""

import tracemalloc

import numpy as np
import pytest

from alise_scheduler.predictor.models.kernel import MANY_ROWS, fit
from alise_scheduler.predictor.training.fit import MAX_ROWS


@pytest.mark.process
def test_rows_that_differ_in_few_numbers_are_fitted_as_well_as_the_noise_allows() -> None:
    # Prompts without a text, as token ids are, leave a few numbers. The kernel matrix of their landmarks is nearly singular.
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(MANY_ROWS, 8)) * 0.3).astype(np.float32)
    target = (points[:, 0] + rng.normal(size=MANY_ROWS) * 0.3).astype(np.float32)
    kernel, held = fit(points, target, rng.integers(0, 5, MANY_ROWS), 1)
    assert np.sqrt(np.mean((held - target) ** 2)) < 0.4
    assert np.sqrt(np.mean((kernel.predict(points) - target) ** 2)) < 0.4


@pytest.mark.process
def test_a_fit_of_the_most_rows_leaves_the_container_room() -> None:
    # The container has 1 GiB, of which the scheduler takes up to 400 MB beside the training.
    rng = np.random.default_rng(0)
    points = (rng.normal(size=(MAX_ROWS, 340)) * 0.05).astype(np.float32)
    target, folds = rng.normal(size=MAX_ROWS).astype(np.float32), rng.integers(0, 5, MAX_ROWS)
    tracemalloc.start()
    try:
        fit(points, target, folds, 1)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 450 << 20

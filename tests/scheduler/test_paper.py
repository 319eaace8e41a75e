"""The paper's rule: neighbours where there are similar ones, else an MLP."""

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alise_research.neighbours import NAMES
from alise_research.paper import SIMILAR, PaperHead, PaperPredictor, forward, serve, train
from alise_scheduler.core.lengths import QUANTILES
from alise_scheduler.predictor.interface import Observation
from tests.scheduler.predictor_builders import make_features, make_history


@pytest.fixture(scope="module")
def head() -> PaperHead:
    return train(make_history(600), 1)


def middle(head: PaperHead, vector: np.ndarray, similarity: float, mean: float) -> float:
    near = np.zeros((1, len(NAMES)), np.float32)
    near[0, NAMES.index("near_best")], near[0, NAMES.index("near_mean")] = similarity, mean
    flat = replace(head, errors=np.zeros((2, QUANTILES), np.float32))
    return float(flat.predict(vector, near)[0, 0])


def test_with_a_similar_neighbour_its_mean_length_is_the_answer(head: PaperHead) -> None:
    assert middle(head, make_history(1).vectors, SIMILAR, mean=2.5) == pytest.approx(2.5)


def test_without_one_the_network_answers(head: PaperHead) -> None:
    vector = make_history(1).vectors
    assert middle(head, vector, SIMILAR - 0.01, mean=2.5) == pytest.approx(float(forward(head.layers, vector)[0]), rel=1e-5)


def test_without_an_embedding_and_neighbours_there_is_an_answer(head: PaperHead) -> None:
    unknown = np.full((1, len(NAMES)), np.nan, np.float32)
    assert np.isfinite(head.predict(np.zeros((1, 384), np.float32), unknown)).all()


def test_the_network_tells_tasks_apart(head: PaperHead) -> None:
    unseen = make_history(200, seed=9)
    predicted = forward(head.layers, unseen.vectors)
    assert np.corrcoef(predicted, unseen.log_tokens)[0, 1] > 0.8


def test_quantiles_ascend(head: PaperHead) -> None:
    near = np.full((50, len(NAMES)), np.nan, np.float32)
    assert (np.diff(head.predict(make_history(50).vectors, near), axis=1) >= 0).all()


def test_a_served_head_knows_the_neighbours_that_came_after_it_was_trained() -> None:
    predictor, fresh = PaperPredictor(), PaperPredictor()
    for each in (predictor, fresh):
        each.install(serve(make_history(200), 1))
    for _ in range(60):
        predictor.learn(make_features("an odd request"), Observation(20_000, True))
    again = make_features("an odd request", conversation="another")
    assert predictor.predict(again, 0).median > 5 * fresh.predict(again, 0).median


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        train(make_history(20), 1)


def test_no_wheel_and_no_image_holds_the_experiments() -> None:
    root = Path(__file__).parents[2]
    packages = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert "scheduler_sidecar/alise_scheduler" in packages
    assert not [package for package in packages if "alise_research" in package]
    assert "alise_research" not in (root / "scheduler_sidecar" / "Dockerfile").read_text()

"""A LoRA adapter is a model name of its own to the predictor: its lengths are learned apart from the model's and from other adapters'."""

import numpy as np

from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.learned import LearnedPredictor
from tests.scheduler.predictor_builders import make_features

ANSWERS = 300


def test_two_adapters_with_the_same_prompts_get_the_lengths_of_their_own_answers() -> None:
    predictor, rng = LearnedPredictor(), np.random.default_rng(1)
    for number in range(ANSWERS):
        for model, usual in (("brief", 40), ("wordy", 800)):
            tokens = max(1, round(usual * rng.lognormal(0, 0.3)))
            predictor.learn(make_features(f"Question {number} about ships", model=model), Observation(tokens, True))
    brief, wordy = (predictor.predict(make_features("Another question about ships", model=model), 0).median for model in ("brief", "wordy"))
    assert brief < 100
    assert wordy > 400


def test_the_same_text_to_another_model_is_another_text() -> None:
    assert make_features("write a poem", model="base").text != make_features("write a poem", model="poet").text


def test_a_new_adapter_is_predicted_like_any_request_until_it_has_answers_of_its_own() -> None:
    predictor = LearnedPredictor()
    before = predictor.predict(make_features("hello", model="new"), 0).median
    for number in range(50):
        predictor.learn(make_features(f"Question {number}", model="other"), Observation(3, True))
    assert predictor.predict(make_features("hello", model="new"), 0).median == before

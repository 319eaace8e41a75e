"""The predictor that learns: cold start, training, conversations, drift, trial and rollback; bad input."""

import asyncio
import math
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.core.lengths import MAX_TOKENS, PRIOR, QUANTILES
from alise_scheduler.predictor.features.request import Question, extract
from alise_scheduler.predictor.features.row import ANSWERS_AT, NUMBERS
from alise_scheduler.predictor.features.text import TEXT_NAMES, text_numbers
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.models.head import Head
from alise_scheduler.predictor.repeats import Repeats
from alise_scheduler.predictor.served_head import serve_head
from alise_scheduler.predictor.storage.writer import Archive
from alise_scheduler.predictor.training.background import BackgroundError
from alise_scheduler.predictor.training.fit import train
from alise_scheduler.predictor.training.loop import Learner
from alise_scheduler.predictor.training.samples import read_history
from alise_scheduler.predictor.training.trial import FIRST_TRAINING, TRIAL, pinball
from tests.scheduler.hash_encoder import HashEncoder
from tests.scheduler.predictor_builders import make_features, make_task

pytestmark = pytest.mark.process


def taught(count: int, factor: float = 1.0, predictor: LearnedPredictor | None = None, model: str = "m") -> LearnedPredictor:
    predictor = predictor or LearnedPredictor()
    rng = np.random.default_rng(predictor.recent.added)
    for _ in range(count):
        prompt, tokens = make_task(rng)
        predictor.learn(make_features(prompt, model=model), Observation(round(tokens * factor), True))
    return predictor


@lru_cache
def learned_head() -> Head:
    return train(taught(FIRST_TRAINING).newest(), 1)


def retrained(predictor: LearnedPredictor, version: int = 1) -> LearnedPredictor:
    """With a head that knows the tasks."""
    predictor.install(serve_head(replace(learned_head(), version=version), predictor.newest()))
    return predictor


@pytest.fixture(scope="module")
def trained() -> LearnedPredictor:
    return retrained(taught(FIRST_TRAINING))


def median(predictor: LearnedPredictor, prompt: str, **fields: Any) -> float:
    return predictor.predict(make_features(prompt, **fields), 0).median


def test_it_wants_training_after_the_first_requests_and_not_at_once_again() -> None:
    predictor = taught(FIRST_TRAINING - 1)
    assert not predictor.wants_training()
    taught(1, predictor=predictor)
    assert predictor.wants_training()
    predictor.newest()
    assert not predictor.wants_training()


def test_new_prompts_get_different_lengths(trained: LearnedPredictor) -> None:
    assert median(trained, "Name one fact about lakes", model="m") < 40 < median(trained, "Write an essay about lakes", model="m")


def test_a_request_without_an_embedding_is_predicted_as_well(trained: LearnedPredictor) -> None:
    assert 1 <= trained.predict(make_features("Write an essay about lakes", embed=False), 0).median <= MAX_TOKENS


def test_a_cap_bounds_the_prediction(trained: LearnedPredictor) -> None:
    assert trained.predict(make_features("Write an essay about lakes"), 16).tokens[-1] <= 16


def test_the_same_text_again_is_expected_to_be_as_long_again() -> None:
    predictor = retrained(taught(FIRST_TRAINING))
    for _ in range(30):
        predictor.learn(make_features("Write an essay about one word"), Observation(3, True))
    assert median(predictor, "Write an essay about one word") < 10


def test_the_same_text_from_another_tenant_is_another_text() -> None:
    repeats = Repeats()
    one, two = (make_features("secret", conversation="c", tenant=name) for name in ("one", "two"))
    for _ in range(20):
        repeats.learn(one.text, one.tenant, 1.0)
    untouched = np.full(QUANTILES, 6.0, np.float32)
    assert repeats.apply(untouched, one.text, one.tenant).max() < 2.0
    assert repeats.apply(untouched, two.text, two.tenant).tolist() == untouched.tolist()


def test_the_same_text_in_another_conversation_is_another_text() -> None:
    assert make_features("go on", conversation="a").text != make_features("go on", conversation="b").text


def test_the_number_of_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.repeats.MAX_TEXTS", 50)
    repeats = Repeats()
    for number in range(100):
        repeats.learn(number + 1, 0, 3.0)
    assert len(repeats) == 50


def test_an_answer_that_was_cut_says_nothing_of_the_same_text() -> None:
    predictor = retrained(taught(FIRST_TRAINING))
    before = median(predictor, "Write an essay about one word")
    for _ in range(3):
        predictor.learn(make_features("Write an essay about one word"), Observation(3, False))
    assert median(predictor, "Write an essay about one word") > before / 2


def test_of_a_request_that_nothing_is_known_of_the_usual_length_is_expected() -> None:
    assert LearnedPredictor().predict(None, 0) == PRIOR
    assert LearnedPredictor().predict(None, 16).tokens[-1] == 16


def test_a_model_that_changes_is_followed_within_a_few_hundred_answers() -> None:
    predictor = retrained(taught(FIRST_TRAINING))
    before = median(predictor, "Explain in detail the nature of lakes", model="m")
    taught(300, factor=2.5, predictor=predictor)
    assert median(predictor, "Explain in detail the nature of lakes", model="m") > 1.7 * before


def test_a_head_that_is_worse_gives_way_to_the_one_before() -> None:
    predictor = retrained(taught(FIRST_TRAINING))
    history = predictor.newest()
    wrong = train(replace(history, log_tokens=history.log_tokens[::-1].copy()), 2)
    predictor.install(serve_head(wrong, history))
    assert predictor.version == 2
    taught(TRIAL, predictor=predictor)
    assert (predictor.version, predictor.rollbacks) == (1, 1)


def test_a_head_that_is_as_good_stays() -> None:
    predictor = retrained(retrained(taught(FIRST_TRAINING)), version=2)
    taught(TRIAL, predictor=predictor)
    assert (predictor.version, predictor.rollbacks) == (2, 0)


def test_answers_of_a_conversation_are_seen_by_its_next_turn() -> None:
    rows: list[float] = []
    predictor = LearnedPredictor(lambda sample: rows.append(float(sample.numbers[ANSWERS_AT])))
    predictor.learn(make_features(conversation_now="one"), Observation(100, True))
    predictor.learn(make_features(conversation_now="two", conversation_previous="one"), Observation(50, True))
    assert rows == [0.0, 1.0]


@pytest.mark.parametrize(
    "question",
    [
        pytest.param(Question(), id="nothing at all"),
        pytest.param(Question(prompt="", prompt_chars=4000), id="token ids without text"),
        pytest.param(Question(prompt="x" * 1_000_000, prompt_chars=1_000_000), id="a megabyte of one letter"),
        pytest.param(Question(prompt="a b " * 4000, prompt_chars=10**12, turns=10**6), id="a million messages"),
        pytest.param(Question(prompt=bytes(range(256)).decode("latin-1") * 50), id="binary garbage"),
        pytest.param(Question(prompt="\ud800 lone", model="\udfff"), id="lone surrogates"),
        pytest.param(Question(prompt="hi", temperature=math.inf, max_tokens=2**31), id="impossible settings"),
        pytest.param(Question(prompt="hi", model="never heard of it", objective="o" * 5000), id="an unknown model"),
        pytest.param(Question(prompt="日本語のテキスト " * 300), id="another script"),
    ],
)
def test_bad_input_is_predicted_and_learned(trained: LearnedPredictor, question: Question) -> None:
    vector = HashEncoder().encode([question.prompt])[0]
    features = extract(replace(question, embedding=vector if vector.any() else None), b"salt")
    assert trained.predict(features, question.max_tokens).tokens[-1] <= MAX_TOKENS
    trained.learn(features, Observation(5, False))


@given(st.text(max_size=400))
def test_any_text_has_its_numbers(text: str) -> None:
    row = np.array(text_numbers(text), np.float32)
    assert len(row) == len(TEXT_NAMES)
    assert not np.isinf(row).any()
    assert np.nanmax(np.abs(row), initial=0.0) < 60_000


def test_a_row_has_as_many_numbers_as_it_says() -> None:
    assert len(make_features().numbers) == NUMBERS


def test_the_loss_is_least_at_the_truth() -> None:
    row = np.linspace(3, 5, 10, dtype=np.float32)
    assert pinball(row, 4.0) < pinball(row, 6.0)


async def test_training_in_the_background_puts_a_head_to_use() -> None:
    predictor = taught(FIRST_TRAINING)
    kept: list[int] = []
    archive = Archive(None, None)
    archive.save_head = lambda version, data: kept.append(version)  # type: ignore[method-assign]

    async def here(data: bytes, version: int) -> bytes:
        return train(read_history(data), version).to_bytes()

    assert await Learner(predictor, archive, train=here).turn()
    assert predictor.version == 1
    assert kept == [1]


async def test_a_training_that_fails_changes_nothing() -> None:
    predictor = taught(FIRST_TRAINING)
    outcomes: list[str] = []

    async def fails(data: bytes, version: int) -> bytes:
        raise BackgroundError("no memory")

    await Learner(predictor, Archive(None, None), outcomes.append, fails).turn()
    assert predictor.version == 0
    assert outcomes == ["failed"]


async def test_the_stores_are_looked_after_while_a_head_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.training.loop.TURN_SECONDS", 0.0)
    looks, enough = [0], asyncio.Event()

    def look() -> None:
        looks[0] += 1
        if looks[0] > 3:
            enough.set()
        raise KeyError("a bug")

    async def trains_for_ever() -> bool:
        await asyncio.Event().wait()
        return True

    learner = Learner(LearnedPredictor(), Archive(None, None), on_turn=look)
    monkeypatch.setattr(learner, "turn", trains_for_ever)
    task = asyncio.create_task(learner.run())
    await asyncio.wait_for(enough.wait(), 20)
    assert not task.done()
    task.cancel()


async def test_learning_goes_on_after_an_error_that_nobody_foresaw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.training.loop.REST_SECONDS", 0.0)
    monkeypatch.setattr("alise_scheduler.predictor.training.loop.TURN_SECONDS", 0.0)
    failures: list[int] = []
    again = asyncio.Event()

    async def turn() -> bool:
        if failures:
            again.set()
        raise KeyError("a bug")

    learner = Learner(LearnedPredictor(), Archive(None, None), on_failure=lambda: failures.append(1))
    monkeypatch.setattr(learner, "turn", turn)
    task = asyncio.create_task(learner.run())
    await asyncio.wait_for(again.wait(), 20)
    assert not task.done()
    task.cancel()

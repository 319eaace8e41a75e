"""The predictor that learns: cold start, training, conversations, drift, trial and rollback; the encoder's queue; bad input."""

import asyncio
import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from alise_scheduler.core.lengths import MAX_TOKENS
from alise_scheduler.predictor import lexical
from alise_scheduler.predictor.archive import Archive
from alise_scheduler.predictor.background import BackgroundError
from alise_scheduler.predictor.detail import CONVERSATION, MAX_CONVERSATIONS, NUMBERS, REQUEST, Conversations, Said, complete, said_numbers
from alise_scheduler.predictor.encode_queue import MAX_WAITING, EncodeQueue
from alise_scheduler.predictor.features import Features, Question, extract
from alise_scheduler.predictor.head import Head
from alise_scheduler.predictor.learned import FIRST_TRAINING, TRIAL, LearnedPredictor, equip, pinball
from alise_scheduler.predictor.learner import Learner
from alise_scheduler.predictor.model import Observation
from alise_scheduler.predictor.train import read_history, train
from tests.scheduler.hash_encoder import HashEncoder
from tests.scheduler.predictor_builders import make_features, make_task

pytestmark = pytest.mark.process


def taught(count: int, factor: float = 1.0, predictor: LearnedPredictor | None = None, model: str = "m") -> LearnedPredictor:
    predictor = predictor or LearnedPredictor()
    chance = np.random.default_rng(predictor.recent.added)
    for _ in range(count):
        prompt, tokens = make_task(chance)
        predictor.learn(make_features(prompt, model=model), Observation(round(tokens * factor), True))
    return predictor


@lru_cache
def learned_head() -> Head:
    return train(taught(FIRST_TRAINING).newest()[0], 1)


def retrained(predictor: LearnedPredictor, version: int = 1) -> LearnedPredictor:
    """With a head that knows the tasks."""
    history, seen = predictor.newest()
    predictor.install(equip(replace(learned_head(), version=version), history), seen)
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


def test_new_prompts_are_told_apart(trained: LearnedPredictor) -> None:
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


def test_a_model_that_changes_is_followed_within_a_few_hundred_answers() -> None:
    predictor = retrained(taught(FIRST_TRAINING))
    before = median(predictor, "Explain in detail the nature of lakes", model="m")
    taught(300, factor=2.5, predictor=predictor)
    assert median(predictor, "Explain in detail the nature of lakes", model="m") > 1.7 * before


def test_a_head_that_is_worse_gives_way_to_the_one_before() -> None:
    predictor = retrained(taught(FIRST_TRAINING))
    history, seen = predictor.newest()
    wrong = train(replace(history, log_tokens=history.log_tokens[::-1].copy()), 2)
    predictor.install(equip(wrong, history), seen)
    assert predictor.version == 2
    taught(TRIAL, predictor=predictor)
    assert (predictor.version, predictor.rollbacks) == (1, 1)


def test_a_head_that_is_as_good_stays() -> None:
    predictor = retrained(retrained(taught(FIRST_TRAINING)), version=2)
    taught(TRIAL, predictor=predictor)
    assert (predictor.version, predictor.rollbacks) == (2, 0)


def test_a_conversation_is_found_again_by_its_next_turn() -> None:
    held = Conversations()
    held.add(0, 11, 3.0)
    held.add(11, 12, 4.0)
    said = held.find(12)
    assert said is not None
    assert (said.root, said.log_tokens) == (11, (3.0, 4.0))
    assert held.find(13) is None


def chars_per_token(earlier_chars: int, said: Said | None) -> float:
    """Of the second turn of a conversation."""
    detail = extract(Question(prompt="and then?", prompt_chars=9 + earlier_chars, turns=3), b"salt").detail
    assert detail is not None
    return math.exp(complete(detail, said)[REQUEST.index("chars_per_token")])


def test_a_conversation_of_little_text_for_its_tokens_is_told_from_prose() -> None:
    held = Conversations()
    held.add(0, 11, math.log(100))
    code, prose = (chars_per_token(chars, held.find(11)) for chars in (200, 500))
    assert prose / code == pytest.approx(2.5, rel=0.02)
    assert math.isnan(chars_per_token(500, None))


def test_answers_to_prompts_like_this_one_say_most() -> None:
    held = Conversations()
    chapters, thanks = HashEncoder().encode(["summarize the next chapter", "thanks"])
    held.add(0, 11, 5.0, chapters)
    held.add(11, 12, 1.0, thanks)
    names = dict(zip(CONVERSATION, said_numbers(held.find(12), chapters), strict=True))
    assert names["said_last"] == 1.0
    assert names["said_most_alike"] == 5.0
    assert names["alike_most"] == pytest.approx(1.0, abs=1e-3)
    assert names["said_alike"] > 4.5


def test_a_last_turn_without_an_embedding_is_like_nothing() -> None:
    held = Conversations()
    (chapters,) = HashEncoder().encode(["summarize the next chapter"])
    held.add(0, 11, 5.0, chapters)
    held.add(11, 12, 1.0, None)
    names = dict(zip(CONVERSATION, said_numbers(held.find(12), chapters), strict=True))
    assert math.isnan(names["alike_last"])
    assert names["said_most_alike"] == 5.0


def test_only_the_newest_turn_remembers_what_was_asked() -> None:
    held = Conversations()
    first, second = HashEncoder().encode(["one", "two"])
    held.add(0, 11, 5.0, first)
    held.add(11, 12, 1.0, second)
    before, newest = held.find(11), held.find(12)
    assert before is not None
    assert newest is not None
    assert (len(before.asked), len(newest.asked)) == (0, 2)


def test_without_an_embedding_nothing_is_known_of_likeness() -> None:
    held = Conversations()
    held.add(0, 11, 5.0, None)
    names = dict(zip(CONVERSATION, said_numbers(held.find(11), HashEncoder().encode(["again"])[0]), strict=True))
    assert names["said_last"] == 5.0
    assert math.isnan(names["said_alike"])


def test_the_number_of_conversations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.detail.MAX_CONVERSATIONS", 20)
    held = Conversations()
    for number in range(1, 100):
        held.add(0, number, 3.0)
    assert len(held) == 20 < MAX_CONVERSATIONS


def test_answers_of_a_conversation_are_seen_by_its_next_turn() -> None:
    rows: list[float] = []
    predictor = LearnedPredictor(lambda sample: rows.append(float(sample.numbers[-len(CONVERSATION)])))
    predictor.learn(make_features(conversation_now="one"), Observation(100, True))
    predictor.learn(make_features(conversation_now="two", conversation_previous="one"), Observation(50, True))
    assert math.isnan(rows[0])
    assert rows[1] == pytest.approx(math.log(100))


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
    row = np.array(lexical.row(text), np.float32)
    assert len(row) == len(lexical.NAMES)
    assert not np.isinf(row).any()
    assert np.nanmax(np.abs(row), initial=0.0) < 60_000


def test_a_row_has_as_many_numbers_as_it_says() -> None:
    detail = make_features().detail
    assert detail is not None
    assert len(detail.numbers) == NUMBERS


def test_features_of_the_same_request_are_equal_whatever_their_detail() -> None:
    assert make_features(embed=True) == make_features(embed=False) == Features(**_plain(make_features()))


def _plain(features: Features) -> dict[str, Any]:
    names = ("endpoint", "structured", "turns", "prompt", "keyword", "asked", "cap", "text", "conversation", "tenant")
    return {name: getattr(features, name) for name in names}


def test_the_loss_is_least_at_the_truth() -> None:
    row = np.linspace(3, 5, 10, dtype=np.float32)
    assert pinball(row, 4.0) < pinball(row, 6.0)


async def test_training_in_the_background_puts_a_head_to_use() -> None:
    predictor = taught(FIRST_TRAINING)
    kept: list[int] = []
    archive = Archive(None, None)
    archive.save_head = lambda version, data: kept.append(version)  # type: ignore[method-assign]

    async def here(data: bytes, version: int, rule: str) -> bytes:
        return train(read_history(data), version).to_bytes()

    assert await Learner(predictor, archive, train=here).turn()
    assert predictor.version == 1
    assert kept == [1]


async def test_a_training_that_fails_changes_nothing() -> None:
    predictor = taught(FIRST_TRAINING)
    outcomes: list[str] = []

    async def fails(data: bytes, version: int, rule: str) -> bytes:
        raise BackgroundError("no memory")

    await Learner(predictor, Archive(None, None), outcomes.append, fails).turn()
    assert predictor.version == 0
    assert outcomes == ["failed"]


class Slow:
    """An encoder that waits to be let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.texts: list[str] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.go.wait(5)
        self.texts += texts
        return np.ones((len(texts), 384), np.float32)


async def test_a_text_is_encoded() -> None:
    queue = EncodeQueue(HashEncoder(), timeout_seconds=5)
    vector = await queue.encode("hello world")
    queue.close()
    assert vector is not None
    assert float(np.linalg.norm(vector)) == pytest.approx(1.0)


async def test_no_text_has_no_vector() -> None:
    queue = EncodeQueue(HashEncoder(), timeout_seconds=5)
    assert await queue.encode("") is None
    queue.close()


class Recording:
    """An encoder that notes which thread it was called from, and how long it took on a clock of its own."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = 0.0
        self.threads: list[bool] = []

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.at += self.seconds
        self.threads.append(threading.current_thread() is not threading.main_thread())
        return np.ones((len(texts), 384), np.float32)


async def test_a_text_that_comes_alone_is_encoded_on_the_loop_once_the_encoder_is_known_to_be_quick() -> None:
    encoder = Recording(seconds=0.001)
    queue = EncodeQueue(encoder, timeout_seconds=5.0, clock=lambda: encoder.at, work_clock=lambda: encoder.at)
    for _ in range(3):
        await queue.encode("hello")
        encoder.at += 0.1
    queue.close()
    assert encoder.threads == [True, False, False]


async def test_a_slow_encoder_never_holds_up_the_loop() -> None:
    encoder = Recording(seconds=2.0)
    queue = EncodeQueue(encoder, timeout_seconds=5.0, clock=lambda: encoder.at, work_clock=lambda: encoder.at)
    for _ in range(3):
        await queue.encode("hello")
        encoder.at += 10.0
    queue.close()
    assert encoder.threads == [True, True, True]


async def test_the_loop_rests_from_encoding_for_as_long_as_it_took() -> None:
    encoder = Recording(seconds=0.001)
    queue = EncodeQueue(encoder, timeout_seconds=5.0, clock=lambda: encoder.at, work_clock=lambda: encoder.at)
    await queue.encode("the first is timed in the thread")
    encoder.at += 1.0
    await queue.encode("on the loop")
    await queue.encode("at once after it")
    queue.close()
    assert encoder.threads == [True, False, True]


async def test_a_late_encoder_is_not_waited_for() -> None:
    slow, outcomes = Slow(), list[str]()
    queue = EncodeQueue(slow, 0.01, outcomes.append)
    assert await queue.encode("hello") is None
    slow.go.set()
    queue.close()
    assert outcomes == ["late"]


async def test_too_many_at_once_go_without() -> None:
    slow, outcomes = Slow(), list[str]()
    queue = EncodeQueue(slow, 5.0, outcomes.append)
    waiting = [asyncio.create_task(queue.encode(f"text {number}")) for number in range(MAX_WAITING)]
    await asyncio.sleep(0)
    assert await queue.encode("one more") is None
    slow.go.set()
    await asyncio.gather(*waiting)
    queue.close()
    assert outcomes.count("busy") == 1
    assert outcomes.count("encoded") == MAX_WAITING


async def test_an_encoder_that_fails_costs_the_vector_only() -> None:
    class Broken:
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            raise RuntimeError("out of memory")

    queue = EncodeQueue(Broken(), 5.0)
    assert await queue.encode("hello") is None
    queue.close()


async def test_without_a_thread_a_text_goes_unembedded_and_the_next_has_one() -> None:
    outcomes: list[str] = []
    failures: list[int] = []
    queue = EncodeQueue(HashEncoder(), 5.0, outcomes.append, on_failure=lambda: failures.append(1))
    queue._pool.shutdown()
    assert await queue.encode("a text") is None
    assert await queue.encode("a text") is not None
    assert (outcomes, failures) == (["failed", "encoded"], [1])


async def test_the_stores_are_looked_after_while_a_head_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.learner.TURN_SECONDS", 0.0)
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
    monkeypatch.setattr("alise_scheduler.predictor.learner.REST_SECONDS", 0.0)
    monkeypatch.setattr("alise_scheduler.predictor.learner.TURN_SECONDS", 0.0)
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

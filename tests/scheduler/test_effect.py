"""What a conversation's answers so far say of its next one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.predictor import effect
from alise_scheduler.predictor.detail import MAX_ASKED, Conversations, carried_over, context
from alise_scheduler.predictor.encoder import HashEncoder
from alise_scheduler.predictor.features import Features
from alise_scheduler.predictor.learned import FIRST_TRAINING, LearnedPredictor, equip
from alise_scheduler.predictor.model import Observation
from alise_scheduler.predictor.train import train
from tests.scheduler.predictor_builders import make_features, make_task

CHAPTER, THANKS, SONG = HashEncoder().encode(["summarize the next chapter", "thanks", "write me a song of the sea"])


def told(*turns: tuple[str, float]) -> Conversations:
    """A conversation of these prompts, whose answers ranked so much above what was expected; its newest turn is its length."""
    held = Conversations()
    for number, (prompt, rest) in enumerate(turns):
        held.add(number, number + 1, 5.0, HashEncoder().encode([prompt])[0], rest=rest)
    return held


def test_a_first_turn_is_not_moved() -> None:
    assert carried_over(None, CHAPTER) == 0.0


def test_answers_longer_than_expected_let_the_next_one_be_longer() -> None:
    assert 0.0 < carried_over(told(("thanks", 0.4)).find(1), CHAPTER) < 0.4
    assert -0.4 < carried_over(told(("thanks", -0.4)).find(1), CHAPTER) < 0.0


def test_more_answers_are_believed_more() -> None:
    once, thrice = told(("thanks", 0.4)).find(1), told(("thanks", 0.4), ("hello", 0.4), ("write", 0.4)).find(3)
    assert carried_over(once, CHAPTER) < carried_over(thrice, CHAPTER) < 0.4


def test_the_answer_to_a_prompt_like_this_one_says_most() -> None:
    said = told(("summarize the next chapter", 0.4), ("thanks", -0.4)).find(2)
    assert carried_over(said, CHAPTER) > 0.0 > carried_over(said, THANKS)


def test_the_newest_answer_says_more_than_an_old_one() -> None:
    said = told(("a", -0.4), ("b", 0.0), ("c", 0.0), ("d", 0.4)).find(4)
    assert carried_over(said, CHAPTER) > 0.0


def test_a_turn_that_nothing_was_expected_of_begins_anew() -> None:
    said = told(("thanks", 0.4), ("hello", math.nan)).find(2)
    assert carried_over(said, CHAPTER) == 0.0


def test_prompts_without_an_embedding_carry_over_as_well() -> None:
    held = Conversations()
    held.add(0, 1, 5.0, None, rest=0.4)
    assert 0.0 < carried_over(held.find(1), None) < 0.4


@given(st.lists(st.tuples(st.sampled_from(["thanks", "go on", "a song"]), st.floats(-1, 1)), min_size=1, max_size=20))
def test_nothing_moves_further_than_the_answers_were_off(turns: list[tuple[str, float]]) -> None:
    said = told(*turns).find(len(turns))
    assert said is not None
    assert len(said.rests) <= MAX_ASKED
    assert abs(carried_over(said, CHAPTER)) <= 1.5 * max(abs(rest) for _, rest in turns) + 1e-6


def test_training_sees_what_serving_sees() -> None:
    chance = np.random.default_rng(3)
    vectors = np.stack([(CHAPTER, THANKS, SONG)[chance.integers(3)] for _ in range(40)])
    rests = chance.normal(0, 0.3, 40).astype(np.float32)
    roots = chance.integers(0, 4, 40)
    held, newest = Conversations(), dict[int, int]()
    served, about = [], []
    for row in range(40):
        root = int(roots[row])
        said = held.find(newest.get(root, 0))
        served.append(carried_over(said, vectors[row]))
        about.append(context(said, vectors[row]))
        held.add(newest.get(root, 0), 100 + row, 5.0, vectors[row], rest=float(rests[row]))
        newest[root] = 100 + row
    assert effect.carry_over(vectors, rests, roots) == pytest.approx(served, abs=2e-3)
    assert effect.contexts(vectors, roots) == pytest.approx(np.stack(about), abs=2e-3)


def test_a_first_turn_is_about_itself_and_a_later_one_about_what_was_asked_before() -> None:
    held = told(("summarize the next chapter", 0.0), ("thanks", 0.0))
    assert context(None, SONG).tolist() == SONG.tolist()
    about = context(held.find(2), SONG)
    assert about @ CHAPTER == pytest.approx(about @ THANKS, abs=1e-3)
    assert float(np.linalg.norm(about)) == pytest.approx(1.0, abs=1e-3)


def test_without_any_embedding_nothing_is_known_of_what_it_is_about() -> None:
    held = Conversations()
    held.add(0, 1, 5.0, None)
    assert not context(held.find(1), None).any()
    assert context(held.find(1), SONG).tolist() == SONG.tolist()


def test_rows_without_conversations_are_not_moved() -> None:
    assert not effect.carry_over(np.ones((30, 4), np.float32), np.ones(30, np.float32), np.arange(30)).any()


def test_what_never_comes_true_is_not_trusted_for_long() -> None:
    moves = np.full(1000, 0.1, np.float32)
    assert effect.trust(moves, moves) == pytest.approx(1.0)
    assert effect.trust(moves, 0.0 * moves) < 0.1
    assert effect.trust(moves, -moves) == 0.0
    assert effect.trust(np.zeros(0, np.float32), np.zeros(0, np.float32)) == 1.0


def test_a_talkative_conversation_is_expected_to_go_on_so() -> None:
    predictor = LearnedPredictor()
    chance = np.random.default_rng(0)
    for number in range(FIRST_TRAINING):
        prompt, tokens = make_task(chance)
        talkative = 3.0 if number // 4 % 2 else 1.0
        predictor.learn(turn(prompt, number // 4, number % 4), Observation(round(tokens * talkative), True))
    history, seen = predictor.newest()
    predictor.install(equip(train(history, 1), history), seen)
    for number, factor in ((1000, 1), (1001, 3)):
        for at, task, tokens in ((0, "Summarize the story of bread", 60), (1, "Explain in detail the nature of chess", 180)):
            predictor.learn(turn(task, number, at), Observation(factor * tokens, True))
    terse, talkative = (predictor.predict(turn("Write an essay about whales", number, 2), 0).median for number in (1000, 1001))
    assert talkative > 1.3 * terse


def turn(prompt: str, conversation: int, number: int) -> Features:
    previous = f"{conversation} {number - 1}" if number else ""
    return make_features(prompt, conversation_now=f"{conversation} {number}", conversation_previous=previous)

"""What a conversation's answers so far say of its next one."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alise_scheduler.predictor.features import conversation_effect
from alise_scheduler.predictor.features.conversation import MAX_PROMPTS, Conversations, carried_over, complete, context
from alise_scheduler.predictor.features.row import NUMBERS, ModelInput
from alise_scheduler.predictor.interface import Observation
from alise_scheduler.predictor.learned import LearnedPredictor
from alise_scheduler.predictor.served_head import ServedHead, serve_head
from alise_scheduler.predictor.training.fit import train
from alise_scheduler.predictor.training.samples import Sample
from alise_scheduler.predictor.training.trial import FIRST_TRAINING
from tests.scheduler.hash_encoder import HashEncoder
from tests.scheduler.predictor_builders import make_features, make_task

pytestmark = pytest.mark.process

CHAPTER, THANKS, SONG = HashEncoder().encode(["summarize the next chapter", "thanks", "write me a song of the sea"])


def conversation_of(*turns: tuple[str, float]) -> Conversations:
    """A conversation of these prompts, whose answers ranked that far above what was expected; its newest turn is its length."""
    held = Conversations()
    for number, (prompt, residual) in enumerate(turns):
        held.add(number, number + 1, 5.0, HashEncoder().encode([prompt])[0], residual=residual)
    return held


def test_a_first_turn_is_not_moved() -> None:
    assert carried_over(None, CHAPTER) == 0.0


def test_answers_longer_than_expected_let_the_next_one_be_longer() -> None:
    assert 0.0 < carried_over(conversation_of(("thanks", 0.4)).find(1), CHAPTER) < 0.4
    assert -0.4 < carried_over(conversation_of(("thanks", -0.4)).find(1), CHAPTER) < 0.0


def test_more_answers_are_believed_more() -> None:
    once, thrice = conversation_of(("thanks", 0.4)).find(1), conversation_of(("thanks", 0.4), ("hello", 0.4), ("write", 0.4)).find(3)
    assert carried_over(once, CHAPTER) < carried_over(thrice, CHAPTER) < 0.4


def test_the_answer_to_a_prompt_like_this_one_says_most() -> None:
    past = conversation_of(("summarize the next chapter", 0.4), ("thanks", -0.4)).find(2)
    assert carried_over(past, CHAPTER) > 0.0 > carried_over(past, THANKS)


def test_the_newest_answer_says_more_than_an_old_one() -> None:
    past = conversation_of(("a", -0.4), ("b", 0.0), ("c", 0.0), ("d", 0.4)).find(4)
    assert carried_over(past, CHAPTER) > 0.0


def test_a_turn_that_nothing_was_expected_of_begins_anew() -> None:
    past = conversation_of(("thanks", 0.4), ("hello", math.nan)).find(2)
    assert carried_over(past, CHAPTER) == 0.0


def test_prompts_without_an_embedding_carry_over_as_well() -> None:
    held = Conversations()
    held.add(0, 1, 5.0, None, residual=0.4)
    assert 0.0 < carried_over(held.find(1), None) < 0.4


@given(st.lists(st.tuples(st.sampled_from(["thanks", "go on", "a song"]), st.floats(-1, 1)), min_size=1, max_size=20))
def test_nothing_moves_further_than_the_answers_were_off(turns: list[tuple[str, float]]) -> None:
    past = conversation_of(*turns).find(len(turns))
    assert past is not None
    assert len(past.residuals) <= MAX_PROMPTS
    assert abs(carried_over(past, CHAPTER)) <= 1.5 * max(abs(residual) for _, residual in turns) + 1e-6


def test_training_sees_what_serving_sees() -> None:
    rng = np.random.default_rng(3)
    vectors = np.stack([(CHAPTER, THANKS, SONG)[rng.integers(3)] for _ in range(40)])
    residuals = rng.normal(0, 0.3, 40).astype(np.float32)
    roots = rng.integers(0, 4, 40)
    held, newest = Conversations(), dict[int, int]()
    served, about, answered = [], [], []
    for row in range(40):
        root = int(roots[row])
        answered.append(min(int((roots[:row] == root).sum()), conversation_effect.MOST))
        past = held.find(newest.get(root, 0))
        served.append(carried_over(past, vectors[row]))
        about.append(context(past, vectors[row]))
        held.add(newest.get(root, 0), 100 + row, 5.0, vectors[row], residual=float(residuals[row]))
        newest[root] = 100 + row
    assert conversation_effect.carry_over(vectors, residuals, roots, np.array(answered)) == pytest.approx(served, abs=2e-3)
    assert conversation_effect.contexts(vectors, roots, np.array(answered)) == pytest.approx(np.stack(about), abs=2e-3)


def test_a_first_turn_is_about_itself_and_a_later_one_about_what_was_asked_before() -> None:
    held = conversation_of(("summarize the next chapter", 0.0), ("thanks", 0.0))
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
    assert not conversation_effect.carry_over(
        np.ones((30, 4), np.float32), np.ones(30, np.float32), np.arange(30), np.zeros(30, np.float32)
    ).any()


def test_conversations_with_the_same_beginning_do_not_affect_each_other() -> None:
    roots, answered = np.zeros(6, np.int64), np.array([0, 0, 0, 1, 0, 1])
    moved = conversation_effect.carry_over(
        np.ones((6, 4), np.float32), np.array([0.4, 0.4, -0.4, 0.0, 0.4, 0.0], np.float32), roots, answered
    )
    assert moved[[0, 1, 2, 4]].tolist() == [0.0] * 4
    assert moved[3] < 0.0 < moved[5]


def test_another_answer_to_the_same_turn_takes_the_place_of_the_one_before() -> None:
    once, twice = (conversation_of(("a", 0.3), ("b", 0.3), ("c", 0.3), ("d", 0.3)) for _ in range(2))
    twice.add(3, 4, 5.0, HashEncoder().encode(["d"])[0], residual=0.3)
    assert carried_over(twice.find(4), CHAPTER) == pytest.approx(carried_over(once.find(4), CHAPTER))
    assert context(twice.find(4), SONG) == pytest.approx(context(once.find(4), SONG))


def test_what_never_comes_true_is_not_trusted_for_long() -> None:
    moves = np.full(1000, 0.1, np.float32)
    assert conversation_effect.trust(moves, moves) == pytest.approx(1.0)
    assert conversation_effect.trust(moves, 0.0 * moves) < 0.1
    assert conversation_effect.trust(moves, -moves) == 0.0
    assert conversation_effect.trust(np.zeros(0, np.float32), np.zeros(0, np.float32)) == 1.0


def trained() -> tuple[LearnedPredictor, ServedHead]:
    predictor = LearnedPredictor()
    rng = np.random.default_rng(0)
    for _ in range(FIRST_TRAINING):
        prompt, tokens = make_task(rng)
        predictor.learn(make_features(prompt), Observation(tokens, True))
    history = predictor.newest()
    equipped = serve_head(train(history, 1), history)
    predictor.install(equipped)
    return predictor, equipped


def test_earlier_answers_move_the_prediction_of_a_head() -> None:
    _, equipped = trained()
    detail = make_features("Write an essay about whales")
    row = complete(detail, None)
    longer, shorter = (
        equipped.predict(row, detail.embedding, conversation_of(("thanks", residual)).find(1)).log_quantiles for residual in (0.4, -0.4)
    )
    assert (longer > shorter).all()


def test_an_answer_that_was_cut_never_says_that_answers_are_short() -> None:
    _, equipped = trained()
    cut = Sample(np.full(NUMBERS, np.nan, np.float32), CHAPTER, 0.0, False, 7, now=7)
    assert equipped.residual(cut, None) == 0.0
    assert equipped.residual(replace(cut, ended=True), None) < 0.0
    assert equipped.residual(replace(cut, log_tokens=9.0), None) > 0.0


def test_what_another_replica_learned_of_a_conversation_moves_its_next_prediction_as_much() -> None:
    theirs, equipped = trained()
    sent: list[Sample] = []
    ours = LearnedPredictor(sent.append)
    ours.restore(equipped)
    ours.learn(turn("Write an essay about chess", 5, 0), Observation(900, True))
    theirs.take(sent[0])
    next_turn, of_another = (turn("Write an essay about whales", conversation, 1) for conversation in (5, 6))
    moves = [predictor.predict(next_turn, 0).median / predictor.predict(of_another, 0).median for predictor in (ours, theirs)]
    assert min(moves) > 1.05
    assert moves[0] == pytest.approx(moves[1], rel=0.1)


def test_a_talkative_conversation_is_expected_to_go_on_so() -> None:
    predictor = LearnedPredictor()
    rng = np.random.default_rng(0)
    for number in range(FIRST_TRAINING):
        prompt, tokens = make_task(rng)
        talkative = 3.0 if number // 4 % 2 else 1.0
        predictor.learn(turn(prompt, number // 4, number % 4), Observation(round(tokens * talkative), True))
    history = predictor.newest()
    predictor.install(serve_head(train(history, 1), history))
    for number, factor in ((1000, 1), (1001, 3)):
        for at, task, tokens in ((0, "Summarize the story of bread", 60), (1, "Explain in detail the nature of chess", 180)):
            predictor.learn(turn(task, number, at), Observation(factor * tokens, True))
    terse, talkative = (predictor.predict(turn("Write an essay about whales", number, 2), 0).median for number in (1000, 1001))
    assert talkative > 1.3 * terse


def turn(prompt: str, conversation: int, number: int) -> ModelInput:
    previous = f"{conversation} {number - 1}" if number else ""
    return make_features(prompt, conversation_now=f"{conversation} {number}", conversation_previous=previous)

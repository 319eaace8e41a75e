"""Conversations: a turn is predicted with the answers before it."""

import math

import pytest

from alise_scheduler.predictor.features.conversation import MAX_CONVERSATIONS, Conversations, PastTurns, complete
from alise_scheduler.predictor.features.request import Question, extract
from alise_scheduler.predictor.features.row import REQUEST
from tests.scheduler.hash_encoder import HashEncoder

pytestmark = pytest.mark.process


def test_a_conversation_is_found_again_by_its_next_turn() -> None:
    held = Conversations()
    held.add(0, 11, 3.0)
    held.add(11, 12, 4.0)
    past = held.find(12)
    assert past is not None
    assert (past.root, past.log_tokens) == (11, (3.0, 4.0))
    assert held.find(13) is None


def chars_per_token(earlier_chars: int, past: PastTurns | None) -> float:
    """Of the second turn of a conversation."""
    detail = extract(Question(prompt="and then?", prompt_chars=9 + earlier_chars, turns=3), b"salt")
    return math.exp(complete(detail, past)[REQUEST.index("chars_per_token")])


def test_a_conversation_with_little_text_for_its_tokens_differs_from_prose() -> None:
    held = Conversations()
    held.add(0, 11, math.log(100))
    code, prose = (chars_per_token(chars, held.find(11)) for chars in (200, 500))
    assert prose / code == pytest.approx(2.5, rel=0.02)
    assert math.isnan(chars_per_token(500, None))


def test_only_the_newest_turn_remembers_what_was_asked() -> None:
    held = Conversations()
    first, second = HashEncoder().encode(["one", "two"])
    held.add(0, 11, 5.0, first)
    held.add(11, 12, 1.0, second)
    before, newest = held.find(11), held.find(12)
    assert before is not None
    assert newest is not None
    assert (len(before.prompts), len(newest.prompts)) == (0, 2)


def test_the_number_of_conversations_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alise_scheduler.predictor.features.conversation.MAX_CONVERSATIONS", 20)
    held = Conversations()
    for number in range(1, 100):
        held.add(0, number, 3.0)
    assert len(held) == 20 < MAX_CONVERSATIONS

"""Names conversations, so that a later turn finds the lengths of the earlier ones; pure.

A name is a digest of all messages up to a turn. A request carries three: of the conversation without its last turn, of the conversation as
the next turn will name it, and as the turn before named it. `prompts.py` calls it.
"""

import hashlib
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a chat."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of a body: its newest user text, its size, and the names of its conversation."""

    newest: str
    # Of the whole prompt.
    chars: int
    turns: int
    # Engine requests per sample; more than 1 for a list of prompts.
    prompts: int = 1
    conversation: str = ""
    conversation_now: str = ""
    conversation_previous: str = ""


def conversation(turns: list[Turn], count: int = 0) -> Prompt:
    """Returns the prompt of a chat. If `count` is above the number of turns, these are the newest ones, and the chat has no name."""
    last_user = next((at for at in reversed(range(len(turns))) if turns[at].role == "user"), len(turns) - 1)
    if count > len(turns):
        chars = sum(len(turn.text) for turn in turns) * count // len(turns)
        return Prompt(turns[last_user].text, chars, count)
    said_before = any(turn.role not in ("system", "developer") for turn in turns[:last_user])
    names = _digests(turns, {last_user, before_answer := _before_answer(turns), len(turns)})
    return Prompt(
        turns[last_user].text,
        sum(len(turn.text) for turn in turns),
        len(turns),
        conversation=names[last_user] if said_before else "",
        conversation_now=names[len(turns)],
        conversation_previous=names[before_answer] if before_answer else "",
    )


def _before_answer(turns: list[Turn]) -> int:
    """Returns the number of messages before the newest answer in `turns`; 0 when there is no answer."""
    end = len(turns)
    while end and turns[end - 1].role != "assistant":
        end -= 1
    while end and turns[end - 1].role == "assistant":
        end -= 1
    return end


def _digests(turns: list[Turn], ends: set[int]) -> dict[int, str]:
    """Returns the digest of the first n messages, for each n of `ends`, in one pass."""
    running = hashlib.sha256()
    digests = {}
    for number, turn in enumerate(turns):
        if number in ends:
            digests[number] = running.hexdigest()
        running.update(json.dumps([turn.role, turn.text]).encode())
    digests[len(turns)] = running.hexdigest()
    return digests


def digest(text: str) -> str:
    """Returns the name of a conversation whose earlier turns the server stores under an id."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

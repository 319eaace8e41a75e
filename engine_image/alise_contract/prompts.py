"""Reads the prompt of a body, in each of the formats that alise knows; pure.

A reader returns None for a body of another format, and never raises, whatever the JSON. `describe.py` calls it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .conversation import Prompt, Turn, conversation, digest

JSON = Any

# A prompt of token ids has no characters; about four per token is what byte-pair vocabularies give for English.
CHARS_PER_TOKEN: Final = 4
# Only the newest messages of a longer chat are read, because that happens on the event loop that serves every request.
MAX_MESSAGES: Final = 10_000


def chat_prompt(body: Mapping[str, JSON], before: Sequence[Turn] = ()) -> Prompt | None:
    """Returns the prompt in `messages`; `before` are turns from other fields of the body."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    newest = messages[-MAX_MESSAGES:]
    if not all(isinstance(message, dict) for message in newest):
        return None
    turns = [*before, *(Turn(_role(message), _text(message.get("content"))) for message in newest)]
    return conversation(turns, len(before) + len(messages))


def completion_prompt(body: Mapping[str, JSON]) -> Prompt | None:
    prompt = body.get("prompt")
    match prompt:
        case str():
            return Prompt(prompt, len(prompt), turns=1)
        case [str(), *_] if all(isinstance(part, str) for part in prompt):
            return Prompt("\n".join(prompt), sum(map(len, prompt)), turns=1, prompts=len(prompt))
        case [int() | float(), *_]:
            return Prompt("", CHARS_PER_TOKEN * len(prompt), turns=1)
        case [list(), *_] if all(isinstance(part, list) for part in prompt):
            return Prompt("", CHARS_PER_TOKEN * sum(map(len, prompt)), turns=1, prompts=len(prompt))
        case _:
            return None


def responses_prompt(body: Mapping[str, JSON]) -> Prompt | None:
    given = body.get("input")
    instructions = _text(body.get("instructions"))
    turns = [Turn("system", instructions)] if instructions else []
    match given:
        case str():
            prompt = conversation([*turns, Turn("user", given)])
        case [dict(), *_] if all(isinstance(item, dict) for item in given[-MAX_MESSAGES:]):
            newest = given[-MAX_MESSAGES:]
            items = [Turn(_role(item), _text(item.get("content", item.get("output")))) for item in newest]
            prompt = conversation([*turns, *items], len(turns) + len(given))
        case _:
            return None
    previous = body.get("previous_response_id")
    if not isinstance(previous, str) or not previous:
        return prompt
    # The server holds the earlier turns; its id for them names the conversation.
    return Prompt(prompt.newest, prompt.chars, prompt.turns + 1, conversation=digest(previous))


def messages_prompt(body: Mapping[str, JSON]) -> Prompt | None:
    """Returns the prompt of Anthropic's format, which has the system prompt beside the messages."""
    system = _text(body.get("system"))
    return chat_prompt(body, [Turn("system", system)] if system else ())


def most_prompts(body: Mapping[str, JSON]) -> int:
    """Returns the largest number of prompts in a body of unknown format: the longest list of lists, texts or objects under the usual names.

    A chat's messages are objects and one prompt; a batch of chats is a list of lists.
    """
    most = 1
    for name in ("messages", "prompt", "prompts", "input", "inputs", "text_2", "documents", "items"):
        value = body.get(name)
        if isinstance(value, list) and value and isinstance(value[0], list if name == "messages" else (list, str, dict)):
            most = max(most, len(value))
    return most


def _role(message: Mapping[str, JSON]) -> str:
    role = message.get("role", "")
    return role if isinstance(role, str) else ""


def _text(content: JSON) -> str:
    """Returns the text of a message's content: a string, or the text parts of a list; pictures and audio have none."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None for part in content)
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""

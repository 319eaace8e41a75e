"""Describes the work that a request's body asks for; pure.

It knows the bodies of OpenAI's chat, completions and responses and of Anthropic's messages, as far as admission needs them. It does not
validate: a body that it does not understand is described as `Endpoint.OTHER`, counted and ranked neutral, and vLLM's own answer is what the
client sees. It never raises, whatever the JSON.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

from alise_contract.names import MAX_PROMPT_BYTES

JSON = Any

# A prompt of token ids has no characters; about four per token is what byte-pair vocabularies give for English.
CHARS_PER_TOKEN: Final = 4
# vLLM's default for /v1/completions, as in OpenAI's API.
COMPLETIONS_MAX_TOKENS: Final = 16
# More samples than any engine takes; what is counted stays far from the end of an integer.
MAX_SAMPLES: Final = 1 << 20
_UINT32_MAX: Final = (1 << 32) - 1
_UINT64_MAX: Final = (1 << 64) - 1


class Endpoint(Enum):
    CHAT_COMPLETIONS = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"
    MESSAGES = "/v1/messages"
    # Any other route that generates, and bodies that were not understood.
    OTHER = ""


@dataclass(frozen=True, slots=True)
class Description:
    """The part of an AdmitRequest that comes from the request's body."""

    endpoint: Endpoint
    model: str = ""
    # The newest user text, at most 16 KiB of UTF-8.
    prompt: str = ""
    prompt_chars: int = 0
    turns: int = 1
    # 0: none.
    max_tokens: int = 0
    # Engine requests.
    n: int = 1
    structured: bool = False
    conversation: str = ""
    # As the next turn will name it, and as the turn before named it.
    conversation_now: str = ""
    conversation_previous: str = ""
    # None: not set.
    temperature: float | None = None
    # The prompt may be longer than the model takes: it is tokenized as a whole and then cut.
    truncates: bool = False


# Of a longer chat only the newest are read, because that happens on the event loop that serves every request.
MAX_MESSAGES: Final = 10_000
# A longer name is no model's, and vLLM answers 404; the sidecar is not sent a megabyte of it.
MAX_MODEL_CHARS: Final = 1024


@dataclass(frozen=True, slots=True)
class _Turn:
    role: str
    text: str


@dataclass(frozen=True, slots=True)
class _Prompt:
    newest: str
    chars: int
    turns: int
    # Engine requests per sample; more than 1 for a list of prompts.
    prompts: int = 1
    conversation: str = ""
    conversation_now: str = ""
    conversation_previous: str = ""


def describe(endpoint: Endpoint, body: JSON) -> Description:
    """Returns what is known of the request; of a body that is not understood, how many engine requests it may become."""
    if not isinstance(body, dict):
        return Description(Endpoint.OTHER)
    prompt = _PROMPTS[endpoint](body) if endpoint in _PROMPTS else None
    general = Description(
        endpoint=Endpoint.OTHER,
        model=_valid_utf8(body["model"][:MAX_MODEL_CHARS]) if isinstance(body.get("model"), str) else "",
        max_tokens=_max_tokens(endpoint, body),
        n=_samples(body, prompt.prompts if prompt is not None else _prompts(body)),
        truncates=body.get("truncate_prompt_tokens") is not None,
    )
    if prompt is None:
        return general
    return replace(
        general,
        endpoint=endpoint,
        prompt=_truncated(prompt.newest),
        prompt_chars=min(prompt.chars, _UINT64_MAX),
        turns=min(prompt.turns, _UINT32_MAX),
        structured=_structured(body),
        conversation=prompt.conversation,
        conversation_now=prompt.conversation_now,
        conversation_previous=prompt.conversation_previous,
        temperature=_temperature(body.get("temperature")),
    )


# --- the prompt -------------------------------------------------------------------------------------------------------------------


def _chat_prompt(body: Mapping[str, JSON], before: Sequence[_Turn] = ()) -> _Prompt | None:
    """The prompt in `messages`; `before` are turns that the body holds beside them."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    newest = messages[-MAX_MESSAGES:]
    if not all(isinstance(message, dict) for message in newest):
        return None
    turns = [*before, *(_Turn(_role(message), _text(message.get("content"))) for message in newest)]
    return _conversation(turns, len(before) + len(messages))


def _completion_prompt(body: Mapping[str, JSON]) -> _Prompt | None:
    prompt = body.get("prompt")
    match prompt:
        case str():
            return _Prompt(prompt, len(prompt), turns=1)
        case [str(), *_] if all(isinstance(part, str) for part in prompt):
            return _Prompt("\n".join(prompt), sum(map(len, prompt)), turns=1, prompts=len(prompt))
        case [int() | float(), *_]:
            return _Prompt("", CHARS_PER_TOKEN * len(prompt), turns=1)
        case [list(), *_] if all(isinstance(part, list) for part in prompt):
            return _Prompt("", CHARS_PER_TOKEN * sum(map(len, prompt)), turns=1, prompts=len(prompt))
        case _:
            return None


def _responses_prompt(body: Mapping[str, JSON]) -> _Prompt | None:
    given = body.get("input")
    instructions = _text(body.get("instructions"))
    turns = [_Turn("system", instructions)] if instructions else []
    match given:
        case str():
            prompt = _conversation([*turns, _Turn("user", given)])
        case [dict(), *_] if all(isinstance(item, dict) for item in given[-MAX_MESSAGES:]):
            newest = given[-MAX_MESSAGES:]
            items = [_Turn(_role(item), _text(item.get("content", item.get("output")))) for item in newest]
            prompt = _conversation([*turns, *items], len(turns) + len(given))
        case _:
            return None
    previous = body.get("previous_response_id")
    if not isinstance(previous, str) or not previous:
        return prompt
    # The server holds the earlier turns; its id for them names the conversation.
    return _Prompt(prompt.newest, prompt.chars, prompt.turns + 1, conversation=_digest(previous))


def _messages_prompt(body: Mapping[str, JSON]) -> _Prompt | None:
    """Anthropic's: the system prompt beside the messages, tool results among the user's blocks."""
    system = _text(body.get("system"))
    return _chat_prompt(body, [_Turn("system", system)] if system else ())


_PROMPTS: Final = {
    Endpoint.CHAT_COMPLETIONS: _chat_prompt,
    Endpoint.COMPLETIONS: _completion_prompt,
    Endpoint.RESPONSES: _responses_prompt,
    Endpoint.MESSAGES: _messages_prompt,
}


def _prompts(body: Mapping[str, JSON]) -> int:
    """How many prompts a body of unknown format may hold: the longest list of lists, texts or objects under the usual names.

    A chat's messages are objects and one prompt; a batch of chats is a list of lists.
    """
    most = 1
    for name in ("messages", "prompt", "prompts", "input", "inputs", "text_2", "documents", "items"):
        value = body.get(name)
        if isinstance(value, list) and value and isinstance(value[0], list if name == "messages" else (list, str, dict)):
            most = max(most, len(value))
    return most


def _samples(body: Mapping[str, JSON], prompts: int) -> int:
    return min(max(1, _count(body.get("n"))) * prompts, MAX_SAMPLES)


def _conversation(turns: list[_Turn], count: int = 0) -> _Prompt:
    """Returns the prompt of a chat. If `count` is above the number of turns, these are the newest ones, and the chat has no name."""
    last_user = next((at for at in reversed(range(len(turns))) if turns[at].role == "user"), len(turns) - 1)
    if count > len(turns):
        chars = sum(len(turn.text) for turn in turns) * count // len(turns)
        return _Prompt(turns[last_user].text, chars, count)
    said_before = any(turn.role not in ("system", "developer") for turn in turns[:last_user])
    names = _digests(turns, {last_user, before_answer := _before_answer(turns), len(turns)})
    return _Prompt(
        turns[last_user].text,
        sum(len(turn.text) for turn in turns),
        len(turns),
        conversation=names[last_user] if said_before else "",
        conversation_now=names[len(turns)],
        conversation_previous=names[before_answer] if before_answer else "",
    )


def _before_answer(turns: list[_Turn]) -> int:
    """How many messages the request had that led to the newest answer in `turns`; 0 when there is no answer."""
    end = len(turns)
    while end and turns[end - 1].role != "assistant":
        end -= 1
    while end and turns[end - 1].role == "assistant":
        end -= 1
    return end


def _digests(turns: list[_Turn], ends: set[int]) -> dict[int, str]:
    """Digest of the first n messages, for each n of `ends`; one pass, however long the chat."""
    running = hashlib.sha256()
    made = {}
    for number, turn in enumerate(turns):
        if number in ends:
            made[number] = running.hexdigest()
        running.update(json.dumps([turn.role, turn.text]).encode())
    made[len(turns)] = running.hexdigest()
    return made


def _role(message: Mapping[str, JSON]) -> str:
    role = message.get("role", "")
    return role if isinstance(role, str) else ""


def _text(content: JSON) -> str:
    """The text of a message's content: a string, or the text parts of a list; pictures and audio have none."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None for part in content)
        return "\n".join(part for part in parts if isinstance(part, str))
    return ""


# --- the rest ---------------------------------------------------------------------------------------------------------------------


def _max_tokens(endpoint: Endpoint, body: Mapping[str, JSON]) -> int:
    """The greatest number of tokens that vLLM will generate; 0: no limit but the model's. Null is as good as absent, as in vLLM."""
    match endpoint:
        case Endpoint.COMPLETIONS:
            if body.get("max_tokens") is None:
                return COMPLETIONS_MAX_TOKENS
            if body.get("echo") is True and _is_zero(body["max_tokens"]):
                # Scoring a prompt: vLLM computes one token and throws it away.
                return 1
            return _count(body["max_tokens"])
        case Endpoint.RESPONSES:
            return _count(body.get("max_output_tokens"))
        case _:
            return _count(body.get("max_completion_tokens")) or _count(body.get("max_tokens"))


def _is_zero(value: JSON) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float | str) and value in (0, "0")


def _temperature(value: JSON) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100
    return float(value) if usable else None


def _structured(body: Mapping[str, JSON]) -> bool:
    text = body.get("text")
    formats = (body.get("response_format"), text.get("format") if isinstance(text, dict) else None)
    shaped = any(isinstance(shape, dict) and shape.get("type", "text") != "text" for shape in formats)
    choice = body.get("tool_choice")
    tools = bool(body.get("tools")) and (choice.get("type") if isinstance(choice, dict) else choice) != "none"
    return shaped or tools or bool(body.get("structured_outputs"))


def _count(value: JSON) -> int:
    """A number as vLLM's parser takes it: 100, 100.0 and "100" are the same. Anything else is 0."""
    if isinstance(value, str) and len(value) <= 20 and value.isascii() and value.strip().isdigit():
        value = int(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    return min(max(value, 0), _UINT32_MAX) if isinstance(value, int) and not isinstance(value, bool) else 0


def _truncated(text: str) -> str:
    return text[:MAX_PROMPT_BYTES].encode("utf-8", "replace")[:MAX_PROMPT_BYTES].decode("utf-8", "ignore")


def _valid_utf8(text: str) -> str:
    # JSON may carry lone surrogates, protobuf strings may not.
    return text.encode("utf-8", "replace").decode("utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

"""Describes the work that a request's body asks for; pure.

It knows the bodies of OpenAI's chat, completions and responses and of Anthropic's messages, as far as admission needs them. It does not
validate: a body that it does not understand is described as `Endpoint.OTHER`, counted and ranked neutral, and vLLM's own answer is what the
client sees. It never raises, whatever the JSON. `prompts` reads the prompt, `conversation` names the conversation. The engine's
`parsing.py` and the picker's `question.py` call it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from alise_contract.names import MAX_PROMPT_BYTES

from . import prompts
from .prompts import JSON

# vLLM's default for /v1/completions, as in OpenAI's API.
COMPLETIONS_MAX_TOKENS: Final = 16
# More samples than any engine takes; what is counted stays far from the end of an integer.
MAX_SAMPLES: Final = 1 << 20
# A longer name is no model's, and vLLM answers 404; the sidecar is not sent a megabyte of it.
MAX_MODEL_CHARS: Final = 1024
_YES: Final = frozenset({"1", "on", "t", "true", "y", "yes"})
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
    # An answer that is not cut has at least this many; the highest number if it goes on as long as it can.
    min_tokens: int = 0
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


_PROMPTS: Final = {
    Endpoint.CHAT_COMPLETIONS: prompts.chat_prompt,
    Endpoint.COMPLETIONS: prompts.completion_prompt,
    Endpoint.RESPONSES: prompts.responses_prompt,
    Endpoint.MESSAGES: prompts.messages_prompt,
}


def describe(endpoint: Endpoint, body: JSON) -> Description:
    """Returns what is known of the request; of a body that is not understood, how many engine requests it may become."""
    if not isinstance(body, dict):
        return Description(Endpoint.OTHER)
    prompt = _PROMPTS[endpoint](body) if endpoint in _PROMPTS else None
    general = Description(
        endpoint=Endpoint.OTHER,
        model=_valid_utf8(body["model"][:MAX_MODEL_CHARS]) if isinstance(body.get("model"), str) else "",
        max_tokens=_max_tokens(endpoint, body),
        n=_samples(body, prompt.prompts if prompt is not None else prompts.most_prompts(body)),
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
        min_tokens=_min_tokens(endpoint, body, general.max_tokens),
    )


def _samples(body: Mapping[str, JSON], prompt_count: int) -> int:
    return min(max(1, _count(body.get("n"))) * prompt_count, MAX_SAMPLES)


def _max_tokens(endpoint: Endpoint, body: Mapping[str, JSON]) -> int:
    """Returns the greatest number of tokens that vLLM will generate; 0: no limit but the model's. Null counts as absent, as in vLLM."""
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


def _min_tokens(endpoint: Endpoint, body: Mapping[str, JSON], max_tokens: int) -> int:
    """Returns the least number of tokens of an answer that is not cut, on the routes and with the fields on which vLLM keeps to it.

    With `ignore_eos`, as benchmarks send it, a model goes on until `max_tokens`, unless the client named another end for it.
    """
    if endpoint is Endpoint.MESSAGES or _structured(body) or any(body.get(name) for name in ("use_beam_search", "repetition_detection")):
        return 0
    most = max_tokens or _UINT32_MAX
    if _truth(body.get("ignore_eos")) and not any(body.get(name) for name in ("stop", "stop_token_ids")):
        return most
    return 0 if endpoint is Endpoint.RESPONSES else min(_count(body.get("min_tokens")), most)


def _truth(value: JSON) -> bool:
    """Returns a yes or no as vLLM's parser reads it."""
    return value == 1 if isinstance(value, bool | int | float) else isinstance(value, str) and value.lower() in _YES


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
    """Returns a number as vLLM's parser reads it: 100, 100.0 and "100" are the same. Anything else is 0."""
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

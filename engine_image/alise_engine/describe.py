"""What a request's body and headers say about the work ahead; pure.

Knows the three OpenAI bodies as far as admission needs them. Does not validate them: a body that vLLM would refuse is answered with None
(or described as well as it goes), and vLLM's own 4xx is what the client sees.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from alise_contract.names import HINT_XARG, JOB_XARG, MAX_PROMPT_BYTES, OBJECTIVE_HEADERS, SLO_TTFT_HEADERS, TENANT_HEADERS

JSON = Any

MAX_LABEL_CHARS: Final = 128
# A prompt of token ids has no characters; about four per token is what byte-pair vocabularies give for English.
CHARS_PER_TOKEN: Final = 4
# vLLM's default for /v1/completions, as in OpenAI's API.
COMPLETIONS_MAX_TOKENS: Final = 16
_UINT32_MAX: Final = (1 << 32) - 1


class Endpoint(Enum):
    CHAT_COMPLETIONS = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    RESPONSES = "/v1/responses"


@dataclass(frozen=True, slots=True)
class Description:
    """The part of an AdmitRequest that the request itself says."""

    endpoint: Endpoint
    model: str
    # The newest user text, at most 16 KiB of UTF-8.
    prompt: str
    prompt_chars: int
    turns: int
    # 0: none.
    max_tokens: int
    n: int
    streaming: bool
    structured: bool
    tenant: str
    objective: str
    # 0: none.
    slo_ttft_ms: int
    conversation: str
    # As the next turn will name it, and as the turn before named it.
    conversation_now: str = ""
    conversation_previous: str = ""
    # None: not set.
    temperature: float | None = None


# Of a longer chat the newest are looked at: the event loop that serves everybody does it.
MAX_MESSAGES: Final = 10_000


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


def describe(endpoint: Endpoint, body: JSON, headers: Mapping[str, str]) -> Description | None:
    """None when the body is not one that vLLM could serve: not an object, no prompt, `vllm_xargs` of another type."""
    if not isinstance(body, dict) or not _is_optional(body.get("model"), str) or not _is_optional(body.get("vllm_xargs"), dict):
        return None
    prompt = _PROMPTS[endpoint](body)
    if prompt is None:
        return None
    return Description(
        endpoint=endpoint,
        model=_valid_utf8(body.get("model") or ""),
        prompt=_truncated(prompt.newest),
        prompt_chars=prompt.chars,
        turns=prompt.turns,
        max_tokens=_max_tokens(endpoint, body),
        n=max(1, _count(body.get("n"))) * prompt.prompts,
        streaming=body.get("stream") is True,
        structured=_structured(body),
        tenant=_tenant(headers),
        objective=_first(headers, OBJECTIVE_HEADERS)[:MAX_LABEL_CHARS],
        slo_ttft_ms=_slo_ttft_ms(headers),
        conversation=prompt.conversation,
        conversation_now=prompt.conversation_now,
        conversation_previous=prompt.conversation_previous,
        temperature=_temperature(body.get("temperature")),
    )


def stamped(body: Mapping[str, JSON], priority: int, job_id: str, hint: str) -> dict[str, JSON]:
    """The body with our priority, job id and hint; what the client sent under these keys is gone."""
    ours = {JOB_XARG: job_id, HINT_XARG: hint} if hint else {JOB_XARG: job_id}
    return {**body, "priority": priority, "vllm_xargs": {**_foreign_xargs(body), **ours}}


def unstamped(body: dict[str, JSON]) -> dict[str, JSON]:
    """The body of a request that is not admitted (another endpoint): nobody jumps the queue or takes another job's id there either.

    The same object when there is nothing to remove.
    """
    if "priority" not in body and "vllm_xargs" not in body:
        return body
    clean = {key: value for key, value in body.items() if key not in ("priority", "vllm_xargs")}
    xargs = _foreign_xargs(body)
    return {**clean, "vllm_xargs": xargs} if xargs else clean


def _foreign_xargs(body: Mapping[str, JSON]) -> dict[str, JSON]:
    xargs = body.get("vllm_xargs")
    return {key: value for key, value in xargs.items() if key not in (JOB_XARG, HINT_XARG)} if isinstance(xargs, dict) else {}


# --- the prompt -------------------------------------------------------------------------------------------------------------------


def _chat_prompt(body: Mapping[str, JSON]) -> _Prompt | None:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    newest = messages[-MAX_MESSAGES:]
    if not all(isinstance(message, dict) for message in newest):
        return None
    return _conversation([_Turn(str(message.get("role", "")), _text(message.get("content"))) for message in newest], len(messages))


def _completion_prompt(body: Mapping[str, JSON]) -> _Prompt | None:
    prompt = body.get("prompt")
    match prompt:
        case str():
            return _Prompt(prompt, len(prompt), turns=1)
        case [str(), *_] if all(isinstance(part, str) for part in prompt):
            return _Prompt("\n".join(prompt), sum(map(len, prompt)), turns=1, prompts=len(prompt))
        case [int(), *_]:
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
            items = [_Turn(str(item.get("role", "")), _text(item.get("content", item.get("output")))) for item in newest]
            prompt = _conversation([*turns, *items], len(turns) + len(given))
        case _:
            return None
    previous = body.get("previous_response_id")
    if not isinstance(previous, str) or not previous:
        return prompt
    # The server holds the earlier turns; its id for them names the conversation.
    return _Prompt(prompt.newest, prompt.chars, prompt.turns + 1, conversation=_digest(previous))


_PROMPTS: Final = {
    Endpoint.CHAT_COMPLETIONS: _chat_prompt,
    Endpoint.COMPLETIONS: _completion_prompt,
    Endpoint.RESPONSES: _responses_prompt,
}


def _conversation(turns: list[_Turn], count: int = 0) -> _Prompt:
    """The prompt of a chat. `count` above the number of turns: these are the newest of so many, and the chat has no name."""
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
    match endpoint:
        case Endpoint.CHAT_COMPLETIONS:
            return _count(body.get("max_completion_tokens")) or _count(body.get("max_tokens"))
        case Endpoint.COMPLETIONS:
            return _count(body["max_tokens"]) if "max_tokens" in body else COMPLETIONS_MAX_TOKENS
        case Endpoint.RESPONSES:
            return _count(body.get("max_output_tokens"))


def _temperature(value: JSON) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100
    return float(value) if usable else None


def _structured(body: Mapping[str, JSON]) -> bool:
    text = body.get("text")
    formats = (body.get("response_format"), text.get("format") if isinstance(text, dict) else None)
    shaped = any(isinstance(shape, dict) and shape.get("type", "text") != "text" for shape in formats)
    tools = bool(body.get("tools")) and body.get("tool_choice") != "none"
    return shaped or tools or bool(body.get("structured_outputs"))


def _tenant(headers: Mapping[str, str]) -> str:
    """The fairness header, else a hash of the API key: never the key itself."""
    if named := _first(headers, TENANT_HEADERS).strip():
        return named[:MAX_LABEL_CHARS]
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return f"key-{_digest(key.strip())[:16]}" if scheme.lower() == "bearer" and key.strip() else ""


def _first(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    """The first of these headers that was sent; empty when none was."""
    return next((headers[name] for name in names if headers.get(name)), "")


def _slo_ttft_ms(headers: Mapping[str, str]) -> int:
    value = _first(headers, SLO_TTFT_HEADERS).strip()
    return min(int(value), _UINT32_MAX) if value.isascii() and value.isdigit() and len(value) <= 10 else 0


def _count(value: JSON) -> int:
    return min(max(value, 0), _UINT32_MAX) if isinstance(value, int) and not isinstance(value, bool) else 0


def _is_optional(value: JSON, kind: type) -> bool:
    return value is None or isinstance(value, kind)


def _truncated(text: str) -> str:
    return text[:MAX_PROMPT_BYTES].encode("utf-8", "replace")[:MAX_PROMPT_BYTES].decode("utf-8", "ignore")


def _valid_utf8(text: str) -> str:
    # JSON may carry lone surrogates, protobuf strings may not.
    return text.encode("utf-8", "replace").decode("utf-8")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()

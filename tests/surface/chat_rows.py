"""Chats, one at a time and in batches: tools, structured output, and messages of every form. `requests.py` lists them."""

from collections.abc import Iterator
from typing import Any, Final

from tests.surface.row import BATCH, CHAT, HELLO, JSON_SCHEMA, MODEL, PICTURE, WEATHER, Request, both

WEATHER_TOOL: Final = {"type": "function", "function": {"name": "weather", "description": "The weather of a city", "parameters": WEATHER}}
TIME_TOOL: Final = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


def _chat(id: str, /, *, case: tuple[str, ...] = (), **body: Any) -> Request:
    whole = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0, **body}
    return Request(f"chat, {id}", CHAT, whole, case=case)


def chats() -> Iterator[Request]:
    yield from both(_chat("at temperature 0"))
    yield from both(_chat("seeded at temperature 1", temperature=1.0, seed=7))
    yield from both(_chat("with logprobs", logprobs=True, top_logprobs=2, case=("D1",)))
    yield _chat("with top_logprobs but no logprobs", top_logprobs=2)
    yield _chat("with prompt logprobs", prompt_logprobs=1)
    yield _chat("with max_completion_tokens null beside max_tokens", max_tokens=5, max_completion_tokens=None, case=("A20",))
    yield _chat("with max_completion_tokens and max_tokens", max_tokens=12, max_completion_tokens=3)
    yield _chat("with max_tokens 0", max_tokens=0)
    yield from both(_chat("two choices", n=2, temperature=0.9, seed=5))
    yield _chat("with logit bias, penalties and a stop string", logit_bias={"65": 3}, presence_penalty=1.5, stop="z", max_tokens=30)
    yield from both(_chat("with a JSON schema", response_format=JSON_SCHEMA, max_tokens=40))
    yield _chat("with a JSON object", response_format={"type": "json_object"}, max_tokens=20)
    yield _chat("with an unknown response format", response_format={"type": "xml"})
    yield _chat("with a response format without its JSON schema", response_format={"type": "json_schema"})
    yield _chat("with a choice", structured_outputs={"choice": ["red", "green"]}, max_tokens=20)
    for choice in ("none", "auto", "required"):
        yield from both(
            _chat(f"with tools, choice {choice}", tools=[WEATHER_TOOL, TIME_TOOL], tool_choice=choice, max_tokens=80),
        )
    named = {"type": "function", "function": {"name": "weather"}}
    yield from both(_chat("with tools, one by name", tools=[WEATHER_TOOL, TIME_TOOL], tool_choice=named, max_tokens=80))
    yield _chat("with a tool choice that names an unknown tool", tools=[TIME_TOOL], tool_choice=named)
    yield _chat("with a tool choice but without tools", tool_choice="required")
    yield _chat("with tools that are not a list", tools="weather")
    yield _chat(
        "that continues after a tool's answer",
        messages=[
            *HELLO,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}],
            },
            {"role": "user", "content": "and now?"},
        ],
    )
    yield _chat("streamed with continuous usage", stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    yield _chat("of several turns", messages=[*HELLO, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "well?"}])
    yield _chat(
        "of content in parts", messages=[{"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}]
    )
    yield _chat(
        "that continues the last message",
        messages=[*HELLO, {"role": "assistant", "content": "I think"}],
        add_generation_prompt=False,
        continue_final_message=True,
    )
    yield _chat("echoed", echo=True)
    yield _chat("that returns token ids", return_token_ids=True)
    yield _chat("with an untrusted chat template", chat_template="{{ messages[0]['content'] }}")
    yield _chat("with an image for a text model", messages=[_with_picture()])
    yield _chat(
        "with audio for a text model",
        messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]}],
    )
    yield _chat("without messages", messages=[])
    yield _chat("with a text as messages", messages="hello")
    yield _chat("of a message without a role", messages=[{"content": "hello"}])
    yield _chat("with an unknown role", messages=[{"role": "wizard", "content": "hello"}])
    yield _chat("with null as a message", messages=[None])
    yield _chat("with null as content", messages=[{"role": "user", "content": None}])
    yield _chat("with a number as content", messages=[{"role": "user", "content": 5}])
    yield _chat("longer than the context", messages=[{"role": "user", "content": "x" * 5000}])
    yield _chat("of an unknown model", model="gpt-9")
    yield _chat("with a reasoning effort", reasoning_effort="low")
    yield _chat("with a thinking budget for a model that does not reason", thinking_token_budget=5)
    yield _chat("with a priority of the client's own", priority=-5, case=("R1",))


def _with_picture() -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]}


def batches() -> Iterator[Request]:
    def batch(id: str, /, **body: Any) -> Request:
        two = [HELLO, [{"role": "user", "content": "goodbye"}]]
        return Request(f"batch, {id}", BATCH, {"model": MODEL, "messages": two, "max_tokens": 8, "temperature": 0, **body}, case=("R4",))

    yield batch("two conversations")
    yield batch("two conversations with logprobs", logprobs=True, top_logprobs=1)
    yield batch("with a JSON schema", response_format=JSON_SCHEMA, max_tokens=40)
    yield batch("with stream true, which is unsupported", stream=True)
    yield batch("without conversations", messages=[])
    yield batch("of one conversation that is not in a list", messages=HELLO)
    yield batch("with n 2, which is unsupported", n=2)

"""OpenAI's responses, which are stored and continued, and Anthropic's messages. `requests.py` lists them."""

from collections.abc import Iterator
from typing import Any

from tests.surface.row import HELLO, ID_BEFORE, MESSAGES, MODEL, PICTURE, RESPONSES, WEATHER, Mark, Request, both, without


def _response(id: str, /, *, case: tuple[str, ...] = (), follows: str = "", **body: Any) -> Request:
    whole = {"model": MODEL, "input": "hello", "max_output_tokens": 8, "temperature": 0, **body}
    return Request(f"response, {id}", RESPONSES, whole, case=case, follows=follows)


def _message(id: str, /, *, path: str = MESSAGES, **body: Any) -> Request:
    whole = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0, **body}
    return Request(f"message, {id}", path, whole)


def responses() -> Iterator[Request]:
    yield from both(_response("at temperature 0"))
    yield from both(_response("with instructions", instructions="Be brief."))
    yield _response("of input items", input=[{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}])
    yield _response(
        "with empty input and a priority, a job id and a hint of the client's own",
        input=[],
        instructions="hi",
        priority=-4611686018427387904,
        vllm_xargs={"alise_job": "x", "alise_hint": "y"},
        case=("R1",),
    )
    yield _response(
        "that continues the previous one", input="and then?", previous_response_id=ID_BEFORE, follows="response, at temperature 0"
    )
    yield Request(
        "response, read again by its id", f"{RESPONSES}/{ID_BEFORE}", method="GET", follows="response, that continues the previous one"
    )
    yield _response("that continues an unknown one", previous_response_id="resp_missing")
    yield _response("that continues one with a malformed id", previous_response_id="missing")
    yield _response("in the background", background=True)
    yield Request(
        "response, in the background, when it is done",
        f"{RESPONSES}/{ID_BEFORE}",
        method="GET",
        follows="response, in the background",
        marks=frozenset({Mark.POLL}),
    )
    yield Request(
        "response, in the background, cancelled after its end",
        f"{RESPONSES}/{ID_BEFORE}/cancel",
        follows="response, in the background",
    )
    yield _response("in the background without being stored", background=True, store=False)
    yield Request("response, read by an unknown id", f"{RESPONSES}/resp_missing", method="GET")
    yield _response("with logprobs", include=["message.output_text.logprobs"], top_logprobs=2, case=("D1",))
    yield _response("with top_logprobs but without include", top_logprobs=2)
    yield from both(
        _response("with a JSON schema", text={"format": {"type": "json_schema", "name": "w", "schema": WEATHER}}, max_output_tokens=40)
    )
    tool = {"type": "function", "name": "weather", "parameters": WEATHER, "strict": False}
    for choice in ("none", "auto", "required"):
        yield _response(f"with tools, choice {choice}", tools=[tool], tool_choice=choice, max_output_tokens=80)
    yield _response("with tools, one by name", tools=[tool], tool_choice={"type": "function", "name": "weather"}, max_output_tokens=80)
    yield _response("with penalties", presence_penalty=1.0, frequency_penalty=1.0)
    yield _response("with max_output_tokens null", max_output_tokens=None, instructions="x" * 1900)
    yield _response("with max_output_tokens 0", max_output_tokens=0)
    yield _response("longer than the context", input="x" * 5000)
    yield _response("longer than the context, truncated", input="x" * 5000, truncation="auto")
    yield _response("with a number as input", input=5)
    yield without(_response("without input"), "input")
    yield _response("with an image", input=[{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE, "detail": "auto"}]}])
    yield _response("of an unknown model", model="gpt-9")


def messages() -> Iterator[Request]:
    yield from both(_message("at temperature 0"))
    yield from both(_message("with a system text", system="Be brief."))
    yield _message("with a system text in blocks", system=[{"type": "text", "text": "Be brief."}])
    yield _message("of content in blocks", messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}])
    yield _message("with stop sequences", stop_sequences=["e"], max_tokens=40)
    yield _message("with top_k and top_p", top_k=1, top_p=0.9, temperature=1.0)
    tool = {"name": "weather", "description": "The weather of a city", "input_schema": WEATHER}
    for choice in ({"type": "none"}, {"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "weather"}):
        yield from both(_message(f"with tools, choice {choice['type']}", tools=[tool], tool_choice=choice, max_tokens=80))
    yield _message("with a tool choice without a name", tools=[tool], tool_choice={"type": "tool"})
    yield _message("with max_tokens 0", max_tokens=0)
    yield without(_message("without max_tokens"), "max_tokens")
    yield _message("without messages", messages=[])
    yield _message("of an unknown model", model="claude-9")
    yield _message("longer than the context", messages=[{"role": "user", "content": "x" * 5000}])
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE.partition(",")[2]}
    yield _message("with an image", messages=[{"role": "user", "content": [{"type": "image", "source": source}]}])
    yield _message("with thinking", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=1100)
    yield _message("counted", path=f"{MESSAGES}/count_tokens")
    yield _message("counted for an unknown model", path=f"{MESSAGES}/count_tokens", model="claude-9")

"""The request surface of vLLM 0.32: at least one request for every route that generates and for every parameter that changes an answer.

A row is one HTTP request with a sentence for its id. Nothing here is random: either the temperature is 0 or there is a seed, so that two
servers that behave alike answer alike. Rows are played in order, one at a time; a row may name an earlier one whose answer it continues.

`case` names the report that a row comes from: D and R are inputs of hostile clients, A are public bug reports.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final

JSON_TYPE: Final = "application/json"
MODEL: Final = "tiny"
# Both servers are started with these.
MAX_MODEL_LEN: Final = 2048
# One byte is one token; the special tokens come after the bytes.
VOCABULARY: Final = 262
# In a path or a body: the id that the row in `follows` was answered with.
ID_BEFORE: Final = "ID-OF-THE-ANSWER-BEFORE"
BOUNDARY: Final = "a-boundary-that-is-in-no-part"


class Mark(Enum):
    # Stock vLLM's engine dies of it, so it is sent only to ours, which must answer with 2xx or 4xx.
    STOCK_DIES = "stock dies"
    # Repeated until the answer is no longer in progress.
    POLL = "poll"


@dataclass(frozen=True, slots=True)
class Request:
    id: str
    path: str
    # As JSON, unless it is bytes already.
    body: Any = None
    method: str = "POST"
    content_type: str = JSON_TYPE
    marks: frozenset[Mark] = frozenset()
    # Ids of the reports that it comes from.
    case: tuple[str, ...] = ()
    # The id of an earlier row; see ID_BEFORE.
    follows: str = ""
    # Blanks after the body.
    padding_bytes: int = 0

    @property
    def streams(self) -> bool:
        return isinstance(self.body, dict) and self.body.get("stream") is True

    def content(self) -> bytes | None:
        if self.body is None:
            return None
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        return body + b" " * self.padding_bytes


COMPLETIONS: Final = "/v1/completions"
CHAT: Final = "/v1/chat/completions"
BATCH: Final = "/v1/chat/completions/batch"
RESPONSES: Final = "/v1/responses"
MESSAGES: Final = "/v1/messages"
INVOCATIONS: Final = "/invocations"
GENERATE: Final = "/inference/v1/generate"
SCORING: Final = "/generative_scoring"
DECISIONS: Final = "/v1/systemone"
COHERE: Final = "/cohere/v2/chat"
TRANSCRIPTIONS: Final = "/v1/audio/transcriptions"
TRANSLATIONS: Final = "/v1/audio/translations"
# All of vLLM 0.32's routes that put work into the engine of a model that generates.
GENERATING: Final = (
    COMPLETIONS,
    CHAT,
    BATCH,
    RESPONSES,
    MESSAGES,
    INVOCATIONS,
    GENERATE,
    SCORING,
    DECISIONS,
    COHERE,
    TRANSCRIPTIONS,
    TRANSLATIONS,
)

HELLO: Final = [{"role": "user", "content": "hello"}]
WEATHER: Final = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER_TOOL: Final = {"type": "function", "function": {"name": "weather", "description": "The weather of a city", "parameters": WEATHER}}
TIME_TOOL: Final = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
JSON_SCHEMA: Final = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}}
# A red pixel.
PICTURE: Final = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def _completion(id: str, /, *, case: tuple[str, ...] = (), marks: frozenset[Mark] = frozenset(), **body: Any) -> Request:
    whole = {"model": MODEL, "prompt": "The cat", "max_tokens": 8, "temperature": 0, **body}
    return Request(f"completion, {id}", COMPLETIONS, whole, case=case, marks=marks)


def _chat(id: str, /, *, case: tuple[str, ...] = (), **body: Any) -> Request:
    whole = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0, **body}
    return Request(f"chat, {id}", CHAT, whole, case=case)


def _response(id: str, /, *, case: tuple[str, ...] = (), follows: str = "", **body: Any) -> Request:
    whole = {"model": MODEL, "input": "hello", "max_output_tokens": 8, "temperature": 0, **body}
    return Request(f"response, {id}", RESPONSES, whole, case=case, follows=follows)


def _message(id: str, /, *, path: str = MESSAGES, **body: Any) -> Request:
    whole = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0, **body}
    return Request(f"message, {id}", path, whole)


def _generate(id: str, /, *, sampling: dict[str, Any] | None = None, **body: Any) -> Request:
    parameters = {"max_tokens": 8, "temperature": 0, **(sampling or {})}
    return Request(f"token ids, {id}", GENERATE, {"model": MODEL, "token_ids": [72, 105], "sampling_params": parameters, **body})


def _both(request: Request) -> tuple[Request, Request]:
    """The row, and the same one streamed."""
    return request, replace(request, id=f"{request.id}, streamed", body={**request.body, "stream": True})


def _without(request: Request, *keys: str) -> Request:
    return replace(request, body={key: value for key, value in request.body.items() if key not in keys})


def _completions() -> Iterator[Request]:
    yield from _both(_completion("at temperature 0"))
    yield from _both(_completion("seeded at temperature 1", temperature=1.0, seed=7))
    yield from _both(_completion("two choices with a seed", n=2, temperature=0.9, seed=11))
    yield from _both(_completion("with logprobs", prompt="a", max_tokens=2, logprobs=1, case=("D1",)))
    yield from _both(_completion("with five logprobs and token ids for names", logprobs=5, return_tokens_as_token_ids=True))
    yield _completion("with logprobs 0", logprobs=0)
    yield _completion("with more logprobs than allowed", logprobs=21)
    yield _completion("with negative logprobs", logprobs=-1)
    yield _completion("with logprobs of chosen tokens", logprobs=1, logprob_token_ids=[65, 66])
    yield _completion("with prompt logprobs", prompt_logprobs=2, case=("D1",))
    yield _completion("with prompt logprobs of the whole vocabulary", prompt_logprobs=-1)
    yield from _both(_completion("echoed", echo=True))
    yield from _both(_completion("echoed with logprobs", echo=True, logprobs=2))
    yield _completion("that scores the prompt: echo, logprobs and max_tokens 0", max_tokens=0, echo=True, logprobs=1, case=("A20",))
    yield _completion("with max_tokens 0 and no echo", max_tokens=0, case=("A20",))
    yield _completion("with max_tokens null", max_tokens=None, case=("A20",))
    yield _completion("with max_tokens 100.0", max_tokens=100.0, case=("A20",))
    yield _completion("with max_tokens 1.5", max_tokens=1.5)
    yield _completion("with max_tokens -1", max_tokens=-1)
    yield _completion("with max_tokens beyond 64 bits", max_tokens=2**70)
    yield _without(_completion("without max_tokens"), "max_tokens")
    yield _completion("with a logit bias that forces a token", logit_bias={"65": 100})
    yield _completion("with a logit bias for a token outside the vocabulary", logit_bias={str(VOCABULARY + 5): 1})
    yield _completion("with a logit bias key that is not a number", logit_bias={"A": 1})
    yield from _both(_completion("with all three penalties", frequency_penalty=1.5, presence_penalty=1.0, repetition_penalty=1.3))
    yield _completion("with a frequency penalty of 3", frequency_penalty=3)
    yield _completion("with a repetition penalty of 0", repetition_penalty=0)
    yield from _both(_completion("with stop strings", stop=["e", "T"], max_tokens=40))
    yield from _both(_completion("with a stop string that stays in the text", stop=["e"], include_stop_str_in_output=True, max_tokens=40))
    yield _completion("with an empty stop string", stop=[""])
    yield _completion("with a stop token id", stop_token_ids=[0x65, 0x20], max_tokens=40)
    yield _completion("with a negative stop token id", stop_token_ids=[-1])
    yield _completion("with min_tokens and frequent stop tokens", min_tokens=20, stop_token_ids=list(range(0x20, 0x50)), max_tokens=24)
    yield _completion("with min_tokens above max_tokens", min_tokens=9, max_tokens=8)
    yield _completion("with bad words", bad_words=["a", "e", "the"], max_tokens=20)
    yield _completion("with allowed token ids", allowed_token_ids=[0x41, 0x42], max_tokens=20)
    yield _completion("with an empty list of allowed token ids", allowed_token_ids=[])
    yield _completion("with an allowed token id outside the vocabulary", allowed_token_ids=[VOCABULARY * 10])
    yield _completion("that ignores the end of the text", ignore_eos=True, max_tokens=64)
    yield _completion("with top_k 1", temperature=1.0, top_k=1, seed=1)
    yield _completion("with top_k -5", top_k=-5)
    yield _completion("with top_p and min_p", temperature=1.0, top_p=0.5, min_p=0.1, seed=3)
    yield _completion("with top_p 0", temperature=1.0, top_p=0)
    yield _completion("with min_p 2", temperature=1.0, min_p=2)
    yield _completion("with a negative temperature", temperature=-1)
    yield _completion("with a temperature near 0", temperature=1e-9, seed=2)
    yield _completion("with a temperature that is text", temperature="hot")
    yield _completion("with a seed beyond 64 bits", seed=2**70)
    yield _completion("with a negative seed", temperature=1.0, seed=-3)
    yield _completion("with n 0", n=0)
    yield _completion("with n above the limit", n=100_000)
    yield _completion("with n of 4 billion and two prompts", prompt=["a", "b"], n=2**32 - 1, case=("L2",))
    yield _completion("with n 2 at temperature 0", n=2)
    yield _completion("with best_of", best_of=2)
    yield _completion("by beam search", use_beam_search=True, n=2, max_tokens=4)
    yield _completion("with a suffix", suffix="end")
    yield from _both(_completion("that returns token ids", return_token_ids=True))
    yield _completion("with a truncated prompt", prompt="abcdefgh" * 10, truncate_prompt_tokens=5, return_token_ids=True)
    yield _completion("with a prompt truncated from the right", prompt="abcdefgh", truncate_prompt_tokens=3, truncation_side="right")
    yield _completion("with a prompt truncated to the context length", prompt="a" * 5000, truncate_prompt_tokens=-1)
    yield _completion("without special tokens", add_special_tokens=False, return_token_ids=True)
    yield _completion("with special tokens in the text", allowed_token_ids=[258, 259], skip_special_tokens=False)
    yield from _both(_completion("of token ids", prompt=[72, 105]))
    yield from _both(_completion("of two texts", prompt=["abc", "xyz"]))
    yield _completion("of two lists of token ids", prompt=[[72, 105], [65, 66, 67]])
    yield _completion("of an empty text", prompt="")
    yield _completion("of a list with an empty text", prompt=[""], case=("L1",))
    yield _completion("of an empty list", prompt=[])
    yield _completion("of a list with an empty list", prompt=[[]])
    yield _completion("of null", prompt=None)
    yield _without(_completion("without a prompt"), "prompt")
    yield _completion("of token ids written as floats", prompt=[72.0, 105.0], case=("R1",))
    yield _completion("of a text with digits and a number in one list", prompt=["72", 105], case=("R1",))
    yield _completion("of a text and a list of token ids in one list", prompt=["a", [72]])
    yield _completion("of a negative token id", prompt=[-1])
    yield _completion("of a token id outside the vocabulary", prompt=[VOCABULARY + 1000])
    yield _completion("of a token id beyond 64 bits", prompt=[2**70])
    yield _completion("of an object", prompt={"text": "a"})
    yield _completion("of non-ASCII text", prompt="日本語 🙂 \u0000 \ud7ff", max_tokens=4)
    yield _completion("of a prompt that leaves room for 8 tokens", prompt="a" * (MAX_MODEL_LEN - 8))
    yield _completion("of a prompt that leaves room for 7 of 8 tokens", prompt="a" * (MAX_MODEL_LEN - 7))
    yield _completion("of a prompt as long as the context", prompt="a" * MAX_MODEL_LEN)
    yield _completion("of a prompt longer than the context", prompt="a" * (MAX_MODEL_LEN + 100))
    yield _completion("of prompt embeddings, which are not enabled", prompt=None, prompt_embeds="AAAA")
    yield _completion("with a JSON schema", structured_outputs={"json": WEATHER}, max_tokens=40)
    yield from _both(_completion("with a regex", structured_outputs={"regex": r"\d{3}-\d{4}"}, max_tokens=20))
    yield _completion("with a choice", structured_outputs={"choice": ["positive", "negative"]}, max_tokens=20)
    yield _completion("with a grammar", structured_outputs={"grammar": 'root ::= "yes" | "no"'}, max_tokens=20)
    yield _completion("with a JSON object", structured_outputs={"json_object": True}, max_tokens=20)
    yield _completion("with an invalid regex", structured_outputs={"regex": "("})
    yield _completion("with an invalid grammar", structured_outputs={"grammar": "root ::= ("})
    yield _completion("with an invalid JSON schema", structured_outputs={"json": {"type": "nonsense"}})
    yield _completion("with two structured output constraints", structured_outputs={"regex": "a", "choice": ["a"]})
    yield _completion("with empty structured_outputs", structured_outputs={})
    yield _completion("with a response format", response_format=JSON_SCHEMA, max_tokens=40)
    yield from (
        _completion(f"streamed with {name}", stream=True, stream_options=options)
        for name, options in (
            ("usage", {"include_usage": True}),
            ("continuous usage", {"include_usage": True, "continuous_usage_stats": True}),
            ("empty options", {}),
        )
    )
    yield _completion("with stream options but no stream", stream_options={"include_usage": True})
    yield _completion("with an unknown parameter", frobnicate=True)
    yield _completion("of an unknown model", model="gpt-9")
    yield _completion("of a LoRA adapter that is not loaded", model="tiny-lora")
    yield _without(_completion("without a model"), "model")
    yield _completion("with a cache salt", cache_salt="grain")
    yield _completion("with an empty cache salt", cache_salt="")
    yield _completion("with a request id of its own", request_id="my-request")
    yield _completion(
        "with a priority, a job id and a hint of the client's own",
        priority=-(2**62),
        vllm_xargs={"alise_job": "x", "alise_hint": "y"},
        case=("R1",),
    )
    yield _completion("with a priority beyond 64 bits", priority=2**70)
    yield _completion("with xargs of the client's own", vllm_xargs={"theirs": 1})
    yield _completion("with xargs that are not an object", vllm_xargs="x")


def _chats() -> Iterator[Request]:
    yield from _both(_chat("at temperature 0"))
    yield from _both(_chat("seeded at temperature 1", temperature=1.0, seed=7))
    yield from _both(_chat("with logprobs", logprobs=True, top_logprobs=2, case=("D1",)))
    yield _chat("with top_logprobs but no logprobs", top_logprobs=2)
    yield _chat("with prompt logprobs", prompt_logprobs=1)
    yield _chat("with max_completion_tokens null beside max_tokens", max_tokens=5, max_completion_tokens=None, case=("A20",))
    yield _chat("with max_completion_tokens and max_tokens", max_tokens=12, max_completion_tokens=3)
    yield _chat("with max_tokens 0", max_tokens=0)
    yield from _both(_chat("two choices", n=2, temperature=0.9, seed=5))
    yield _chat("with logit bias, penalties and a stop string", logit_bias={"65": 3}, presence_penalty=1.5, stop="z", max_tokens=30)
    yield from _both(_chat("with a JSON schema", response_format=JSON_SCHEMA, max_tokens=40))
    yield _chat("with a JSON object", response_format={"type": "json_object"}, max_tokens=20)
    yield _chat("with an unknown response format", response_format={"type": "xml"})
    yield _chat("with a response format without its JSON schema", response_format={"type": "json_schema"})
    yield _chat("with a choice", structured_outputs={"choice": ["red", "green"]}, max_tokens=20)
    for choice in ("none", "auto", "required"):
        yield from _both(
            _chat(f"with tools, choice {choice}", tools=[WEATHER_TOOL, TIME_TOOL], tool_choice=choice, max_tokens=80),
        )
    named = {"type": "function", "function": {"name": "weather"}}
    yield from _both(_chat("with tools, one by name", tools=[WEATHER_TOOL, TIME_TOOL], tool_choice=named, max_tokens=80))
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


def _batches() -> Iterator[Request]:
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


def _responses() -> Iterator[Request]:
    yield from _both(_response("at temperature 0"))
    yield from _both(_response("with instructions", instructions="Be brief."))
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
    yield from _both(
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
    yield _without(_response("without input"), "input")
    yield _response("with an image", input=[{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE, "detail": "auto"}]}])
    yield _response("of an unknown model", model="gpt-9")


def _messages() -> Iterator[Request]:
    yield from _both(_message("at temperature 0"))
    yield from _both(_message("with a system text", system="Be brief."))
    yield _message("with a system text in blocks", system=[{"type": "text", "text": "Be brief."}])
    yield _message("of content in blocks", messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}])
    yield _message("with stop sequences", stop_sequences=["e"], max_tokens=40)
    yield _message("with top_k and top_p", top_k=1, top_p=0.9, temperature=1.0)
    tool = {"name": "weather", "description": "The weather of a city", "input_schema": WEATHER}
    for choice in ({"type": "none"}, {"type": "auto"}, {"type": "any"}, {"type": "tool", "name": "weather"}):
        yield from _both(_message(f"with tools, choice {choice['type']}", tools=[tool], tool_choice=choice, max_tokens=80))
    yield _message("with a tool choice without a name", tools=[tool], tool_choice={"type": "tool"})
    yield _message("with max_tokens 0", max_tokens=0)
    yield _without(_message("without max_tokens"), "max_tokens")
    yield _message("without messages", messages=[])
    yield _message("of an unknown model", model="claude-9")
    yield _message("longer than the context", messages=[{"role": "user", "content": "x" * 5000}])
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE.partition(",")[2]}
    yield _message("with an image", messages=[{"role": "user", "content": [{"type": "image", "source": source}]}])
    yield _message("with thinking", thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=1100)
    yield _message("counted", path=f"{MESSAGES}/count_tokens")
    yield _message("counted for an unknown model", path=f"{MESSAGES}/count_tokens", model="claude-9")


def _invocations() -> Iterator[Request]:
    completion = {"model": MODEL, "prompt": "The cat", "max_tokens": 8, "temperature": 0}
    chat = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0}
    yield from _both(Request("invocation of a completion", INVOCATIONS, completion, case=("R4", "R5")))
    yield from _both(Request("invocation of a chat", INVOCATIONS, chat, case=("R4",)))
    yield Request("invocation with logprobs", INVOCATIONS, {**chat, "logprobs": True, "top_logprobs": 1}, case=("D1",))
    yield Request("invocation with an unknown body", INVOCATIONS, {"question": 1})
    yield Request("invocation with a list of numbers", INVOCATIONS, [1, 2])


def _token_ids() -> Iterator[Request]:
    yield from _both(_generate("at temperature 0"))
    yield from _both(_generate("with logprobs", sampling={"logprobs": 2}))
    yield _generate("with text", output_mode="text")
    yield _generate("with a seed and two choices", sampling={"n": 2, "seed": 3, "temperature": 0.9})
    yield _generate("with prompt logprobs", sampling={"prompt_logprobs": 1})
    yield _generate("with a regex", sampling={"structured_outputs": {"regex": r"\d{4}"}})
    yield _generate("with a priority and xargs of the client's own", priority=-9, sampling={"extra_args": {"alise_job": "x"}})
    yield _generate("empty", token_ids=[])
    yield _generate("negative", token_ids=[-1])
    yield _generate("outside the vocabulary", token_ids=[VOCABULARY + 1000])
    yield _generate("longer than the context", token_ids=[72] * (MAX_MODEL_LEN + 1))
    yield _without(_generate("without sampling parameters"), "sampling_params")
    yield _generate("of an unknown model", model="gpt-9")


def _scores() -> Iterator[Request]:
    def score(id: str, /, **body: Any) -> Request:
        whole = {"model": MODEL, "query": "Is it?", "items": ["yes", "no"], "label_token_ids": [65, 66], **body}
        return Request(f"scoring, {id}", SCORING, whole, case=("R4",))

    yield score("two texts")
    yield score("without softmax, items first", apply_softmax=False, item_first=True)
    yield score("of token ids", query=[72], items=[[65], [66]])
    yield score("of a label outside the vocabulary", label_token_ids=[VOCABULARY + 5])
    yield score("without items", items=[])
    questions = {"q": {"type": "choice", "instructions": "Which?", "criteria": {"a": "the first", "b": "the second"}}}
    yield Request("structured decision", DECISIONS, {"model": MODEL, "state": "the sky is blue", "questions": questions}, case=("R4",))
    yield Request("structured decision without questions", DECISIONS, {"model": MODEL, "state": "x"})


def _others() -> Iterator[Request]:
    """Routes that do not generate with this model, and bodies that no route can parse."""
    yield Request("tokenize", "/tokenize", {"model": MODEL, "prompt": "hello", "return_token_strs": True})
    yield Request("tokenize a chat", "/tokenize", {"model": MODEL, "messages": HELLO})
    yield Request("tokenize without a prompt", "/tokenize", {"model": MODEL})
    yield Request("detokenize", "/detokenize", {"model": MODEL, "tokens": [72, 105]})
    yield Request("detokenize an id outside the vocabulary", "/detokenize", {"model": MODEL, "tokens": [VOCABULARY + 1000]})
    yield Request("detokenize a negative id", "/detokenize", {"model": MODEL, "tokens": [-1]})
    yield Request("render a completion", "/v1/completions/render", {"model": MODEL, "prompt": "hello", "max_tokens": 4})
    yield Request("render a chat", "/v1/chat/completions/render", {"model": MODEL, "messages": HELLO, "max_tokens": 4})
    yield Request("render a message", "/v1/messages/render", {"model": MODEL, "messages": HELLO, "max_tokens": 4})
    yield Request("render a response", "/v1/responses/render", {"model": MODEL, "input": "hello"})
    yield Request("abort an unknown request", "/inference/v1/abort_requests", {"request_ids": ["missing"]})
    yield Request("cohere chat", COHERE, {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0}, case=("R4",))
    yield Request("embeddings of a generating model", "/v1/embeddings", {"model": MODEL, "input": "hello"})
    yield Request("pooling of a generating model", "/pooling", {"model": MODEL, "input": "hello"})
    yield Request("reranking by a generating model", "/v1/rerank", {"model": MODEL, "query": "a", "documents": ["b"]})
    yield Request("classification by a generating model", "/classify", {"model": MODEL, "input": "a"})
    for route in (TRANSCRIPTIONS, TRANSLATIONS):
        yield Request(
            f"audio {route.rpartition('/')[2]} by a text model",
            route,
            _form(model=MODEL),
            content_type=f"multipart/form-data; boundary={BOUNDARY}",
            case=("R4",),
        )
    yield Request("audio as JSON", TRANSCRIPTIONS, {"model": MODEL})
    yield Request("loading a LoRA adapter, which is not enabled", "/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "/x"})
    yield Request("the models", "/v1/models", method="GET")
    yield Request("the version", "/version", method="GET")
    yield Request("a ping", "/ping", method="GET")
    yield Request("an unknown route", "/v1/nothing", {})
    yield Request("a completion by GET", COMPLETIONS, method="GET")
    completion = json.dumps({"model": MODEL, "prompt": "a", "max_tokens": 2, "temperature": 0}).encode()
    for name, path in (
        ("completion", COMPLETIONS),
        ("chat", CHAT),
        ("response", RESPONSES),
        ("message", MESSAGES),
        ("invocation", INVOCATIONS),
    ):
        yield Request(f"{name} with truncated JSON", path, completion[:-5])
        yield Request(f"{name} with an empty body", path, b"")
        yield Request(f"{name} with null as the body", path, b"null")
        yield Request(f"{name} with a list as the body", path, b"[]")
        yield Request(f"{name} with invalid UTF-8", path, b'{"model": "\xff\xfe"}')
        yield Request(f"{name} with the content type text/plain", path, completion, content_type="text/plain")
    yield Request("completion without a content type", COMPLETIONS, completion, content_type="")
    yield Request(
        "completion with a character set in the content type", COMPLETIONS, completion, content_type="application/json; charset=utf-8"
    )
    yield Request("completion with a byte order mark", COMPLETIONS, b"\xef\xbb\xbf" + completion)
    yield Request("completion in UTF-16", COMPLETIONS, completion.decode().encode("utf-16"))
    yield Request("completion with a repeated key", COMPLETIONS, completion[:-1] + b', "max_tokens": 3}')
    yield Request("completion with NaN for a temperature", COMPLETIONS, completion[:-2] + b"NaN}")
    yield Request("completion with half a surrogate pair", COMPLETIONS, completion.replace(b'"a"', b'"\\ud800"'))
    yield Request("completion of 5,000 nested lists", COMPLETIONS, completion.replace(b'"a"', b"[" * 5000 + b"]" * 5000))
    yield Request(
        "completion of a million empty lists", COMPLETIONS, completion.replace(b'"a"', b"[" + b"[]," * 999_999 + b"[]]"), case=("L4",)
    )
    yield Request("completion padded to 33 MiB", COMPLETIONS, completion, padding_bytes=33 * 2**20, case=("R1",))
    yield Request("completion with a number of 5,000 digits", COMPLETIONS, completion.replace(b'"a"', b"[" + b"1" * 5000 + b"]"))


def _last() -> Iterator[Request]:
    """Requests that end stock vLLM's engine; they come last, so that nothing has to be restarted."""
    yield _completion(
        "of four long prompts with a seed, which are prefilled in parts",
        prompt=[letter * 1500 for letter in "abcd"],
        seed=1234,
        temperature=0.8,
        case=("D2",),
        marks=frozenset({Mark.STOCK_DIES}),
    )


def _form(**fields: str) -> bytes:
    """multipart/form-data with these fields and a file of four bytes."""
    parts = [f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    file = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\nRIFF\r\n'
    return "".join([*parts, file, f"--{BOUNDARY}--\r\n"]).encode()


SURFACE: Final[tuple[Request, ...]] = (
    *_completions(),
    *_chats(),
    *_batches(),
    *_responses(),
    *_messages(),
    *_invocations(),
    *_token_ids(),
    *_scores(),
    *_others(),
    *_last(),
)

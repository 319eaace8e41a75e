"""The other routes: invocations, token ids, scores, routes that do not generate, and bodies that no route can parse.

`requests.py` lists them.
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.surface.row import (
    CHAT,
    COHERE,
    COMPLETIONS,
    DECISIONS,
    GENERATE,
    HELLO,
    INVOCATIONS,
    MAX_MODEL_LEN,
    MESSAGES,
    MODEL,
    RESPONSES,
    SCORING,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    VOCABULARY,
    Request,
    both,
    without,
)

BOUNDARY: Final = "a-boundary-that-is-in-no-part"


def _generate(id: str, /, *, sampling: dict[str, Any] | None = None, **body: Any) -> Request:
    parameters = {"max_tokens": 8, "temperature": 0, **(sampling or {})}
    return Request(f"token ids, {id}", GENERATE, {"model": MODEL, "token_ids": [72, 105], "sampling_params": parameters, **body})


def invocations() -> Iterator[Request]:
    completion = {"model": MODEL, "prompt": "The cat", "max_tokens": 8, "temperature": 0}
    chat = {"model": MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0}
    yield from both(Request("invocation of a completion", INVOCATIONS, completion, case=("R4", "R5")))
    yield from both(Request("invocation of a chat", INVOCATIONS, chat, case=("R4",)))
    yield Request("invocation with logprobs", INVOCATIONS, {**chat, "logprobs": True, "top_logprobs": 1}, case=("D1",))
    yield Request("invocation with an unknown body", INVOCATIONS, {"question": 1})
    yield Request("invocation with a list of numbers", INVOCATIONS, [1, 2])


def token_ids() -> Iterator[Request]:
    yield from both(_generate("at temperature 0"))
    yield from both(_generate("with logprobs", sampling={"logprobs": 2}))
    yield _generate("with text", output_mode="text")
    yield _generate("with a seed and two choices", sampling={"n": 2, "seed": 3, "temperature": 0.9})
    yield _generate("with prompt logprobs", sampling={"prompt_logprobs": 1})
    yield _generate("with a regex", sampling={"structured_outputs": {"regex": r"\d{4}"}})
    yield _generate("with a priority and xargs of the client's own", priority=-9, sampling={"extra_args": {"alise_job": "x"}})
    yield _generate("empty", token_ids=[])
    yield _generate("negative", token_ids=[-1])
    yield _generate("outside the vocabulary", token_ids=[VOCABULARY + 1000])
    yield _generate("longer than the context", token_ids=[72] * (MAX_MODEL_LEN + 1))
    yield without(_generate("without sampling parameters"), "sampling_params")
    yield _generate("of an unknown model", model="gpt-9")


def scores() -> Iterator[Request]:
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


def others() -> Iterator[Request]:
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


def _form(**fields: str) -> bytes:
    """multipart/form-data with these fields and a file of four bytes."""
    parts = [f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
    file = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\nRIFF\r\n'
    return "".join([*parts, file, f"--{BOUNDARY}--\r\n"]).encode()

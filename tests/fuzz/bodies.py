"""Bodies as clients send them, and as hostile clients have sent them: what the fuzzers begin with.

`requests.py`, `descriptions.py`, `callers.py` and `admissions.py` read them.
"""

from typing import Any, Final

_MINE: Final = {"alise_job": "mine", "alise_hint": "QUw=", "alise_stamp": "-99.00", "other": 1}
_HI: Final = [{"role": "user", "content": "hi"}]

# (path, body)
BODIES: Final[tuple[tuple[str, Any], ...]] = (
    ("/v1/completions", {"model": "tiny", "prompt": "a", "max_tokens": 2, "logprobs": 1}),
    ("/v1/completions", {"prompt": ["a", "b"], "n": 4294967295}),
    ("/v1/completions", {"prompt": [72.0, 105.0], "priority": -99, "vllm_xargs": _MINE}),
    ("/v1/completions", {"prompt": ["72", 105], "priority": -4611686018427387904, "vllm_xargs": _MINE}),
    ("/v1/completions", {"prompt": [[1, 2], [3]], "max_tokens": 0, "echo": True, "stream": True}),
    ("/v1/completions", {"prompt": "The cat", "max_tokens": 100.0, "temperature": 0.5, "cache_salt": "mine"}),
    ("/v1/completions", {"prompt": [""], "max_tokens": "100"}),
    ("/v1/chat/completions", {"model": "tiny", "messages": _HI, "max_completion_tokens": None, "max_tokens": 5, "stream": True}),
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "system", "content": "Be short."},
                *_HI,
                {"role": "assistant", "content": "Hello."},
                {"role": "user", "content": [{"type": "text", "text": "and now?"}, {"type": "image_url", "image_url": {"url": "data:"}}]},
            ],
            "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
            "n": 2,
        },
    ),
    ("/v1/chat/completions", {"model": "gpt-9", "messages": _HI, "priority": "high", "vllm_xargs": []}),
    ("/v1/responses", {"input": [], "instructions": "hi", "priority": -4611686018427387904, "vllm_xargs": _MINE}),
    ("/v1/responses", {"input": [*_HI, {"type": "function_call_output", "output": "4"}], "previous_response_id": "resp_1"}),
    ("/v1/responses", {"input": "hi", "text": {"format": {"type": "json_schema"}}, "max_output_tokens": 9}),
    (
        "/v1/messages",
        {"max_tokens": 16, "system": "Short.", "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    ),
    ("/v1/messages", {"messages": [*_HI, {"role": "assistant", "content": [{"type": "tool_result", "content": "4"}]}], "max_tokens": 1}),
    ("/v1/chat/completions/batch", {"messages": [_HI, _HI]}),
    ("/invocations", {"messages": _HI, "vllm_xargs": _MINE, "priority": -99}),
    ("/cohere/v2/chat", {"messages": _HI}),
    ("/tokenize", {"prompt": "a", "priority": -99, "vllm_xargs": _MINE}),
    ("/v1/embeddings", {"input": ["a", "b"]}),
    ("/v1/completions", []),
    ("/v1/completions", "text"),
    ("/v1/completions", {"prompt": "\udc80", "model": "\udcff", "previous_response_id": "\udc80"}),
)

"""Completions: every sampling parameter, the forms of a prompt, structured output, and what a client may not set.

`requests.py` lists them.
"""

from collections.abc import Iterator
from typing import Any

from tests.surface.row import COMPLETIONS, JSON_SCHEMA, MAX_MODEL_LEN, MODEL, VOCABULARY, WEATHER, Mark, Request, both, without


def _completion(id: str, /, *, case: tuple[str, ...] = (), marks: frozenset[Mark] = frozenset(), **body: Any) -> Request:
    whole = {"model": MODEL, "prompt": "The cat", "max_tokens": 8, "temperature": 0, **body}
    return Request(f"completion, {id}", COMPLETIONS, whole, case=case, marks=marks)


def completions() -> Iterator[Request]:
    yield from both(_completion("at temperature 0"))
    yield from both(_completion("seeded at temperature 1", temperature=1.0, seed=7))
    yield from both(_completion("two choices with a seed", n=2, temperature=0.9, seed=11))
    yield from both(_completion("with logprobs", prompt="a", max_tokens=2, logprobs=1, case=("D1",)))
    yield from both(_completion("with five logprobs and token ids for names", logprobs=5, return_tokens_as_token_ids=True))
    yield _completion("with logprobs 0", logprobs=0)
    yield _completion("with more logprobs than allowed", logprobs=21)
    yield _completion("with negative logprobs", logprobs=-1)
    yield _completion("with logprobs of chosen tokens", logprobs=1, logprob_token_ids=[65, 66])
    yield _completion("with prompt logprobs", prompt_logprobs=2, case=("D1",))
    yield _completion("with prompt logprobs of the whole vocabulary", prompt_logprobs=-1)
    yield from both(_completion("echoed", echo=True))
    yield from both(_completion("echoed with logprobs", echo=True, logprobs=2))
    yield _completion("that scores the prompt: echo, logprobs and max_tokens 0", max_tokens=0, echo=True, logprobs=1, case=("A20",))
    yield _completion("with max_tokens 0 and no echo", max_tokens=0, case=("A20",))
    yield _completion("with max_tokens null", max_tokens=None, case=("A20",))
    yield _completion("with max_tokens 100.0", max_tokens=100.0, case=("A20",))
    yield _completion("with max_tokens 1.5", max_tokens=1.5)
    yield _completion("with max_tokens -1", max_tokens=-1)
    yield _completion("with max_tokens beyond 64 bits", max_tokens=2**70)
    yield without(_completion("without max_tokens"), "max_tokens")
    yield _completion("with a logit bias that forces a token", logit_bias={"65": 100})
    yield _completion("with a logit bias for a token outside the vocabulary", logit_bias={str(VOCABULARY + 5): 1})
    yield _completion("with a logit bias key that is not a number", logit_bias={"A": 1})
    yield from both(_completion("with all three penalties", frequency_penalty=1.5, presence_penalty=1.0, repetition_penalty=1.3))
    yield _completion("with a frequency penalty of 3", frequency_penalty=3)
    yield _completion("with a repetition penalty of 0", repetition_penalty=0)
    yield from both(_completion("with stop strings", stop=["e", "T"], max_tokens=40))
    yield from both(_completion("with a stop string that stays in the text", stop=["e"], include_stop_str_in_output=True, max_tokens=40))
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
    yield from both(_completion("that returns token ids", return_token_ids=True))
    yield _completion("with a truncated prompt", prompt="abcdefgh" * 10, truncate_prompt_tokens=5, return_token_ids=True)
    yield _completion("with a prompt truncated from the right", prompt="abcdefgh", truncate_prompt_tokens=3, truncation_side="right")
    yield _completion("with a prompt truncated to the context length", prompt="a" * 5000, truncate_prompt_tokens=-1)
    yield _completion("without special tokens", add_special_tokens=False, return_token_ids=True)
    yield _completion("with special tokens in the text", allowed_token_ids=[258, 259], skip_special_tokens=False)
    yield from both(_completion("of token ids", prompt=[72, 105]))
    yield from both(_completion("of two texts", prompt=["abc", "xyz"]))
    yield _completion("of two lists of token ids", prompt=[[72, 105], [65, 66, 67]])
    yield _completion("of an empty text", prompt="")
    yield _completion("of a list with an empty text", prompt=[""], case=("L1",))
    yield _completion("of an empty list", prompt=[])
    yield _completion("of a list with an empty list", prompt=[[]])
    yield _completion("of null", prompt=None)
    yield without(_completion("without a prompt"), "prompt")
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
    yield from both(_completion("with a regex", structured_outputs={"regex": r"\d{3}-\d{4}"}, max_tokens=20))
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
    yield without(_completion("without a model"), "model")
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


def last() -> Iterator[Request]:
    """Requests that end stock vLLM's engine; they come last, so that nothing has to be restarted."""
    yield _completion(
        "of four long prompts with a seed, which are prefilled in parts",
        prompt=[letter * 1500 for letter in "abcd"],
        seed=1234,
        temperature=0.8,
        case=("D2",),
        marks=frozenset({Mark.STOCK_DIES}),
    )

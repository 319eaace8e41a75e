"""An open-loop client that costs the machine little: a stream's bytes are counted, not parsed, but for the end with its usage.

`clients.py` and `serving_emulated.py` ask with it.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from typing import Final

import aiohttp

from tests.bench.harness import Row
from tests.bench.workload import STOP_AFTER, Prompt

ANSWER_SECONDS: Final = 3600.0
# Key in `vllm_xargs` by which the emulated device's log names a request.
NUMBER: Final = "bench_number"
# vLLM's server closes a connection that was idle for 5 s. A client that reuses it at that moment loses its request.
_KEEP_IDLE_SECONDS: Final = 2.0
# The last chunk of a stream, with the usage, is shorter.
_TAIL_BYTES: Final = 4096


async def open_loop(url: str, prompts: Sequence[Prompt], arrivals: Sequence[float], first_number: int) -> list[Row]:
    """Sends each request at its moment, whatever became of the ones before; returns a row for each, numbered from `first_number`."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_IDLE_SECONDS)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=connector) as session:
        began = time.monotonic()

        async def one(number: int, prompt: Prompt, at: float) -> Row:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            return {"number": number, "arrival_seconds": at, **await ask(session, number, prompt)}

        waiting = (one(number, prompt, at) for number, (prompt, at) in enumerate(zip(prompts, arrivals, strict=True), first_number))
        return list(await asyncio.gather(*waiting))


async def ask(session: aiohttp.ClientSession, number: int, prompt: Prompt) -> Row:
    """Streams one answer; `error` is empty when it came whole."""
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": prompt.text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "vllm_xargs": {STOP_AFTER: prompt.output_tokens, NUMBER: number},
    }
    began, first, tail = time.monotonic(), 0.0, b""
    try:
        async with session.post("/v1/chat/completions", json=body) as response:
            async for part in response.content.iter_any():
                first = first or time.monotonic() - began
                tail = (tail + part)[-_TAIL_BYTES:]
            error = "" if response.status == 200 else f"{response.status}: {tail.decode(errors='replace')[:300]}"
    except (aiohttp.ClientError, TimeoutError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    ended = time.monotonic() - began
    usage = {} if error else usage_in(tail)
    if not error and not usage:
        error = "no usage came: the stream was cut"
    return {
        "ttft_seconds": first or ended,
        "end_seconds": ended,
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "tokens": usage.get("completion_tokens", 0),
        "error": error,
    }


def usage_in(tail: bytes) -> dict[str, int]:
    """Returns the usage in the last events of a stream; empty when there is none."""
    for line in reversed(tail.split(b"\n")):
        if line.startswith(b"data: {") and b'"completion_tokens"' in line:
            found = json.loads(line.removeprefix(b"data: ")).get("usage") or {}
            return {name: found[name] for name in ("prompt_tokens", "completion_tokens")}
    return {}

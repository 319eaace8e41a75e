"""Prints step times from NVIDIA's measured tables. It runs in a virtual environment of its own and imports nothing of ours.

It reads a JSON list of engines (`model`, `system`, `devices`, `kv`, `points`) on standard input, where a point is (prefill tokens, decoding
requests, context of each), and prints milliseconds in the same order, or null where the tables have no such KV type. `hardware.py` starts
it.
"""

import importlib
import json
import sys
from typing import Any


def measured(engine: dict[str, Any]) -> list[float] | None:
    """Returns the milliseconds of one engine's points."""
    sdk = importlib.import_module("aisimulate_core.sdk")
    errors = importlib.import_module("aisimulate_core.sdk.errors")
    spec = sdk.compile_engine(
        engine["model"], engine["system"], "vllm", None, tp_size=engine["devices"], kvcache_quant_mode="fp8" if engine["kv"] == 8 else None
    )
    handle = sdk.EngineHandle(spec)
    try:
        # An output of two tokens: the tables take the context in the middle of the answer.
        return [
            handle.mixed_step_latency(prefill, decoding, context, 2) if prefill else handle.decode_step_latency(decoding, context, 2)
            for prefill, decoding, context in engine["points"]
        ]
    except errors.PerfDataNotAvailableError:
        return None


if __name__ == "__main__":
    print(json.dumps([measured(engine) for engine in json.load(sys.stdin)]))

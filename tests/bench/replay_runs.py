"""Published runs of stock vLLM on real GPUs, as the replay needs them: configuration, requests and the times the engine reported.

A run is three files below `vllm_runs/` of the data (LLMServingSim's repository, MIT): NAME.meta.json, NAME.requests.jsonl and
NAME.timeseries.csv. They are never copied into the repository. `replay.py` and `tests/tools/hardware.py` read them.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from alise_scheduler.core.job import Ints
from alise_scheduler.core.lengths import Floats

NAMES: Final = ("RTX4090_Llama-3.1-8B", "RTXPRO6000_Llama-3.1-8B", "RTXPRO6000_Qwen3-32B")
# Of runs that do not say how much KV they held: device memory x 0.9 less weights, activations and CUDA's own, as tests/tools/hardware.py
# derives it. Neither run comes near it.
_ROOM_TOKENS: Final = {"RTXPRO6000_Llama-3.1-8B": 561_248, "RTXPRO6000_Qwen3-32B": 429_424}
_KV_TOKEN_BYTES: Final = {"RTX4090_Llama-3.1-8B": 131_072, "RTXPRO6000_Llama-3.1-8B": 131_072, "RTXPRO6000_Qwen3-32B": 262_144}


@dataclass(frozen=True, slots=True)
class PublishedRun:
    """Columns of one run, by arrival; times are seconds since the first arrival."""

    name: str
    slots: int
    max_num_batched_tokens: int
    block_size: int
    room_tokens: int
    kv_token_bytes: int
    arrival_seconds: Floats
    input_tokens: Ints
    output_tokens: Ints
    first_token_seconds: Floats
    last_token_seconds: Floats

    @property
    def half_seconds(self) -> float:
        """The middle of the run."""
        return float(self.last_token_seconds.max()) / 2


def read_run(folder: Path, name: str) -> PublishedRun:
    """Reads a run. Raises OSError or ValueError (KeyError) where a file is missing or is no such run."""
    meta = json.loads((folder / f"{name}.meta.json").read_text())
    rows = [json.loads(line) for line in (folder / f"{name}.requests.jsonl").read_text().splitlines()]
    rows.sort(key=lambda row: float(row["arrival_time"]))
    arrival, queued, first, last = (
        np.array([float(row[column]) for row in rows]) for column in ("arrival_time", "queued_ts", "first_token_ts", "last_token_ts")
    )
    # Arrivals are in wall time, the engine's stamps are monotonic; the request that waited least for the engine joins the two clocks.
    began = float(arrival[0])
    zero = began + float((queued - arrival).min())
    engine, cache = meta["engine_kwargs"], meta.get("kv_cache", {})
    return PublishedRun(
        name=name,
        slots=engine["max_num_seqs"],
        max_num_batched_tokens=engine["max_num_batched_tokens"],
        block_size=cache.get("block_size", 16),
        room_tokens=cache.get("num_kv_tokens") or _ROOM_TOKENS[name],
        kv_token_bytes=_KV_TOKEN_BYTES[name],
        arrival_seconds=arrival - began,
        input_tokens=np.array([int(row["input_toks"]) for row in rows]),
        output_tokens=np.array([int(row["output_toks"]) for row in rows]),
        first_token_seconds=first - zero,
        last_token_seconds=last - zero,
    )

"""The engine's part: what alise costs per step, per call, and what it takes to park KV on the host.

vLLM runs in this process on the tiny model, once as it is and once with alise, with the same sixteen requests decoding. A step's cost is
the time inside the scheduler (schedule and update), not the forward pass. Saves and restores are timed on tensors of an 8B model's shape.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.harness import Figure, Row, Settings, median, percentile

REQUESTS: Final = 16
# One layer of Llama-3-8B: 8 KV heads of 128 channels.
HEADS: Final = 8
CHANNELS: Final = 128
BLOCK: Final = 32
BLOCKS: Final = 32


def measure(settings: Settings) -> Iterator[Row]:
    """Engines one after another in this process, then the worker's part alone."""
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1", VLLM_LOGGING_LEVEL="ERROR")
    yield from _engines(100 if settings.quick else 300, settings.seeds)
    yield from _transfers(3 if settings.quick else 20)


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    def values(**wanted: Any) -> list[float]:
        return [row["seconds"] for row in rows if all(row.get(key) == value for key, value in wanted.items())]

    stock, ours = values(what="step", engine="stock"), values(what="step", engine="alise")
    found = [
        Figure("step_overhead_ms", (median(ours) - median(stock)) * 1e3, "ms", "lower"),
        Figure("step_stock_p50_ms", median(stock) * 1e3, "ms", "lower"),
        Figure("step_alise_p50_ms", median(ours) * 1e3, "ms", "lower"),
        Figure("step_alise_p99_ms", percentile(ours, 0.99) * 1e3, "ms", "lower"),
        Figure("poll_p50_ms", median(values(what="poll")) * 1e3, "ms", "lower"),
        Figure("apply_p50_ms", median(values(what="apply")) * 1e3, "ms", "lower"),
    ]
    moved_gb = BLOCKS * BLOCK * HEADS * CHANNELS * 2 * 2 / 1e9
    for codec in ("raw", "int8"):
        for what in ("save", "restore"):
            found.append(Figure(f"{what}_{codec}_gb_per_s", moved_gb / median(values(what=what, codec=codec)), "GB/s of bf16 KV", "higher"))
    sizes = {row["codec"]: row["bytes"] for row in rows if row["what"] == "save"}
    found.append(Figure("int8_bytes_of_bf16", sizes["int8"] / sizes["raw"], "fraction", "lower", goal=0.55))
    return found


def _engines(tokens: int, seeds: int) -> Iterator[Row]:
    from alise_engine import tiny_model
    from tests.engine.harness import Engine, EngineOptions

    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model.write_model(Path(folder))
        for name in ("stock", "alise"):
            engine = Engine(model, EngineOptions(max_num_seqs=REQUESTS, blocks=513, stock=name == "stock"))
            for seed in range(seeds):
                yield from ({"engine": name, "seed": seed, **row} for row in _decode(engine, tokens, plan=name == "alise"))
            engine.close()


def _decode(engine: Any, tokens: int, *, plan: bool) -> Iterator[Row]:
    """Rows of one run of sixteen requests, the plan renewed and the engine polled every fifth step, as the sidecar does."""
    from alise_engine.core_protocol import RankRow

    spent = _timed(engine.scheduler)
    names = [engine.ask([256, *b"a prompt ", index], tokens, job=f"job{index}") for index in range(REQUESTS)]
    engine.step(5)
    count = 0
    while not all(engine.answers[name].finished for name in names):
        spent[0], count = 0.0, count + 1
        engine.step()
        yield {"what": "step", "seconds": spent[0]}
        if plan and count % 5 == 0:
            ranks = [RankRow(f"job{index}", 0, index + count, False, 100) for index in range(REQUESTS)]
            for what, call in (("apply", lambda ranks=ranks: engine.apply(*ranks)), ("poll", engine.poll)):
                began = time.perf_counter()
                call()
                yield {"what": what, "seconds": time.perf_counter() - began}


def _timed(scheduler: Any) -> list[float]:
    """Wraps the two calls of a step; the first element of the list counts the seconds inside them."""
    spent = [0.0]
    for name in ("schedule", "update_from_output"):
        original = getattr(type(scheduler), name).__get__(scheduler)

        def timed(*args: Any, original: Any = original, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                spent[0] += time.perf_counter() - began

        setattr(scheduler, name, timed)
    return spent


def _transfers(repetitions: int) -> Iterator[Row]:
    """One layer's save and restore of 1,024 tokens, with each codec."""
    import torch

    from alise_engine.kv.connector import Load, Save, WorkerSide
    from alise_engine.kv.host_pool import HostPool
    from alise_engine.kv.int8 import KeyLayout, LayerShape

    shape = LayerShape(HEADS, BLOCK, CHANNELS, torch.bfloat16, KeyLayout.TRANSPOSED)
    side = WorkerSide(shape, 2 * shape.elements, HostPool(1 << 30))
    side.register({"layer": torch.randn(2 * BLOCKS, HEADS, BLOCK, 2 * CHANNELS).to(torch.bfloat16)}, num_blocks=2 * BLOCKS)
    blocks = tuple(range(0, 2 * BLOCKS, 2))
    for codec in ("raw", "int8"):
        for _ in range(repetitions):
            began = time.perf_counter()
            side.write(Save("r", blocks, 0, BLOCKS * BLOCK, codec))
            saved = time.perf_counter()
            side.load(Load("r", blocks, 0))
            yield {"what": "save", "codec": codec, "seconds": saved - began, "bytes": side.pool.used_bytes}
            yield {"what": "restore", "codec": codec, "seconds": time.perf_counter() - saved}

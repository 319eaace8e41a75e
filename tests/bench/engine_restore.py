"""How long a preempted request makes its reader wait when its turn comes: from the raw copy, from the INT8 copy, or computed again.

A real engine, bf16, on a model with a realistic KV cache (25 million parameters, 8 layers, 2 KV heads of 128 channels). One request
decodes, is preempted, and readmitted; what is timed is the time from there to its next token. Recompute is the same with its copy taken
away. Gaps are given by the clock and as the process's CPU time, which other load on the machine does not stretch (one thread computes);
ratios are of CPU time. `engine.py` runs it. It sets variables of vLLM in
this process, and keeps its model on disk (models.py).
"""

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.bench import models
from tests.bench.harness import Figure, Row, Settings, median

TOKENS: Final = (256, 1024, 2048, 3500, 4096)
QUICK_TOKENS: Final = (256, 3500)
WAYS: Final = ("raw", "int8", "recompute")


def measure(settings: Settings) -> Iterator[Row]:
    """One row per resume, and per undisturbed token in between."""
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS="1", VLLM_LOGGING_LEVEL="ERROR")
    from tests.engine.harness import Engine, EngineOptions

    options = EngineOptions(max_num_seqs=1, blocks=41, block_size=128, max_model_len=4608, dtype="bfloat16")
    engine = Engine(models.wide(), options)
    for tokens in QUICK_TOKENS if settings.quick else TOKENS:
        for _ in range(1 if settings.quick else settings.seeds):
            yield from ({"tokens": tokens, **row} for row in _resumes(engine.fresh(), tokens, 6))
    engine.close()


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Medians; the ratios at 3,500 tokens are those of one run."""

    def gap_ms(way: str, tokens: int, column: str = "seconds") -> float:
        return median(row[column] for row in rows if (row["way"], row["tokens"]) == (way, tokens)) * 1e3

    sizes = sorted({row["tokens"] for row in rows})
    found = [
        Figure(f"gap_{way}_{tokens}_{name}", gap_ms(way, tokens, column), unit, "lower")
        for tokens in sizes
        for way in (*WAYS, "undisturbed")
        for name, column, unit in (("ms", "seconds", "ms"), ("cpu_ms", "cpu_seconds", "ms of CPU"))
    ]
    raw, int8, recompute = (gap_ms(way, 3500, "cpu_seconds") for way in WAYS)
    found.append(Figure("int8_vs_recompute_3500", recompute / int8, "times faster", "higher", goal=20.0))
    found.append(Figure("int8_vs_raw_3500", int8 / raw, "times as long", "lower", goal=1.5))
    return found


def plot(rows: Sequence[Row], axes: Any) -> None:
    """The gap by the request's length."""
    sizes = sorted({row["tokens"] for row in rows})
    for way in (*WAYS, "undisturbed"):
        gaps = [median(row["seconds"] for row in rows if (row["way"], row["tokens"]) == (way, size)) * 1e3 for size in sizes]
        axes.plot(sizes, gaps, marker="o", label=way)
    axes.set(xlabel="tokens of the preempted request", ylabel="ms to its next token", yscale="log", title="Restore against recompute")
    axes.legend()


def _resumes(engine: Any, tokens: int, repetitions: int) -> Iterator[Row]:
    # Each copy is complete: no way of restoring may find the blocks of the one before.
    for way in WAYS:
        engine.set_codec("int8" if way == "int8" else "raw")
        name = engine.ask([256, *(32 + number % 90 for number in range(tokens - 1))], 4 * repetitions + 4, job="job")
        engine.run_until(engine.grown(name, 1))
        [request] = engine.scheduler.requests
        # Two of the slow one are enough to see what is a hundred times as long.
        for _ in range(2 if way == "recompute" else repetitions):
            engine.crowd.displace("job")
            engine.step(2)
            if way == "recompute":
                engine.scheduler.connector.drop(request)
                engine.step()
            engine.crowd.readmit("job")
            yield {"way": way, **_next_token(engine, name)}
            yield {"way": "undisturbed", **_next_token(engine, name)}
            # The next save starts from nothing.
            engine.scheduler.connector.drop(request)
        engine.abort(name)
        engine.step(2)


def _next_token(engine: Any, name: str) -> Row:
    count, began, began_cpu = len(engine.tokens(name)), time.perf_counter(), time.process_time()
    engine.run_until(engine.grown(name, count + 1))
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu}

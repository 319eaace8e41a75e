"""alise beside stock vLLM on the real engine: the same requests at the same moments, one system after the other in each seed.

Requests arrive as a Poisson process at shares of the throughput that stock vLLM was measured to have here. Answers end after the number
of tokens that the workload's real answers had, which neither system is told. alise starts cold and learns while it serves.

The model has 25 million random parameters, so that on a CPU a step is mostly the model's, as on a GPU, and not the server's Python. Wall
time on a shared machine is noisy: read the ratios, and their spread over seeds.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openai import AsyncOpenAI

from alise_engine.compose import IN_PROCESS_EXECUTOR
from tests.bench import models
from tests.bench.harness import RESULTS, Figure, Row, Settings, median, percentile
from tests.bench.stop_after import STOP_AFTER
from tests.bench.workload import Prompt, load
from tests.cluster.control_plane import free_port

SYSTEMS: Final = ("stock", "alise")
SLOTS: Final = 8
READY_SECONDS: Final = 300.0
ANSWER_SECONDS: Final = 600.0
STOP_SECONDS: Final = 60.0
# The longest prompt that is sent, in characters: one is about one token of the byte-level tokenizer.
PROMPT_CHARS: Final = 600
FLAGS: Final = ("--max-model-len", "2048", "--max-num-seqs", str(SLOTS), "--enforce-eager", "--logits-processors")
ENGINE_ENV: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is sent."""

    loads: tuple[float, ...]
    requests: int
    warmup: int


QUICK: Final = Plan((0.9,), 60, 20)
FULL: Final = Plan((0.5, 0.8, 0.95, 1.1), 250, 60)


def measure(settings: Settings) -> Iterator[Row]:
    """A row per request, and one per seed with the capacity."""
    plan = QUICK if settings.quick else FULL
    for seed in range(settings.seeds):
        workload = load(settings.dataset, plan.requests * len(plan.loads) + 2 * plan.warmup, seed)
        capacity = 0.0
        # Stock first: its throughput sets the rates of both.
        for system in SYSTEMS:
            with serving(system) as url:
                warmup = asyncio.run(closed_loop(url, workload.prompts[: 2 * plan.warmup], SLOTS * 4))
                if system == "stock":
                    capacity = 2 * plan.warmup / warmup
                    yield {"kind": "capacity", "seed": seed, "requests_per_second": capacity, "workload": workload.name}
                for number, share in enumerate(plan.loads):
                    first = 2 * plan.warmup + number * plan.requests
                    prompts = workload.prompts[first : first + plan.requests]
                    arrivals = poisson(len(prompts), capacity * share, seed * 100 + number)
                    for row in asyncio.run(open_loop(url, prompts, arrivals)):
                        yield {"kind": "request", "system": system, "seed": seed, "load": share, "workload": workload.name, **row}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Ratios alise / stock by load, each the median over seeds; the spread and the plain values are in the plot and the rows."""
    requests = [row for row in rows if row["kind"] == "request"]
    name = requests[0]["workload"]
    found: list[Figure] = []
    for share in sorted({row["load"] for row in requests}):
        for metric, (of_row, take) in METRICS.items():
            ratios = [value["alise"] / value["stock"] for value in by_seed(requests, share, of_row, take)]
            label = f"{metric}_vs_stock_load{round(share * 100):03d}_{name}"
            found.append(Figure(label, median(ratios), f"ratio [{min(ratios):.2f}–{max(ratios):.2f}]", "lower"))
    failed = sum(1 for row in requests if row["error"])
    found.append(Figure(f"failed_requests_{name}", failed, "requests", "lower", 0))
    return found


def normalized_ms(row: Row) -> float:
    """End-to-end latency per output token, milliseconds (the paper's measure)."""
    return 1000 * float(row["end_seconds"]) / max(1, int(row["tokens"]))


def ttft_ms(row: Row) -> float:
    return 1000 * float(row["ttft_seconds"])


def end_ms(row: Row) -> float:
    return 1000 * float(row["end_seconds"])


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def p99(values: Sequence[float]) -> float:
    return percentile(values, 0.99)


METRICS: Final = {
    "norm_latency_mean": (normalized_ms, mean),
    "ttft_mean": (ttft_ms, mean),
    "e2e_mean": (end_ms, mean),
    "e2e_p99": (end_ms, p99),
}


def by_seed(
    requests: Sequence[Row], share: float, of_row: Callable[[Row], float], take: Callable[[Sequence[float]], float]
) -> list[dict[str, float]]:
    """For each seed what `take` makes of the rows of each system at this load; failed requests do not count."""
    seeds = sorted({row["seed"] for row in requests})
    chosen = [row for row in requests if row["load"] == share and not row["error"]]
    return [
        {system: take([of_row(row) for row in chosen if row["seed"] == seed and row["system"] == system]) for system in SYSTEMS}
        for seed in seeds
    ]


def plot(rows: Sequence[Row]) -> list[str]:
    """Normalized latency, time to first token and the 99th percentile over load, both systems, with the band over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    requests = [row for row in rows if row["kind"] == "request"]
    loads = sorted({row["load"] for row in requests})
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), constrained_layout=True)
    panels = (("mean ms/token", normalized_ms, mean), ("mean time to first token, ms", ttft_ms, mean), ("p99 end to end, ms", end_ms, p99))
    for axis, (title, of_row, take) in zip(axes, panels, strict=True):
        for system, color in zip(SYSTEMS, ("tab:gray", "tab:blue"), strict=True):
            values = [[seed[system] for seed in by_seed(requests, share, of_row, take)] for share in loads]
            axis.plot(loads, [median(one) for one in values], color=color, marker="o", label=system)
            axis.fill_between(loads, [min(one) for one in values], [max(one) for one in values], color=color, alpha=0.2)
        axis.set_xlabel("load (share of stock's throughput)")
        axis.set_title(title)
        axis.set_ylim(bottom=0)
        axis.legend()
    figure.suptitle(f"alise and stock vLLM, {SLOTS} slots, {requests[0]['workload']}")
    figure.savefig(RESULTS / "serving.png", dpi=120)
    plt.close(figure)
    return ["serving.png"]


def poisson(count: int, per_second: float, seed: int) -> list[float]:
    """Arrival times in seconds from the start."""
    chance, at = random.Random(seed), 0.0
    times = []
    for _ in range(count):
        at += chance.expovariate(per_second)
        times.append(at)
    return times


def client_of(url: str) -> AsyncOpenAI:
    """Without retries: a retried failure would look like a slow answer."""
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=ANSWER_SECONDS)


async def closed_loop(url: str, prompts: Sequence[Prompt], at_once: int) -> float:
    """Seconds for all of them, `at_once` at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one(prompt: Prompt) -> None:
        async with gate:
            row = await ask(client, prompt)
        if row["error"]:
            raise RuntimeError(f"a warm-up request failed: {row['error']}")

    began = time.monotonic()
    async with client_of(url) as client:
        await asyncio.gather(*(one(prompt) for prompt in prompts))
    return time.monotonic() - began


async def open_loop(url: str, prompts: Sequence[Prompt], arrivals: Sequence[float]) -> list[Row]:
    """Each request at its moment, whatever became of the ones before."""
    began = time.monotonic()

    async def one(prompt: Prompt, at: float) -> Row:
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        return {"arrival_seconds": at, "wanted_tokens": prompt.output_tokens, **await ask(client, prompt)}

    async with client_of(url) as client:
        return list(await asyncio.gather(*(one(prompt, at) for prompt, at in zip(prompts, arrivals, strict=True))))


async def ask(client: AsyncOpenAI, prompt: Prompt) -> Row:
    """Stream one answer; `error` is empty when it came whole."""
    began = time.monotonic()
    first = None
    tokens = 0
    try:
        stream = await client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": prompt.text[:PROMPT_CHARS]}],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"vllm_xargs": {STOP_AFTER: prompt.output_tokens}},
        )
        async for chunk in stream:
            first = first or time.monotonic() - began
            tokens = chunk.usage.completion_tokens if chunk.usage is not None else tokens
        error = "" if tokens else "no usage came: the stream was cut"
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    ended = time.monotonic() - began
    return {"ttft_seconds": first or ended, "end_seconds": ended, "tokens": tokens, "error": error}


@contextlib.contextmanager
def serving(system: str) -> Iterator[str]:
    """Its URL, from ready to ended. Raises RuntimeError with the end of the log when it does not start."""
    port = free_port()
    bin_folder = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="alise-") as folder:
        model = models.wide()
        environ = {**os.environ, **ENGINE_ENV, "ALISE_SOCKET_DIR": f"{folder}/sock", "ALISE_HTTP_PORT": "0", "PYTHONPATH": os.getcwd()}
        flags = [str(model), "--served-model-name", "tiny", "--port", str(port), *FLAGS, "tests.bench.stop_after:StopAfter"]
        command = [str(bin_folder / ("alise-engine" if system == "alise" else "vllm")), "serve", *flags]
        # Both get the same blocks, and the model in EngineCore's own process: stock's defaults on a CPU are others, and slower.
        command += ["--block-size", "32", "--distributed-executor-backend", IN_PROCESS_EXECUTOR]
        with contextlib.ExitStack() as stack:
            if system == "alise":
                stack.enter_context(process([str(bin_folder / "alise-scheduler"), "supervise"], environ, Path(folder) / "scheduler.log"))
            log = Path(folder) / "engine.log"
            engine = stack.enter_context(process(command, environ, log))
            wait_healthy(port, engine, log)
            yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def process(command: Sequence[str], environ: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A child with a process group of its own, which is ended whole."""
    with log.open("wb") as out:
        child = subprocess.Popen(command, env=environ, stdout=out, stderr=out, start_new_session=True)
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(STOP_SECONDS)


def wait_healthy(port: int, engine: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + READY_SECONDS
    while time.monotonic() < ends:
        if engine.poll() is not None:
            break
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200:
                return
        time.sleep(0.3)
    raise RuntimeError(f"the engine did not become ready within {READY_SECONDS:.0f} s:\n{log.read_text(errors='replace')[-3000:]}")

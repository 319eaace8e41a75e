"""alise beside stock vLLM on the real engine: the same requests at the same moments, one system after the other in each seed.

Requests arrive as a Poisson process at shares of the throughput that a stock vLLM of its own was measured to have here. Answers end after
the number of tokens that the workload's real answers had, which neither system knows. Which system goes first changes from seed to seed.
alise starts cold and learns while it serves, with the encoder that its image has (unless ALISE_ENCODER is `none`). Compared are the
requests that both answered.

The model has 25 million random parameters, so that on a CPU a step is mostly the model's, as on a GPU, and not the server's Python. Wall
time on a shared machine is noisy: read the ratios, and their spread over seeds. `make bench-serving` runs it.
"""

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from openai import AsyncOpenAI

from tests.bench.harness import RESULTS, Figure, Row, Settings, median, percentile
from tests.bench.serving_processes import SLOTS, Running, serving
from tests.bench.workload import STOP_AFTER, Prompt, load
from tests.tools import encoder as encoders

SYSTEMS: Final = ("stock", "alise")
ANSWER_SECONDS: Final = 600.0
# The longest prompt that is sent, in characters: one is about one token of the byte-level tokenizer.
PROMPT_CHARS: Final = 600


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is sent: at each load, to get warm, and to measure the capacity."""

    loads: tuple[float, ...]
    requests: int
    warmup: int
    capacity: int


QUICK: Final = Plan((0.9,), 60, 20, 40)
FULL: Final = Plan((0.5, 0.8), 100, 60, 120)


def measure(settings: Settings) -> Iterator[Row]:
    """A row per request, one per system and load with tokens and CPU time, and one per seed with the capacity."""
    plan = QUICK if settings.quick else FULL
    encoder = encoders.wanted()
    for seed in range(settings.seeds):
        first = plan.warmup + plan.capacity
        workload = load(settings.dataset, plan.requests * len(plan.loads) + first, seed)
        common = {"seed": seed, "workload": workload.name}
        with serving("stock", None) as running:
            asyncio.run(closed_loop(running.url, workload.prompts[: plan.warmup], SLOTS * 4))
            capacity = plan.capacity / asyncio.run(closed_loop(running.url, workload.prompts[plan.warmup : first], SLOTS * 4))
        yield {"kind": "capacity", "requests_per_second": capacity, **common}
        for place, system in enumerate(order(seed)):
            with serving(system, encoder) as running:
                asyncio.run(closed_loop(running.url, workload.prompts[:first], SLOTS * 4))
                for number, share in enumerate(plan.loads):
                    begins = first + number * plan.requests
                    prompts = workload.prompts[begins : begins + plan.requests]
                    arrivals = poisson(len(prompts), capacity * share, seed * 100 + number)
                    own = {"system": system, "place": place, "load": share, "encoder": encoder is not None, **common}
                    yield from ({**row, **own} for row in _at_load(running, prompts, arrivals))


def order(seed: int) -> tuple[str, ...]:
    """Who is measured first: what a machine does over the hours must not always meet the same one."""
    return SYSTEMS if seed % 2 == 0 else SYSTEMS[::-1]


def _at_load(running: Running, prompts: Sequence[Prompt], arrivals: Sequence[float]) -> Iterator[Row]:
    before, began = running.cpu_seconds(), time.monotonic()
    rows = asyncio.run(open_loop(running.url, prompts, arrivals))
    seconds, after = time.monotonic() - began, running.cpu_seconds()
    yield from ({"kind": "request", "number": number, **row} for number, row in enumerate(rows))
    spent = {name: round(after[name] - before[name], 2) for name in after}
    yield {"kind": "run", "tokens": sum(row["tokens"] for row in rows), "seconds": seconds, "cpu_seconds": spent}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Ratios alise / stock by load, each the median over seeds; tokens per second and CPU seconds of each system; what failed."""
    requests = [row for row in rows if row["kind"] == "request"]
    runs = [row for row in rows if row["kind"] == "run"]
    name, told = requests[0]["workload"], "with" if requests[0]["encoder"] else "without"
    found: list[Figure] = []
    for share in sorted({row["load"] for row in requests}):
        at = f"load{round(share * 100):03d}_{name}"
        for metric, (of_row, take) in METRICS.items():
            ratios = [value["alise"] / value["stock"] for value in by_seed(requests, share, of_row, take)]
            if ratios:
                unit = f"ratio [{min(ratios):.2f}–{max(ratios):.2f}], {len(ratios)} seeds, {told} encoder"
                found.append(Figure(f"{metric}_vs_stock_{at}", median(ratios), unit, "lower"))
        found += _throughput([row for row in runs if row["load"] == share], at)
    for system in SYSTEMS:
        failed = sum(1 for row in requests if row["error"] and row["system"] == system)
        found.append(Figure(f"failed_requests_{system}_{name}", failed, "requests", "lower", 0))
    return found


def _throughput(runs: Sequence[Row], at: str) -> list[Figure]:
    """The medians of each system over seeds, and the median of the paired ratios."""
    found = []
    rates = {(row["system"], row["seed"]): row["tokens"] / row["seconds"] for row in runs}
    for system in SYSTEMS:
        own = [row for row in runs if row["system"] == system]
        rate = median(rates[system, row["seed"]] for row in own)
        found.append(Figure(f"tokens_per_s_{system}_{at}", rate, "tokens/s", "higher"))
        for process in own[0]["cpu_seconds"]:
            if process != "sidecar" or system == "alise":
                spent = median(row["cpu_seconds"][process] for row in own)
                found.append(Figure(f"cpu_s_{process}_{system}_{at}", spent, "s of CPU", "lower"))
    ratios = [rates["alise", seed] / rates["stock", seed] for seed in sorted({row["seed"] for row in runs})]
    unit = f"ratio [{min(ratios):.2f}–{max(ratios):.2f}], {len(ratios)} seeds"
    found.append(Figure(f"tokens_per_s_vs_stock_{at}", median(ratios), unit, "higher"))
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
    """For each seed what `take` makes of the rows of each system at this load: of the requests that both systems answered."""
    made = []
    for seed in sorted({row["seed"] for row in requests}):
        own = [row for row in requests if (row["load"], row["seed"]) == (share, seed) and not row["error"]]
        by_system: Mapping[str, dict[int, Any]] = {
            system: {row["number"]: row for row in own if row["system"] == system} for system in SYSTEMS
        }
        both = sorted(set.intersection(*(set(numbers) for numbers in by_system.values())))
        if both:
            made.append({system: take([of_row(by_system[system][number]) for number in both]) for system in SYSTEMS})
    return made


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

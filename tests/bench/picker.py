"""The endpoint picker beside Envoy's own balancing: the same requests at the same moments, one system after the other in each seed.

A real Envoy stands before four replicas. Each has the real API half, the real sidecar with its predictor and encoder, and an EngineCore
that is paced by the clock (`tests/picker/paced_replica.py`): four slots, 10 ms per step, preemption without a cost. Arrivals are a Poisson
process at 0.9 of what the slots can serve. Answers are as long as the data set's, which the replica alone knows. All systems start cold and
are warmed by the same requests, which are not counted.

The added latency is that of requests to replicas with free slots, one after the other, through Envoy with the picker and without it: the
difference of the medians. `added_latency` has a queue at a replica that is not chosen, so that each request's length is predicted;
`added_latency_idle` has none.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.bench.harness import Figure, Row, Settings, median, percentile
from tests.bench.workload import Prompt, load
from tests.cluster.gateway.envoy import Envoy
from tests.picker.envoy_before import HOST, envoy_before, routed
from tests.picker.paced_replica import LENGTH_HEADER, PIECE_HEADER
from tests.picker.replica_processes import ReplicaProcess, Started, ready, started, until
from tests.tools import encoder as encoders

SYSTEMS: Final = ("round_robin", "least_requests", "picker")
REPLICAS: Final = 4
SLOTS: Final = 4
STEP_SECONDS: Final = 0.010
LOAD: Final = 0.9
WARMUP_SECONDS: Final = 10.0
MEASURED_SECONDS: Final = 40.0
PROBES: Final = 100
# So that clients and Envoy do not take the cores: the first token is a piece of its own.
PIECE_TOKENS: Final = 10
LONGEST_TOKENS: Final = 1000
ANSWER_SECONDS: Final = 300.0
PROMPT_CHARS: Final = 2000


def measure(settings: Settings) -> Iterator[Row]:
    """A row per counted request and per probe."""
    encoder = encoders.setting(encoders.wanted())
    scale = 0.3 if settings.quick else 1.0
    for seed in range(settings.seeds):
        workload = load(settings.dataset, 4000, seed)
        prompts = [Prompt(one.text[:PROMPT_CHARS], min(one.output_tokens, LONGEST_TOKENS)) for one in workload.prompts]
        arrivals = list(poisson(prompts, seed, (WARMUP_SECONDS + MEASURED_SECONDS) * scale))
        order = SYSTEMS if seed % 2 == 0 else SYSTEMS[::-1]
        for system in order:
            common = {"seed": seed, "system": system, "workload": workload.name, "encoder": bool(encoder)}
            with tempfile.TemporaryDirectory(prefix="alise-") as folder, started(Path(folder)) as processes:
                rows = asyncio.run(_run(processes, system, prompts, arrivals, encoder, WARMUP_SECONDS * scale))
            yield from ({**row, **common} for row in rows)


def poisson(prompts: Sequence[Prompt], seed: int, seconds: float) -> Iterator[float]:
    """Moments of arrivals at LOAD of what the slots can serve of these prompts."""
    mean_seconds = sum(prompt.output_tokens for prompt in prompts) / len(prompts) * STEP_SECONDS
    rate, rng, at = LOAD * REPLICAS * SLOTS / mean_seconds, random.Random(seed), 0.0
    while (at := at + rng.expovariate(rate)) < seconds:
        yield at


async def _run(
    processes: Started, system: str, prompts: Sequence[Prompt], arrivals: Sequence[float], encoder: str, warmup_seconds: float
) -> list[Row]:
    replicas = processes.replicas(REPLICAS, slots=SLOTS, step_ms=STEP_SECONDS * 1000, predictor="learned", encoder=encoder)
    picker = processes.picker(replicas) if system == "picker" else None
    await ready(replicas, picker)
    own = "ROUND_ROBIN" if system == "round_robin" else "LEAST_REQUEST"
    resources = routed(replicas, picker.port if picker else None, own_balancing=own)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        with envoy_before(processes.folder, resources) as envoy:
            probes = await _probes(client, envoy, replicas, "idle")
            began = time.monotonic()
            tasks = [asyncio.create_task(_at(client, envoy.url, began, at, prompt)) for at, prompt in zip(arrivals, prompts, strict=False)]
            rows = [row for row in await asyncio.gather(*tasks) if row["at"] >= warmup_seconds]
            await _idle(replicas)
            direct = f"http://{replicas[0].address}"
            blockers = [asyncio.create_task(_ask(client, direct, Prompt("x", 20_000))) for _ in range(2 * SLOTS)]
            if picker is None:
                # Without a picker the replica with the queue is not among Envoy's.
                envoy.update(routed(replicas[1:], None, own_balancing=own))
            await _queued(replicas[0])
            probes += await _probes(client, envoy, replicas, "queue")
            for task in blockers:
                task.cancel()
            await asyncio.gather(*blockers, return_exceptions=True)
            counts = {}
            if picker is not None:
                for outcome in ("ok", "not_needed", "failed"):
                    counts[outcome] = await picker.metric("alise_picker_predictions_total", outcome=outcome)
    return [*rows, *probes, {"kind": "run", "predictions": counts}]


async def _probes(client: aiohttp.ClientSession, envoy: Envoy, replicas: Sequence[ReplicaProcess], when: str) -> list[Row]:
    for _ in range(10):
        await _ask(client, envoy.url, Prompt("What is the tide?", 1))
    rows = []
    for number in range(PROBES):
        row = await _ask(client, envoy.url, Prompt(f"What is the tide? ({number})", 1))
        rows.append({**row, "kind": "probe", "when": when})
    return rows


async def _at(client: aiohttp.ClientSession, url: str, began: float, at: float, prompt: Prompt) -> Row:
    await asyncio.sleep(max(0.0, began + at - time.monotonic()))
    return {**await _ask(client, url, prompt), "kind": "request", "at": at}


async def _ask(client: aiohttp.ClientSession, url: str, prompt: Prompt) -> Row:
    body: dict[str, Any] = {"model": "paced", "messages": [{"role": "user", "content": prompt.text}], "stream": True}
    headers = {**HOST, LENGTH_HEADER: str(prompt.output_tokens), PIECE_HEADER: str(PIECE_TOKENS)}
    began, first = time.monotonic(), 0.0
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with client.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=timeout) as answer:
        async for _ in answer.content:
            first = first or time.monotonic()
        ended = time.monotonic()
    return {
        "status": answer.status, "tokens": prompt.output_tokens, "ttft_seconds": (first or ended) - began, "end_seconds": ended - began,
    }  # fmt: skip


async def _idle(replicas: Sequence[ReplicaProcess]) -> None:
    async def is_idle() -> bool:
        return not any([(await one.load()).levels for one in replicas])

    await until(is_idle, "all answers have ended")


async def _queued(replica: ReplicaProcess) -> None:
    async def has_queue() -> bool:
        return sum(row.samples for row in (await replica.load()).levels) >= 2 * SLOTS

    await until(has_queue, "a replica has a queue")


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Ratios of the 99th percentile of the time to the first token, paired by seed; the added latency; what failed."""
    requests = [row for row in rows if row["kind"] == "request"]
    seeds = sorted({row["seed"] for row in requests})
    name = requests[0]["workload"]

    def p99(system: str, seed: int) -> float:
        return percentile((row["ttft_seconds"] for row in requests if (row["system"], row["seed"]) == (system, seed)), 0.99)

    found = []
    for other, goal in (("round_robin", 0.7), ("least_requests", 0.9)):
        ratios = [p99("picker", seed) / p99(other, seed) for seed in seeds]
        unit = f"ratio [{min(ratios):.2f}–{max(ratios):.2f}]"
        found.append(Figure(f"picker_p99_ttft_vs_{other}_{name}", median(ratios), unit, "lower", goal))
    for system in SYSTEMS:
        found.append(Figure(f"p99_ttft_s_{system}_{name}", median(p99(system, seed) for seed in seeds), "s", "lower"))
        mine = [row["ttft_seconds"] for row in requests if row["system"] == system]
        found.append(Figure(f"mean_ttft_s_{system}_{name}", sum(mine) / len(mine), "s", "lower"))
    for when, label, goal in (("queue", "added_latency_p50_ms", 3.0), ("idle", "added_latency_idle_p50_ms", 3.0)):
        probes = [row for row in rows if row["kind"] == "probe" and row["when"] == when]
        with_picker, without = (
            median(1000 * row["ttft_seconds"] for row in probes if row["system"] == system) for system in ("picker", "least_requests")
        )
        found.append(Figure(label, with_picker - without, "ms", "lower", goal))
    failed = sum(1 for row in requests if row["status"] != 200)
    found.append(Figure("picker_failed_requests", failed, "requests", "lower", 0))
    found.append(Figure("picker_counted_requests", len(requests) / len(SYSTEMS), "requests per system", "higher"))
    return found

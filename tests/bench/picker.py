"""The endpoint picker beside Envoy's own balancing: the same requests at the same moments, one system after the other in each seed.

A real Envoy stands before four replicas. Each has the real API half, the real sidecar with its predictor and encoder, and an EngineCore
that is paced by the clock (`tests/picker/paced_replica.py`): four slots, 10 ms per step, preemption without a cost. Arrivals are a Poisson
process at LOAD of what all slots can serve. Answers are as long as the data set's, which the replica alone knows. All systems start cold
and are warmed by the same requests, which are not counted.

There are two loads. "skewed": a share of the arrivals goes to one replica past Envoy, as it comes from clients inside the cluster or from
a second gateway, and takes most of its slots. Counted are the requests through Envoy. "even": all go through Envoy. LOADS names one.

Runs are kept in bench-results/picker.kept.jsonl, and are not repeated.

The added latency is that of requests to idle replicas, one after the other, with the picker and without it: the difference of the medians.
The time in the picker under load, with the predictions that it asks for, is the median by its own histogram. `make bench-picker` runs it.
"""

import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.bench.harness import RESULTS, Figure, Row, Settings, median, percentile
from tests.bench.workload import Prompt, load
from tests.cluster.gateway.envoy import Envoy
from tests.picker.envoy_before import HOST, envoy_before, routed
from tests.picker.paced_replica import LENGTH_HEADER, PIECE_HEADER
from tests.picker.replica_processes import PickerProcess, Started, ready, started
from tests.tools import encoder as encoders

SYSTEMS: Final = ("round_robin", "least_requests", "picker")
LOADS: Final = ("skewed", "even")
REPLICAS: Final = 4
SLOTS: Final = 4
STEP_SECONDS: Final = 0.010
LOAD: Final = 0.9
# The share of one replica's slots that the requests past Envoy take on average.
PAST_SHARE: Final = 0.75
WARMUP_SECONDS: Final = 10.0
MEASURED_SECONDS: Final = 34.0
PROBES: Final = 60
PROBE_PAUSE_SECONDS: Final = 0.05
# The upper bounds in the picker's histogram, in seconds; the last one counts all.
BUCKETS: Final = ("0.0005", "0.001", "0.002", "0.003", "0.005", "0.01", "0.02", "0.05", "0.1", "0.5", "+Inf")
# So that clients and Envoy do not take the cores: the first token is a piece of its own.
PIECE_TOKENS: Final = 10
LONGEST_TOKENS: Final = 1000
ANSWER_SECONDS: Final = 300.0
PROMPT_CHARS: Final = 2000


def measure(settings: Settings) -> Iterator[Row]:
    """A row per counted request, per probe and per run; those of kept runs come from the file."""
    path = RESULTS / "picker.kept.jsonl"
    held = [] if settings.quick or not path.exists() else list(map(json.loads, path.read_text().splitlines()))
    loads = os.environ.get("LOADS", "").split() or list(LOADS)
    if unknown := [one for one in loads if one not in LOADS]:
        raise SystemExit(f"LOADS={' '.join(unknown)}: expected some of {', '.join(LOADS)}")
    for skew in loads:
        for seed in range(settings.seeds):
            for system in SYSTEMS if seed % 2 == 0 else SYSTEMS[::-1]:
                rows = [row for row in held if (row["skew"], row["seed"], row["system"]) == (skew, seed, system)]
                if not rows:
                    rows = one_run(settings, skew, seed, system)
                    if not settings.quick:
                        with path.open("a") as out:
                            out.writelines(json.dumps(row) + "\n" for row in rows)
                yield from rows


def one_run(settings: Settings, skew: str, seed: int, system: str) -> list[Row]:
    """The rows of one system with the requests of one seed."""
    encoder = encoders.setting(encoders.wanted())
    scale = 0.3 if settings.quick else 1.0
    workload = load(settings.dataset, 6000, seed)
    prompts = [Prompt(one.text[:PROMPT_CHARS], min(one.output_tokens, LONGEST_TOKENS)) for one in workload.prompts]
    sent = plan(prompts, seed, (WARMUP_SECONDS + MEASURED_SECONDS) * scale, PAST_SHARE if skew == "skewed" else 0.0)
    common = {"seed": seed, "system": system, "skew": skew, "workload": f"{skew}_{workload.name}", "encoder": bool(encoder)}
    with tempfile.TemporaryDirectory(prefix="alise-") as folder, started(Path(folder)) as processes:
        rows = asyncio.run(_run(processes, system, sent, encoder, WARMUP_SECONDS * scale))
    return [{**row, **common} for row in rows]


@dataclass(frozen=True, slots=True)
class Sending:
    """A request of the plan: when, what, and whether it goes past Envoy to the first replica."""

    at: float
    prompt: Prompt
    past: bool


def plan(prompts: Sequence[Prompt], seed: int, seconds: float, past_share: float) -> list[Sending]:
    """Arrivals at LOAD of what all slots can serve of these prompts, of which those past Envoy take `past_share` of one replica's slots."""
    mean_seconds = sum(prompt.output_tokens for prompt in prompts) / len(prompts) * STEP_SECONDS
    whole = LOAD * REPLICAS * SLOTS
    rng, at, sent, left = random.Random(seed), 0.0, [], iter(prompts)
    while (at := at + rng.expovariate(whole / mean_seconds)) < seconds:
        sent.append(Sending(at, next(left), rng.random() < past_share * SLOTS / whole))
    return sent


async def _run(processes: Started, system: str, sent: Sequence[Sending], encoder: str, warmup_seconds: float) -> list[Row]:
    replicas = processes.replicas(REPLICAS, slots=SLOTS, step_ms=STEP_SECONDS * 1000, predictor="learned", encoder=encoder)
    picker = processes.picker(replicas) if system == "picker" else None
    await ready(replicas, picker)
    own = "ROUND_ROBIN" if system == "round_robin" else "LEAST_REQUEST"
    resources = routed(replicas, picker.port if picker else None, own_balancing=own)
    # Not on a connection that the server is just closing, which it does after five seconds without a request.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=2.0)) as client:
        with envoy_before(processes.folder, resources) as envoy:
            probes = await _probes(client, envoy)
            before = await _decided(picker)
            began = time.monotonic()
            past = f"http://{replicas[0].address}"
            tasks = [asyncio.create_task(_at(client, past if one.past else envoy.url, began, one)) for one in sent]
            rows = [row for row in await asyncio.gather(*tasks) if row["at"] >= warmup_seconds and not row["past"]]
            after = await _decided(picker)
    decided = {name: after[name] - before[name] for name in after}
    return [*rows, *probes, {"kind": "run", "decided": decided}]


async def _decided(picker: PickerProcess | None) -> dict[str, float]:
    """The picker's counts so far: predictions by outcome, and decisions within each bucket of seconds."""
    if picker is None:
        return {}
    found = {name: await picker.metric("alise_picker_predictions_total", outcome=name) for name in ("ok", "not_needed", "failed")}
    for bound in BUCKETS:
        found[bound] = await picker.metric("alise_picker_decision_seconds_bucket", le=bound)
    return found


def median_ms(decided: Mapping[str, float]) -> float:
    """The median of a histogram, in milliseconds, by a straight line within its bucket."""
    half, low, below = decided[BUCKETS[-1]] / 2, 0.0, 0.0
    for bound in BUCKETS[:-1]:
        if decided[bound] >= half:
            return 1000 * (low + (float(bound) - low) * (half - below) / max(1.0, decided[bound] - below))
        low, below = float(bound), decided[bound]
    return 1000 * low


async def _probes(client: aiohttp.ClientSession, envoy: Envoy) -> list[Row]:
    """Requests for one token, with pauses in which a report of the load tells the picker that they have ended."""
    rows = []
    for number in range(10 + PROBES):
        row = await _ask(client, envoy.url, Prompt(f"What is the tide? ({number})", 1))
        await asyncio.sleep(PROBE_PAUSE_SECONDS)
        rows.append({**row, "kind": "probe"})
    return rows[10:]


async def _at(client: aiohttp.ClientSession, url: str, began: float, sending: Sending) -> Row:
    await asyncio.sleep(max(0.0, began + sending.at - time.monotonic()))
    return {**await _ask(client, url, sending.prompt), "kind": "request", "at": sending.at, "past": sending.past}


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


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Ratios of the 99th percentile of the time to the first token, and what they are made of, by load; the added latency; failures."""
    found = [figure for name in dict.fromkeys(row["workload"] for row in rows) for figure in _of_load(name, rows)]
    seeds = sorted({row["seed"] for row in rows})

    def probed(system: str, seed: int) -> float:
        mine = (row for row in rows if (row["kind"], row["system"], row["seed"]) == ("probe", system, seed))
        return median(1000 * row["ttft_seconds"] for row in mine)

    added = [probed("picker", seed) - probed("least_requests", seed) for seed in seeds]
    found.append(Figure("picker_added_latency_p50_ms", median(added), f"ms {_spread(added)}", "lower", 3.0))
    requests = [row for row in rows if row["kind"] == "request"]
    found.append(Figure("picker_failed_requests", sum(row["status"] != 200 for row in requests), "requests", "lower", 0))
    return found


def _of_load(name: str, all_rows: Sequence[Row]) -> list[Figure]:
    """The median over seeds of what is paired by seed, and the 99th percentile of all seeds' requests together."""
    rows = [row for row in all_rows if row["workload"] == name]
    seeds = sorted({row["seed"] for row in rows})
    waits = {
        (system, seed): [row["ttft_seconds"] for row in rows if (row["kind"], row["system"], row["seed"]) == ("request", system, seed)]
        for system in SYSTEMS
        for seed in seeds
    }
    found = []
    for other, goal in (("round_robin", 0.7), ("least_requests", 0.9)):
        ratios = [percentile(waits["picker", seed], 0.99) / percentile(waits[other, seed], 0.99) for seed in seeds]
        goal_here = goal if name.startswith("skewed") else None
        found.append(Figure(f"picker_p99_ttft_vs_{other}_{name}", median(ratios), f"ratio {_spread(ratios)}", "lower", goal_here))
    for system in SYSTEMS:
        pooled = [wait for seed in seeds for wait in waits[system, seed]]
        found.append(Figure(f"p99_ttft_s_{system}_{name}", percentile(pooled, 0.99), "s, all seeds", "lower"))
        found.append(Figure(f"mean_ttft_s_{system}_{name}", sum(pooled) / len(pooled), "s", "lower"))
    runs = [row["decided"] for row in rows if row["kind"] == "run" and row["system"] == "picker"]
    decided = [median_ms(run) for run in runs]
    found.append(Figure(f"picker_decision_p50_ms_{name}", median(decided), f"ms {_spread(decided)}", "lower", 3.0))
    predicted = sum(run["ok"] for run in runs) / max(1.0, sum(run[one] for run in runs for one in ("ok", "not_needed", "failed")))
    found.append(Figure(f"picker_predicted_share_{name}", predicted, "share of requests", "lower"))
    found.append(Figure(f"picker_counted_requests_{name}", sum(map(len, waits.values())) / len(SYSTEMS), "requests per system", "higher"))
    return found


def _spread(values: Sequence[float]) -> str:
    return f"[{min(values):.3g}–{max(values):.3g}]"

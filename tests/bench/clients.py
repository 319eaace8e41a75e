"""Third-party load generators, unmodified, against stock vLLM and alise on an emulated device: `vllm bench serve` and GuideLLM.

`make bench-clients DEVICE=h100-qwen3-32b`. Each client sends its requests at moments of its own Poisson process, at a share of what the
device could serve with its KV memory always full (stock vLLM serves less), and reports what it measured. Both systems get the same
requests at the same moments, and each starts cold at each load. No prompt is sent twice to a server, so that none is in its prefix cache or
in the history.

The clients send no length and no cap on it. The emulated model ends an answer where the data set's real one ended
(tests/emulated/lengths.py), which neither system knows. Times are the device's, as in serving_emulated.py; a client also counts what it
takes itself, on the same cores.
"""

import asyncio
import importlib.metadata
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from tests.bench import clients_guidellm
from tests.bench import serving_simulated as simulated
from tests.bench.clients_tools import CLIENTS, PROMPTS, RESULT, Client, Load, Measured, prompts_file, shown
from tests.bench.harness import Figure, Row, Settings, median
from tests.bench.serving import SYSTEMS, order
from tests.bench.serving_client import open_loop
from tests.bench.serving_emulated import CROWD, DEFAULT_DEVICE, LABELS, MANY
from tests.bench.serving_processes import Running, serving
from tests.bench.workload import Prompt, load
from tests.emulated import launch, lengths, model
from tests.emulated.launch import Emulation, emulation_from
from tests.emulated.pacing import Tally
from tests.tools import encoder as encoders

DATASET: Final = "sharegpt.parquet"
# Tokens per wall second that two cores stream to a client which parses each of them.
CARRIED_TOKENS_PER_SECOND: Final = 2000.0
CLIENT_SECONDS: Final = 7200.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Loads and requests of each client at each of them, how many come before, and the longest answer of both in tokens."""

    loads: tuple[float, ...]
    requests: int
    warmup: int
    longest: int
    longest_warmup: int


# Without long answers, for whose end a short run would mostly wait.
QUICK: Final = Plan((0.9,), 60, 20, 250, 60)
# Half an hour for a seed of ShareGPT on the H100.
FULL: Final = Plan((0.9, 1.1), 600, 150, 100_000, 100_000)


def measure(settings: Settings) -> Iterator[Row]:
    """A row per client, system, load and seed, with what the client reports in the device's seconds."""
    for seed in range(settings.seeds):
        for share in plan_of(settings).loads:
            for place, system in enumerate(order(seed)):
                yield from measure_system(settings, seed, share, place, system)


def plan_of(settings: Settings) -> Plan:
    return QUICK if settings.quick else FULL


def measure_system(settings: Settings, seed: int, share: float, place: int, system: str) -> Iterator[Row]:
    """The rows of all clients of one system, started cold, at a load with the requests of one seed; `place` is its turn there."""
    plan = plan_of(settings)
    name = settings.device or DEFAULT_DEVICE
    encoder = encoders.wanted()
    programs = {"vllm_bench": str(Path(sys.executable).with_name("vllm")), "guidellm": str(clients_guidellm.program())}
    workload = load(settings.dataset, MANY if settings.dataset else 10 * CROWD, seed, DATASET)
    parts = parted(workload.prompts, plan)
    emulation = paced(name, settings.time_scale, [prompt for part in parts[1:] for prompt in part])
    # A client's own requests are its load: two samples of a data set differ by a tenth in what a second of the device can serve of them.
    capacities = [capacity_per_second(prompts, emulation) for prompts in parts[1:]]
    rates = [capacity * share / emulation.device.time_scale for capacity in capacities]
    common = {
        "kind": "client", "profile": name, "seed": seed, "workload": workload.name, "time_scale": emulation.device.time_scale,
        "encoder": encoder is not None, "system": system, "place": place, "load": share, "plan_requests": plan.requests,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="alise-clients-") as folder:
        known = Path(folder) / "lengths.json"
        lengths.write(known, [(prompt.text, prompt.output_tokens) for part in parts for prompt in part])
        with serving(system, encoder, replace(emulation, lengths=known)) as running:
            _warm_up(running, parts[0], min(rates))
            for client, prompts, capacity, rate in zip(CLIENTS, parts[1:], capacities, rates, strict=True):
                wanted = Load(running.url, launch.model_folder(), len(prompts), rate, seed)
                own = {"client": client.name, "capacity_per_second": capacity}
                yield {**common, **own, **_run(running, client, programs[client.label], wanted, prompts, emulation)}


def parted(prompts: Sequence[Prompt], plan: Plan) -> list[list[Prompt]]:
    """Returns the requests of the warm-up and of each client, no text twice; fewer where the data set has fewer."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        if prompt.output_tokens <= plan.longest:
            first.setdefault(prompt.text, prompt)
    warmup = [prompt for prompt in first.values() if prompt.output_tokens <= plan.longest_warmup][: plan.warmup]
    taken = set(warmup)
    own = [prompt for prompt in first.values() if prompt not in taken]
    each = min(plan.requests, len(own) // len(CLIENTS))
    if each < 1:
        raise ValueError(f"the data set has {len(first)} different prompts of short answers, too few for {len(CLIENTS)} clients")
    return [warmup, *(own[number * each : (number + 1) * each] for number in range(len(CLIENTS)))]


def paced(name: str, time_scale: str, prompts: Sequence[Prompt]) -> Emulation:
    """Returns the device at the pace that is asked for, or else at one that the cores can carry."""
    emulation = emulation_from(name, time_scale)
    if time_scale:
        return emulation
    tokens = capacity_per_second(prompts, emulation) * sum(prompt.output_tokens for prompt in prompts) / len(prompts)
    return emulation_from(name, str(max(1, math.ceil(tokens / CARRIED_TOKENS_PER_SECOND))))


def capacity_per_second(prompts: Sequence[Prompt], emulation: Emulation) -> float:
    """Returns how many of such requests the device serves in one of its own seconds with its KV memory always full."""
    inputs = model.prompt_tokens([prompt.text for prompt in prompts])
    sizes = [(tokens, prompt.output_tokens) for tokens, prompt in zip(inputs, prompts, strict=True)]
    return simulated.capacity_per_second(sizes, emulation)


def _warm_up(running: Running, prompts: Sequence[Prompt], per_second: float) -> None:
    arrivals = [number / per_second for number in range(len(prompts))]
    failed = [row["error"] for row in asyncio.run(open_loop(running.url, prompts, arrivals, 0)) if row["error"]]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(prompts)} warm-up requests failed: {failed[0]}")


def _run(running: Running, client: Client, program: str, wanted: Load, prompts: Sequence[Prompt], emulation: Emulation) -> Row:
    arguments, tally = client.arguments(wanted), running.tally()
    with tempfile.TemporaryDirectory(prefix="alise-client-") as folder:
        (Path(folder) / PROMPTS).write_text(prompts_file([prompt.text for prompt in prompts]), encoding="utf-8")
        # What it caches of the prompts goes with the folder.
        environ = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": f"{folder}/cache", "OMP_NUM_THREADS": "1", **client.settings}
        ended = subprocess.run([program, *arguments], cwd=folder, env=environ, capture_output=True, text=True, timeout=CLIENT_SECONDS)
        result = Path(folder) / RESULT
        if ended.returncode or not result.exists():
            raise RuntimeError(f"{client.name} ended with {ended.returncode}:\n{(ended.stdout + ended.stderr)[-3000:]}")
        measured = client.parse(json.loads(result.read_text(encoding="utf-8")))
    return {
        "client_version": version(client), **in_device_seconds(measured, emulation.device.time_scale),
        "late_steps_share": late_share(running.tally().since(tally)), "command": shown(client, program, arguments, wanted),
    }  # fmt: skip


def version(client: Client) -> str:
    """Returns the client's version: the installed vLLM's, or the one in GuideLLM's lock."""
    if client.label == "vllm_bench":
        return importlib.metadata.version("vllm")
    found = re.search(r"^guidellm==(\S+)", clients_guidellm.LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "unknown"


def in_device_seconds(measured: Measured, time_scale: float) -> Row:
    """Returns what a client reports, with its times divided by the scale."""
    times = (*RATIOS, "seconds")
    said = asdict(measured)
    return {**said, **{name: said[name] / time_scale for name in times}, "answers": list(measured.answers)}


def late_share(tally: Tally) -> float:
    return tally.late_steps / max(1, tally.steps)


# --- figures --------------------------------------------------------------------------------------------------------------------------
RATIOS: Final = ("ttft_mean", "tpot_mean", "normalized_mean", "e2e_mean", "e2e_p99")


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Of each client the ratios alise / stock by load, paired by seed; what failed; how many answers differ; late steps."""
    found: list[Figure] = []
    first = rows[0]
    device = str(first["profile"])
    profile = f"{LABELS.get(device, device)}_{first['workload']}"
    for client in CLIENTS:
        own = [row for row in rows if row["client"] == client.name]
        for share in sorted({row["load"] for row in own}):
            at = f"{client.label}_load{round(share * 100):03d}_{profile}"
            pairs = paired([row for row in own if row["load"] == share])
            for metric in RATIOS if pairs else ():
                ratios = [alise[metric] / stock[metric] for stock, alise in pairs]
                unit = f"ratio [{min(ratios):.2f}–{max(ratios):.2f}], {len(ratios)} seeds"
                found.append(Figure(f"client_{metric}_vs_stock_{at}", median(ratios), unit, "lower"))
            late = max((row["late_steps_share"] for row in own if row["load"] == share), default=0.0)
            found.append(Figure(f"client_late_steps_share_{at}", late, "of steps, the worst run", "lower"))
        for system in SYSTEMS:
            failed = sum(row["failed"] for row in own if row["system"] == system)
            found.append(Figure(f"client_failed_requests_{client.label}_{system}_{profile}", failed, "requests", "lower", 0))
        differ = sum(differing(stock, alise) for stock, alise in paired(own))
        found.append(Figure(f"client_answers_differ_{client.label}_{profile}", differ, "answers", "lower", 0))
    return [*found, Figure(f"client_time_scale_{profile}", first["time_scale"], "wall seconds per second of the device", "lower")]


def paired(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Returns the rows of stock and of alise that are of one load and seed."""
    by: dict[tuple[float, int], dict[str, Row]] = {}
    for row in rows:
        by.setdefault((row["load"], row["seed"]), {})[row["system"]] = row
    return [(pair["stock"], pair["alise"]) for pair in by.values() if len(pair) == len(SYSTEMS)]


def differing(stock: Mapping[str, list[str]], alise: Mapping[str, list[str]]) -> int:
    """Returns how many answers of alise stock vLLM did not give, beyond those to requests that failed there."""
    other = (Counter(alise["answers"]) - Counter(stock["answers"])).total()
    return max(0, other - max(0, len(alise["answers"]) - len(stock["answers"])))

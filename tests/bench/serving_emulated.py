"""alise beside stock vLLM on an emulated device: real server, scheduler, plugin and sidecar on the wall clock, the model off these cores.

`make bench-serving DEVICE=h100-qwen3-32b` runs it (`__main__.py`). Requests arrive as a Poisson process at shares of what the device could
serve with its KV memory always full, as in the simulator's benchmarks; stock vLLM serves less. Answers end after as many tokens as the data
set's real ones, which neither system knows. Which system goes first changes from seed to seed, and each starts cold. The same requests,
arrivals and predictions are simulated beside it.

TIME_SCALE wall seconds pass for each of the device's, for both systems (without it, as many as these cores need); latencies are the
device's, CPU seconds are the machine's. `late_steps_share` says whether the cores carried it: the share of steps before which the device
stood idle although requests were decoding, and `unranked_share`: requests that the sidecar did not answer for within its deadline.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from tests.bench import serving_simulated as simulated
from tests.bench.harness import RESULTS, Figure, Row, Settings, median
from tests.bench.serving import SYSTEMS, by_seed, end_ms, mean, normalized_ms, order, p99, poisson, ttft_ms
from tests.bench.serving_client import open_loop
from tests.bench.serving_processes import Running, serving
from tests.bench.workload import Prompt, load
from tests.emulated import model
from tests.emulated.launch import Emulation, emulation_from
from tests.tools import encoder as encoders

DEFAULT_DEVICE: Final = "h100-qwen3-32b"
# Its figures are named in the plan; another device's carry its whole name.
LABELS: Final = {DEFAULT_DEVICE: "h100"}
# Files of a folder of data sets whose requests a device gets; Alpaca's, where it is not here.
FILES: Final = {"rtx4090-llama-8b": "sharegpt.parquet"}
# Tokens per wall second that two cores stream, each to its own client; a quicker device is slowed down to it.
CARRIED_TOKENS_PER_SECOND: Final = 2200.0
WITHIN: Final = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long requests come at each load, in the device's seconds, and how many come before, with answers of at most this many tokens."""

    loads: tuple[float, ...]
    window_seconds: float
    warmup: int
    warmup_tokens: int


QUICK: Final = Plan((0.9,), 12.0, 20, 60)
# A quarter of an hour for a seed of the H100; in less, a KV cache of 30,000 tokens fills but no queue grows.
FULL: Final = Plan((0.9,), 150.0, 150, 100_000)
# Requests of the crowd that the capacity is taken from, and more than are ever sent.
CROWD: Final = 1500
MANY: Final = 100_000


def measure(settings: Settings) -> Iterator[Row]:
    """A row per request, and one per system and load with tokens, CPU time and the device's tally."""
    for seed in range(settings.seeds):
        for place, system in enumerate(order(seed)):
            yield from measure_system(settings, seed, place, system)


def measure_system(settings: Settings, seed: int, place: int, system: str) -> Iterator[Row]:
    """The rows of one system, started cold, at all loads with the requests of one seed; `place` is its turn in the seed."""
    plan = QUICK if settings.quick else FULL
    name = settings.device or DEFAULT_DEVICE
    encoder = encoders.wanted()
    workload = load(settings.dataset, MANY if settings.dataset else 10 * CROWD, seed, FILES.get(name, "alpaca.parquet"))
    emulation, capacity = paced(name, settings.time_scale, workload.prompts[:CROWD])
    parts = parted(workload.prompts, plan, capacity)
    common = {
        "seed": seed, "workload": workload.name, "device": name, "time_scale": emulation.device.time_scale,
        "capacity_per_second": capacity, "encoder": encoder is not None, "window_seconds": plan.window_seconds,
    }  # fmt: skip
    with serving(system, encoder, emulation) as running:
        _warm_up(running, parts[0], capacity / emulation.device.time_scale)
        for number, (share, prompts) in enumerate(zip(plan.loads, parts[1:], strict=True)):
            rate = capacity * share / emulation.device.time_scale
            arrivals = poisson(len(prompts), rate, seed * 100 + number)
            own = {"system": system, "place": place, "load": share, **common}
            first = (number + 1) * MANY
            yield from ({**row, **own} for row in _at_load(running, emulation, system, prompts, arrivals, first))


def parted(prompts: Sequence[Prompt], plan: Plan, capacity: float) -> list[Sequence[Prompt]]:
    """Returns the prompts of the warm-up and of each load, none of them twice; fewer where the data set has fewer."""
    short = [prompt for prompt in prompts if prompt.output_tokens <= plan.warmup_tokens][: plan.warmup]
    taken = set(short)
    others = [prompt for prompt in prompts if prompt not in taken]
    wanted = [round(capacity * share * plan.window_seconds) for share in plan.loads]
    shrunk = min(1.0, len(others) / sum(wanted))
    parts: list[Sequence[Prompt]] = [short]
    begins = 0
    for count in wanted:
        parts.append(others[begins : begins + int(count * shrunk)])
        begins += int(count * shrunk)
    return parts


def paced(name: str, time_scale: str, crowd: Sequence[Prompt]) -> tuple[Emulation, float]:
    """Returns the device at a pace that the cores can carry, and the requests that it serves in one of its own seconds."""
    emulation = emulation_from(name, time_scale)
    inputs = model.prompt_tokens([prompt.text for prompt in crowd])
    sizes = [(tokens, prompt.output_tokens) for tokens, prompt in zip(inputs, crowd, strict=True)]
    capacity = simulated.capacity_per_second(sizes, emulation)
    if not time_scale:
        tokens = capacity * sum(answer for _, answer in sizes) / len(sizes)
        emulation = emulation_from(name, str(max(1, math.ceil(tokens / CARRIED_TOKENS_PER_SECOND))))
    return emulation, capacity


def _warm_up(running: Running, prompts: Sequence[Prompt], per_second: float) -> None:
    arrivals = [number / per_second for number in range(len(prompts))]
    failed = [row["error"] for row in asyncio.run(open_loop(running.url, prompts, arrivals, 0)) if row["error"]]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(prompts)} warm-up requests failed: {failed[0]}")


def _at_load(
    running: Running, emulation: Emulation, system: str, prompts: Sequence[Prompt], arrivals: Sequence[float], first_number: int
) -> Iterator[Row]:
    cpu, tally, began = running.cpu_seconds(), running.tally(), time.monotonic()
    rows = asyncio.run(open_loop(running.url, prompts, arrivals, first_number))
    seconds = time.monotonic() - began
    spent, counted = running.cpu_seconds(), running.tally().since(tally)
    predicted = simulated.predictions(running.requests_log, running.socket_dir) if system == "alise" else None
    ends = simulated.end_seconds(rows, predicted, emulation)
    for row in rows:
        yield {
            "kind": "request", **in_device_seconds(row, emulation), "alone_seconds": alone_seconds(row, emulation),
            "simulated_seconds": ends.get(row["number"]), "ranked": predicted is not None and row["number"] in predicted,
        }  # fmt: skip
    yield {
        "kind": "run", "requests": len(rows), "tokens": sum(row["tokens"] for row in rows),
        "seconds": seconds / emulation.device.time_scale,
        "cpu_seconds": {name: round(spent[name] - cpu[name], 2) for name in spent}, "tally": asdict(counted),
    }  # fmt: skip


def in_device_seconds(row: Row, emulation: Emulation) -> Row:
    """Returns the row with its times divided by the scale."""
    times = ("arrival_seconds", "ttft_seconds", "end_seconds")
    return {**row, **{name: row[name] / emulation.device.time_scale for name in times}}


def alone_seconds(row: Row, emulation: Emulation) -> float:
    """Returns how long the request takes with nothing beside it."""
    cost = simulated.model_of(emulation).cost
    prompt, tokens = int(row["prompt_tokens"]), int(row["tokens"])
    return cost.step(prompt, 0, prompt) + max(0, tokens - 1) * cost.step(0, 1, prompt + tokens / 2)


# --- figures --------------------------------------------------------------------------------------------------------------------------
METRICS: Final = {
    "mean_ttft": (ttft_ms, mean),
    "mean_normalized": (normalized_ms, mean),
    "mean_e2e": (end_ms, mean),
    "p99_e2e": (end_ms, p99),
}
GOALS: Final = {"emulated_mean_ttft_vs_stock_load090_h100": 0.35, "emulated_p99_e2e_vs_stock_load090_h100": 1.05}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Ratios alise / stock by load, medians over seeds; share within ten times; requests that went without a rank; CPU per request; late
    steps; distance to the simulator.
    """
    requests = [row for row in rows if row["kind"] == "request"]
    runs = [row for row in rows if row["kind"] == "run"]
    first = requests[0]
    device = str(first["device"])
    label = LABELS.get(device, device) + ("" if first["workload"] == "alpaca" else f"_{first['workload']}")
    found: list[Figure] = []
    for share in sorted({row["load"] for row in requests}):
        at, here = f"load{round(share * 100):03d}_{label}", [row for row in requests if row["load"] == share]
        for metric, (of_row, take) in METRICS.items():
            ratios = [value["alise"] / value["stock"] for value in by_seed(requests, share, of_row, take)]
            if ratios:
                name = f"emulated_{metric}_vs_stock_{at}"
                unit = f"ratio [{min(ratios):.2f}–{max(ratios):.2f}], {len(ratios)} seeds"
                found.append(Figure(name, median(ratios), unit, "lower", GOALS.get(name)))
        for system in SYSTEMS:
            own = [row for row in here if row["system"] == system]
            found.append(Figure(f"emulated_in10_{system}_{at}", mean([float(within(row)) for row in own]), "share of requests", "higher"))
        unranked = mean([float(not row["ranked"]) for row in here if row["system"] == "alise"])
        found.append(
            Figure(f"emulated_unranked_share_{at}", unranked, "of alise's requests, the sidecar did not answer in time", "lower", 0.01)
        )
        found += _of_runs([row for row in runs if row["load"] == share], at)
    found += _beside_simulator(requests, label)
    found += _cpu(runs, label)
    for system in SYSTEMS:
        failed = sum(1 for row in requests if row["error"] and row["system"] == system)
        found.append(Figure(f"emulated_failed_requests_{system}_{label}", failed, "requests", "lower", 0))
    found.append(Figure(f"emulated_time_scale_{label}", first["time_scale"], "wall seconds per second of the device", "lower"))
    return found


def within(row: Row) -> bool:
    """Whether the answer came within ten times the time that it takes alone; a failed one did not."""
    return not row["error"] and bool(row["end_seconds"] <= WITHIN * row["alone_seconds"])


def _of_runs(runs: Sequence[Row], at: str) -> list[Figure]:
    found = []
    for system in SYSTEMS:
        own = [row for row in runs if row["system"] == system]
        found.append(Figure(f"emulated_tokens_per_s_{system}_{at}", median(r["tokens"] / r["seconds"] for r in own), "tokens/s", "higher"))
        late = median(r["tally"]["late_steps"] / max(1, r["tally"]["steps"]) for r in own)
        idle = median(r["tally"]["late_seconds"] / max(1e-9, r["tally"]["busy_seconds"]) for r in own)
        found.append(Figure(f"late_steps_share_{system}_{at}", late, f"of steps, {idle:.1%} of their time", "lower"))
    return found


def _beside_simulator(requests: Sequence[Row], label: str) -> list[Figure]:
    """How far the mean end-to-end time is from the simulator's, by system and load, and the worst of them."""
    found = []
    for system in SYSTEMS:
        for share in sorted({row["load"] for row in requests}):
            own = [row for row in requests if (row["system"], row["load"]) == (system, share) and row["simulated_seconds"] is not None]
            by: dict[int, list[Row]] = {}
            for row in own:
                by.setdefault(row["seed"], []).append(row)
            if by:
                far = median(distance_pct(one) for one in by.values())
                found.append(
                    Figure(
                        f"sim_vs_emulated_e2e_mean_pct_{system}_load{round(share * 100):03d}_{label}", abs(far), f"% ({far:+.1f})", "lower"
                    )
                )
    if found:
        worst = max(found, key=lambda figure: figure.value)
        found.append(Figure("sim_vs_emulated_e2e_mean_pct", worst.value, f"% {worst.unit[2:]}, worst of {len(found)}", "lower", 5))
    return found


def distance_pct(rows: Sequence[Row]) -> float:
    """Returns how much longer the simulator's mean is than the engine's, in percent."""
    real, modelled = mean([row["end_seconds"] for row in rows]), mean([row["simulated_seconds"] for row in rows])
    return float(100 * (modelled / real - 1))


def _cpu(runs: Sequence[Row], label: str) -> list[Figure]:
    """CPU milliseconds of the machine per request, over all loads of a seed; the API process beside stock's."""
    found = []
    spent = {
        (system, process): median(_per_request(runs, system, process, seed) for seed in sorted({row["seed"] for row in runs}))
        for system in SYSTEMS
        for process in ("sidecar", "api_server", "engine_core")
    }
    for (system, process), milliseconds in spent.items():
        if (system, process) != ("stock", "sidecar"):
            found.append(Figure(f"cpu_ms_per_request_{process}_{system}_{label}", milliseconds, "ms of CPU", "lower"))
    found.append(Figure("sidecar_cpu_ms_per_request", spent["alise", "sidecar"], "ms of CPU", "lower", 6))
    over = spent["alise", "api_server"] - spent["stock", "api_server"]
    return [*found, Figure("api_cpu_ms_over_stock", over, "ms of CPU", "lower", 2.5)]


def _per_request(runs: Sequence[Row], system: str, process: str, seed: int) -> float:
    own = [row for row in runs if (row["system"], row["seed"]) == (system, seed)]
    return 1000 * sum(float(row["cpu_seconds"][process]) for row in own) / sum(int(row["requests"]) for row in own)


def plot(rows: Sequence[Row]) -> list[str]:
    """Mean time to first token, 99th percentile and the share within ten times, over load, both systems, with the band over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    requests = [row for row in rows if row["kind"] == "request"]
    loads = sorted({row["load"] for row in requests})
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), constrained_layout=True)
    panels: Sequence[tuple[str, Callable[[Mapping[str, Any]], float], Callable[[Sequence[float]], float]]] = (
        ("mean time to first token, s", lambda row: float(row["ttft_seconds"]), mean),
        ("p99 end to end, s", lambda row: float(row["end_seconds"]), p99),
        (f"within {WITHIN:.0f} times", lambda row: float(within(dict(row))), mean),
    )
    for axis, (title, of_row, take) in zip(axes, panels, strict=True):
        for system, color in zip(SYSTEMS, ("tab:gray", "tab:blue"), strict=True):
            values = [[seed[system] for seed in by_seed(requests, share, of_row, take)] for share in loads]
            axis.plot(loads, [median(one) for one in values], color=color, marker="o", label=system)
            axis.fill_between(loads, [min(one) for one in values], [max(one) for one in values], color=color, alpha=0.2)
        axis.set_xlabel("load (share of what full KV memory serves)")
        axis.set_title(title)
        axis.set_ylim(bottom=0)
        axis.legend()
    figure.suptitle(f"alise and stock vLLM on an emulated {requests[0]['device']}, {requests[0]['workload']}")
    figure.savefig(RESULTS / "emulated.png", dpi=120)
    plt.close(figure)
    return ["emulated.png"]

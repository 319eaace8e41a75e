"""Autoscaling on predicted work beside a HorizontalPodAutoscaler on queue length and on running requests, in the simulator.

Requests arrive as in a trace of Azure's production, at a multiple of its rate: each arrival of the trace stands for several within ten
seconds. All autoscalers begin with one pod, look every 15 s, and get pods that serve 120 s later. They differ in nothing but the number of
pods and in which of them leave: the same engines, production's scheduler in each, the same gateway. Each is run with several
targets on the requests of one seed. Its target is the one with the fewest GPU hours among those at which nine of ten requests or more are
within ten times their unloaded time, or if there is none, the one at which the most are. The figures are those of this target on the
requests of other seeds.

Runs are kept in bench-results/autoscale.kept.jsonl, and are not repeated. `make bench-autoscale` runs it.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Final, Literal

import numpy as np

from alise_simulator import predictions
from alise_simulator.hardware import engine_model
from alise_simulator.systems import Setup
from alise_simulator.trace import Trace, load_csv
from tests.bench.autoscale_pool import AUTOSCALERS, run
from tests.bench.harness import RESULTS, Figure, Row, Settings

HARDWARE: Final = "h100-qwen3-32b"
# Requests for each arrival of the trace, so that its mean needs four pods in the conversations and two in the code.
TRACES: Final = {"azure2023_conv": 2, "azure2023_code": 4}
TARGETS: Final = {
    "predicted work": (15.0, 60.0, 240.0, 480.0),
    "queue length": (2.0, 5.0, 10.0, 20.0),
    "running requests": (8.0, 12.0, 16.0, 20.0, 22.0),
}
LEAST_IN_TIME: Final = 0.9
SPREAD_SECONDS: Final = 10.0
QUICK_REQUESTS: Final = 3000
OURS: Final = "predicted work"
# As in the other simulations: relative error of the predicted lengths.
SIGMA: Final = 0.8


@dataclass(frozen=True, slots=True)
class Cell:
    trace: str
    autoscaler: str
    target: float
    seed: int


def tuning() -> list[Cell]:
    """The runs with every target, by which each autoscaler's target is chosen."""
    return [Cell(trace, name, target, 0) for trace in TRACES for name, targets in TARGETS.items() for target in targets]


def judging(tuned: Sequence[Row], seeds: int) -> list[Cell]:
    """The runs with the chosen targets, on requests that they were not chosen by; all autoscalers see the same ones."""
    best = {(trace, name): chosen(_of(tuned, trace, name))[0]["target"] for trace in TRACES for name in TARGETS}
    return [Cell(trace, name, best[trace, name], seed) for seed in range(1, seeds + 1) for trace in TRACES for name in TARGETS]


def _of(rows: Sequence[Row], trace: str, name: str) -> list[Row]:
    return [row for row in rows if (row["trace"], row["autoscaler"]) == (trace, name)]


def requests(base: Trace, times: int, seed: int, most: int = 0) -> Trace:
    """The trace with `times` requests for each of its arrivals: itself, and others whose lengths are drawn from the trace."""
    rng = np.random.default_rng([seed, 11])
    base = base.first(most) if most else base
    rows = np.concatenate([np.arange(len(base)), *(rng.permutation(len(base)) for _ in range(times - 1))])
    shifts = [np.zeros(len(base)), *(rng.uniform(0, SPREAD_SECONDS, len(base)) for _ in range(times - 1))]
    arrivals = np.concatenate([base.arrival_seconds + shift for shift in shifts])
    order = np.argsort(arrivals, kind="stable")
    many = base.rows(rows[order])
    return replace(many, arrival_seconds=arrivals[order] - arrivals[order][0])


def measure(settings: Settings) -> Iterator[Row]:
    """A row for each run, kept ones first. Raises SystemExit without the traces."""
    if settings.dataset is None or not all((settings.dataset / f"{name}.csv.gz").exists() for name in TRACES):
        raise SystemExit(f"autoscaling is measured with Azure's arrivals: set DATASET to a folder with {', '.join(TRACES)} (.csv.gz)")
    folder, path = settings.dataset, RESULTS / "autoscale.kept.jsonl"
    held = {} if settings.quick or not path.exists() else {_cell(row): row for row in map(json.loads, path.read_text().splitlines())}
    most = QUICK_REQUESTS if settings.quick else 0

    def made(cell: Cell) -> Row:
        row = held.get(cell)
        if row is None:
            row = measured(folder, cell, most)
            if not settings.quick:
                with path.open("a") as out:
                    out.write(json.dumps(row) + "\n")
        return row

    tuned: list[Row] = []
    for cell in tuning():
        tuned.append(made(cell))
        yield tuned[-1]
    for cell in judging(tuned, 1 if settings.quick else settings.seeds):
        yield made(cell)


def _cell(row: Row) -> Cell:
    return Cell(row["trace"], row["autoscaler"], row["target"], row["seed"])


def measured(folder: Path, cell: Cell, most: int = 0) -> Row:
    """One run."""
    model = engine_model(HARDWARE)
    trace = requests(load_csv(folder / f"{cell.trace}.csv.gz"), TRACES[cell.trace], cell.seed, most)
    setup = Setup(trace, model, predictions.noisy(trace.output_tokens, SIGMA, cell.seed))
    began = time.process_time()
    outcome = run(setup, AUTOSCALERS[cell.autoscaler](cell.target))
    unloaded = model.cost.step(0, 1, 0) + 0.001
    times = outcome.normalized_seconds / unloaded
    return {
        "kind": "autoscale", "trace": cell.trace, "autoscaler": cell.autoscaler, "target": cell.target, "seed": cell.seed,
        "requests": len(trace), "in_10x": float((times <= 10).mean()), "gpu_hours": outcome.pod_hours,
        "most_pods": max(count for _, count in outcome.steps), "steps": len(outcome.steps) - 1,
        "cpu_seconds": time.process_time() - began,
    }  # fmt: skip


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """The share of requests in time per GPU hour over that of the better HorizontalPodAutoscaler, and what it is made of."""
    found: list[Figure] = []
    ratios: list[float] = []
    judged = [row for row in rows if row["seed"] > 0]
    for trace in TRACES:
        best = {name: _of(judged, trace, name) for name in TARGETS}
        short = trace.removeprefix("azure2023_")
        for name, own in best.items():
            label = f"autoscale_{short}_{name.replace(' ', '_')}"
            found += [
                Figure(f"{label}_target", own[0]["target"], "", "lower"),
                *_with_spread(f"{label}_in_10x", [row["in_10x"] for row in own], "share", "higher"),
                *_with_spread(f"{label}_gpu_hours", [row["gpu_hours"] for row in own], "h", "lower"),
                Figure(f"{label}_most_pods", max(row["most_pods"] for row in own), "pods", "lower"),
            ]
        better = max((name for name in TARGETS if name != OURS), key=lambda name: mean(per_hour(best[name])))
        by_seed = [ours / theirs for ours, theirs in zip(per_hour(best[OURS]), per_hour(best[better]), strict=True)]
        found += _with_spread(f"autoscale_{short}_attainment_per_gpu_hour", by_seed, "x", "higher")
        ratios.append(mean(by_seed))
    return [*found, Figure("autoscale_attainment_per_gpu_hour", min(ratios), "x", "higher", 1.15)]


def _with_spread(name: str, values: Sequence[float], unit: str, better: Literal["higher", "lower"]) -> list[Figure]:
    """The mean over seeds, the lowest and the highest."""
    return [
        Figure(name, mean(values), unit, better), Figure(f"{name}_lowest", min(values), unit, better),
        Figure(f"{name}_highest", max(values), unit, better),
    ]  # fmt: skip


def per_hour(rows: Sequence[Row]) -> list[float]:
    """The share of requests in time per GPU hour of each run, by seed."""
    return [float(row["in_10x"]) / float(row["gpu_hours"]) for row in sorted(rows, key=lambda row: int(row["seed"]))]


def chosen(rows: Sequence[Row]) -> list[Row]:
    """The runs with the target that an operator would choose."""
    by_target = {target: [row for row in rows if row["target"] == target] for target in {row["target"] for row in rows}}
    good = [own for own in by_target.values() if mean(row["in_10x"] for row in own) >= LEAST_IN_TIME]
    if good:
        return min(good, key=lambda own: mean(row["gpu_hours"] for row in own))
    return max(by_target.values(), key=lambda own: mean(row["in_10x"] for row in own))

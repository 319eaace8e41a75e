"""Who goes first, and what it is worth: policies on traces, in the simulator, at loads from idle to far too much.

Policies of ours see predictions: `real` (the sidecar's learned predictor, asked before it learns each answer, in the data set's order; of
Alpaca the last 5,000 rows count, of ShareGPT the last half; with the encoder unless ALISE_ENCODER is `none`, which rows and figures say;
of traces without texts it hears the prompt's length alone), `noise` (the truth times lognormal noise, sigma 0.8) and `oracle`. Baselines
are stock vLLM's two orders, a skip-join feedback queue, and shortest remaining first with true lengths and no ageing (`srpt`), which is
what the gain is measured against. Every policy sees the same arrivals: seeds are paired. Besides: what a decision costs, how fast the
simulator is, how it agrees with the real engine, and what one tenant's flood does to another. Tables and plots are in
bench-results/policies/. `make bench-policies` runs it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Final

import numpy as np

from alise_scheduler.core.decide import decide
from alise_scheduler.core.job import Snapshot
from alise_scheduler.core.lengths import Floats
from alise_scheduler.core.rank import POLICIES, Policy
from alise_scheduler.core.reports import Phase
from alise_simulator import predictions
from alise_simulator.model import DEFAULT_SHAPE, EngineModel
from alise_simulator.report import summary
from alise_simulator.run import simulate
from alise_simulator.systems import Setup, core_driver, driver_named, policy_named
from alise_simulator.trace import at_load, heavy_tail, poisson
from tests.bench import policies_flood, policies_report
from tests.bench.harness import RESULTS, Figure, Row, Settings, median
from tests.bench.policies_data import Data, arranged, datasets

LOADS: Final = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.3)
QUICK_LOADS: Final = (0.8, 0.9, 0.95)
REQUESTS: Final = 1500
# Sets and loads that goals are about: longer runs of what the goals compare, with the same seeds whatever SEEDS is: p99 over FCFS's differs
# by a tenth from seed to seed.
COUNTED: Final = ("alpaca", "sharegpt")
GOAL_LOADS: Final = (0.8, 0.9, 0.95)
GOAL_SEEDS: Final = range(1, 13)
GOAL_REQUESTS: Final = 4000
NOISE: Final = 0.8
SIZES: Final = (10, 100, 1000, 10_000, 100_000)
BASELINES: Final = ("vllm-fcfs", "vllm-priority", "mlfq", "srpt")
MODEL: Final = EngineModel()


def measure(settings: Settings) -> Iterator[Row]:
    """What decisions cost first, then the sweep, data set by data set, seed by seed."""
    yield from _decide_rows(settings.quick)
    yield _speed_row()
    yield {"kind": "rss", "mib": core_rss_mib()}
    sets = list(datasets(settings))
    for data in () if settings.quick else sets:
        for load, seed in product(GOAL_LOADS, GOAL_SEEDS) if data.trace.name in COUNTED else ():
            yield from _runs(data, load, seed, settings.quick, goals_only=True)
    yield from _engine_rows(settings)
    yield from policies_flood.measure(settings)
    for seed in range(settings.seeds):
        for data in sets:
            for load in QUICK_LOADS if settings.quick else LOADS:
                yield from _runs(data, load, seed, settings.quick)


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Figures from the rows; writes tables and plots beside them."""
    runs = [row for row in rows if row["kind"] == "run"]
    default = Policy().name
    swept = [row for row in runs if not row["goal"]]
    policies_report.write(swept, RESULTS / "policies", default)
    made: list[Figure] = []
    for name in dict.fromkeys(row["data"] for row in swept):
        runs = [row for row in rows if row["kind"] == "run" and row["goal"] and row["data"] == name] or swept
        known = {row["predictions"] for row in runs if row["data"] == name}
        told = "real" if "real" in known else "noise"
        said = f"{told} predictions{seen(row for row in runs if (row['data'], row['predictions']) == (name, told))}"
        for load, suffix, aim in ((0.95, "", 0.85), (0.9, "_load90", 0.80)):
            goal = aim if name in COUNTED else None
            kept = gain_kept(runs, name, load, default, told)
            made.append(Figure(f"oracle_gain_kept_{name}{suffix}", kept, f"of srpt's, {said}", "higher", goal))
        for load, suffix, aim in ((0.9, "", 1.10), (0.8, "_load80", 1.03)):
            goal = aim if name in COUNTED else None
            ratio = tail_ratio(runs, name, load, default, told)
            made.append(Figure(f"p99_e2e_vs_fcfs_{name}{suffix}", ratio, f"ratio, {said}", "lower", goal))
    took = {row["jobs"]: row["ms"] for row in rows if row["kind"] == "decide"}
    made.append(Figure("decide_1000_ms", took[1000], "ms of CPU", "lower", 1.0))
    # n log n, and what caches make of it.
    most = max(took)
    if most > 1000:
        times, allowed = took[most] / took[1000], most * np.log(most) / (1000 * np.log(1000))
        made.append(Figure(f"decide_{most}_vs_1000", times, f"times, for {most // 1000} times the jobs", "lower", round(float(allowed), 1)))
    speeds = [row["requests_per_minute"] for row in rows if row["kind"] == "speed"]
    made.append(Figure("sim_requests_per_minute", speeds[0], "requests a minute", "higher", 200_000))
    made.append(Figure("core_rss_mib", next(row["mib"] for row in rows if row["kind"] == "rss"), "MiB", "lower", 150))
    made += _engine_figures(rows)
    made += policies_flood.figures(rows)
    return made


def seen(rows: Iterable[Row]) -> str:
    """What the predictions of these rows saw of a prompt's meaning, for a figure's unit; of noise there is nothing to say."""
    return next((", with the encoder" if row["encoder"] else ", without an encoder" for row in rows if row["encoder"] is not None), "")


def _mean(runs: Sequence[Row], name: str, load: float, policy: str, told: str, column: str) -> list[float]:
    chosen = [r for r in runs if (r["data"], r["load"], r["policy"], r["predictions"]) == (name, load, policy, told)]
    return [row[column] for row in sorted(chosen, key=lambda row: row["seed"])]


def gain_kept(runs: Sequence[Row], name: str, load: float, policy: str, told: str) -> float:
    """Share of un-aged SRPT's gain over FCFS in mean normalized latency that a policy has."""
    column = "normalized_mean_seconds"
    fcfs, srpt, ours = (
        float(np.mean(_mean(runs, name, load, *who, column))) for who in (("vllm-fcfs", "none"), ("srpt", "oracle"), (policy, told))
    )
    return (fcfs - ours) / (fcfs - srpt)


def tail_ratio(runs: Sequence[Row], name: str, load: float, policy: str, told: str) -> float:
    """p99 end-to-end over FCFS's, the mean over paired seeds."""
    ours, fcfs = (_mean(runs, name, load, *who, "e2e_p99_seconds") for who in ((policy, told), ("vllm-fcfs", "none")))
    return float(np.mean([one / other for one, other in zip(ours, fcfs, strict=True)]))


# --- the sweep ------------------------------------------------------------------------------------------------------------------------


def _runs(data: Data, load: float, seed: int, quick: bool, goals_only: bool = False) -> Iterator[Row]:
    trace, rows = arranged(data.trace, GOAL_REQUESTS if goals_only else REQUESTS, seed)
    trace = at_load(trace, load, MODEL)
    told: dict[str, Floats] = {
        "noise": predictions.noisy(trace.output_tokens, NOISE, seed), "oracle": predictions.oracle(trace.output_tokens),
    }  # fmt: skip
    if data.real is not None:
        told = {"real": data.real[rows], **told}
    best = next(iter(told))
    plans = [(name, {"vllm-fcfs": "none", "mlfq": "none", "srpt": "oracle"}.get(name, best)) for name in BASELINES]
    ours = [Policy().name, "alise"] if quick else list(POLICIES)
    plans += [(name, kind) for name in ours if name != "fcfs" for kind in told]
    if goals_only:
        plans = [("vllm-fcfs", "none"), ("srpt", "oracle"), (Policy().name, best)]
    for name, kind in plans:
        setup = Setup(trace, MODEL, told.get(kind, told[best]))
        began = time.process_time()
        outcome = simulate(trace, MODEL, driver_named(name, setup))
        yield {
            "kind": "run", "data": data.trace.name, "load": load, "policy": name, "predictions": kind, "seed": seed, "goal": goals_only,
            "encoder": data.encoder if kind == "real" else None, "cpu_seconds": time.process_time() - began, **summary(outcome),
        }  # fmt: skip


# --- what it costs --------------------------------------------------------------------------------------------------------------------


def _decide_rows(quick: bool) -> Iterator[Row]:
    for jobs in SIZES[:3] if quick else SIZES:
        yield {"kind": "decide", "jobs": jobs, "ms": decide_ms(jobs, repeats=max(5, min(200, 100_000 // jobs)))}


def decide_ms(jobs: int, repeats: int) -> float:
    """Median milliseconds of CPU of a decision, a plan apart from the one before it."""
    snapshot = live_jobs(jobs, seed=1)
    policy = policy_named(Policy().name)
    first = decide(snapshot, policy)
    later = replace(
        snapshot, age_seconds=snapshot.age_seconds + 0.1, sent=np.stack([first.ranks.level, first.ranks.order, first.ranks.ewt_ms])
    )
    took = []
    for _ in range(repeats):
        began = time.process_time()
        decide(later, policy, first.limits)
        took.append(time.process_time() - began)
    return median(took) * 1e3


def live_jobs(jobs: int, seed: int) -> Snapshot:
    """A snapshot of `jobs` jobs, 256 of them running."""
    rng = np.random.default_rng(seed)
    running = np.arange(jobs) < 256
    generated = np.where(running, rng.integers(1, 300, jobs), 0).astype(np.float64)
    prompt = rng.integers(10, 2000, jobs).astype(np.float64)
    outputs = np.clip(rng.lognormal(np.log(120), 1.0, jobs), 1, 4000).astype(np.int64)
    age = np.sort(rng.uniform(0, 60, jobs))[::-1].copy()
    none = np.zeros(jobs)
    return Snapshot(
        jobs=tuple(f"job-{number}" for number in range(jobs)), rankable=np.ones(jobs, dtype=np.bool_),
        phase=np.where(running, Phase.RUNNING, Phase.WAITING).astype(np.int64), order=np.arange(1, jobs + 1), weight=np.ones(jobs),
        tenant=np.arange(jobs) % 4, lengths=predictions.noisy(outputs, NOISE, seed), limit_tokens=np.full(jobs, 4096.0),
        samples=np.ones(jobs), prompt_tokens=prompt, generated_tokens=generated, device_tokens=np.where(running, prompt + generated, 0.0),
        host_tokens=none, host_bytes=none, waiting_seconds=np.where(running, 0.0, age), age_seconds=age,
        engine=replace(DEFAULT_SHAPE, max_num_seqs=256), cost=MODEL.known_cost(500.0), neutral_seconds=2.0,
        sent=np.zeros((3, jobs), dtype=np.int64),
    )  # fmt: skip


def _speed_row() -> Row:
    """One replica, load 0.9, 32 slots, the default policy."""
    trace = at_load(replace(heavy_tail(10_000, 3), arrival_seconds=poisson(10_000, np.random.default_rng(3))), 0.9, MODEL)
    setup = Setup(trace, MODEL, predictions.noisy(trace.output_tokens, NOISE, 3))
    began = time.process_time()
    simulate(trace, MODEL, core_driver(setup, Policy()))
    return {"kind": "speed", "requests_per_minute": len(trace) / (time.process_time() - began) * 60}


def _engine_rows(settings: Settings) -> Iterator[Row]:
    """The whole loop on the real engine, in a process of its own: vLLM stays in memory otherwise."""
    command = [sys.executable, "-m", "tests.bench.policies_engine", "60" if settings.quick else "500", str(settings.seeds)]
    named = {} if settings.dataset is None else {"DATASET": str(settings.dataset)}
    env = {key: value for key, value in os.environ.items() if key not in ("DATASET", "ALISE_DATA")} | named
    said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=3600)
    if said.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {said.returncode}: {said.stderr[-2000:]}")
    for line in said.stdout.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _engine_figures(rows: Sequence[Row]) -> list[Figure]:
    own = [row for row in rows if row["kind"] == "engine"]
    by = {(row["where"], row["policy"], row["seed"]): row for row in own}
    seeds = sorted({row["seed"] for row in own})
    default, made = Policy().name, []
    for policy in ("fcfs", default):
        for column, label in (("e2e_mean_seconds", "mean"), ("e2e_p99_seconds", "p99")):
            off = [100 * abs(by["simulator", policy, seed][column] / by["engine", policy, seed][column] - 1) for seed in seeds]
            made.append(Figure(f"sim_vs_engine_{label}_{policy}", max(off), "% off, worst seed", "lower", 10.0))
    column, data = "normalized_mean_seconds", own[0]["data"]
    ratios = [by["engine", default, seed][column] / by["engine", "fcfs", seed][column] for seed in seeds]
    unit = f"ratio, cold predictor{seen(own)}"
    made.append(Figure(f"real_engine_norm_vs_fcfs_{data}", float(np.mean(ratios)), unit, "lower", 0.8))
    made.append(Figure(f"real_engine_norm_vs_fcfs_{data}_worst_seed", max(ratios), unit, "lower"))
    for clock in ("wall", "cpu"):
        for key, label in (("median_error", "cost_model_error"), ("frozen_median_error", "cost_model_frozen_error")):
            worst = max(row[key] for row in rows if row["kind"] == "cost" and row["clock"] == clock)
            made.append(Figure(f"{label}_{clock}", 100 * worst, "% median, worst seed", "lower", 25.0))
    return made


def core_rss_mib() -> float:
    """Memory of a process that has the core alone and has decided for a thousand jobs a hundred times."""
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.bench.policies_core import decide_often\ndecide_often(1000, 100)\n"
        # Not getrusage: that knows of the parent's pages from before the exec.
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return int(said.stdout.split()[-1]) / 1024

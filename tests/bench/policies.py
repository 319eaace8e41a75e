"""Who goes first, and what it is worth: policies on traces, in the simulator, at loads from idle to far too much.

Policies of ours see predictions: `real` (the sidecar's learned predictor asked before it is told, over the data set in its order; of
Alpaca the last 5,000 rows count, of ShareGPT the last half), `noise` (the truth times lognormal noise, sigma 0.8) and `oracle`.
Baselines are stock vLLM's two orders, a skip-join feedback queue, and shortest remaining first with true lengths and no ageing (`srpt`),
which is what the gain is measured against. Every policy sees the same arrivals: seeds are paired. Besides: what a decision costs, how
fast the simulator is, and what one tenant's flood does to another. Tables and plots are in bench-results/policies/.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from alise_scheduler.core.decide import decide
from alise_scheduler.core.job import Snapshot
from alise_scheduler.core.lengths import Floats
from alise_scheduler.core.rank import POLICIES, Policy
from alise_scheduler.core.reports import Phase
from alise_scheduler.predictor.encoder import OnnxEncoder
from alise_scheduler.predictor.features import extract
from alise_scheduler.simulate import Setup, core_mind, mind_named, policy_named
from alise_scheduler.simulation import predictions
from alise_scheduler.simulation.model import DEFAULT_SHAPE, EngineModel
from alise_scheduler.simulation.report import summary
from alise_scheduler.simulation.run import simulate
from alise_scheduler.simulation.trace import Trace, at_load, heavy_tail, load_csv, make_trace, poisson
from tests.bench import policies_report, predictor
from tests.bench.harness import RESULTS, Figure, Row, Settings, median

LOADS: Final = (0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.3)
QUICK_LOADS: Final = (0.8, 0.9, 0.95)
REQUESTS: Final = 5000
QUICK_REQUESTS: Final = 1500
NOISE: Final = 0.8
SIZES: Final = (10, 100, 1000, 10_000, 100_000)
BASELINES: Final = ("vllm-fcfs", "vllm-priority", "mlfq", "srpt")
# ShareGPT counts word pieces and words; a LLaMA tokenizer makes so many tokens of one.
_TOKENS_PER_PIECE: Final = 1.176
MODEL: Final = EngineModel()


@dataclass(frozen=True, slots=True)
class Data:
    """Requests with arrivals of any pace, and what the real predictor said of them where it could be asked."""

    trace: Trace
    real: Floats | None


def measure(settings: Settings) -> Iterator[Row]:
    """What decisions cost first, then the sweep, data set by data set, seed by seed."""
    yield from _decide_rows(settings.quick)
    yield _speed_row()
    yield {"kind": "rss", "mib": core_rss_mib()}
    yield from _engine_rows(settings)
    yield from _flood_rows(settings)
    for data in _datasets(settings):
        for seed in range(settings.seeds):
            for load in QUICK_LOADS if settings.quick else LOADS:
                yield from _runs(data, load, seed, settings.quick)


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Figures from the rows; writes tables and plots beside them."""
    runs = [row for row in rows if row["kind"] == "run"]
    policies_report.write(runs, RESULTS / "policies")
    default = Policy().name
    made: list[Figure] = []
    for name in dict.fromkeys(row["data"] for row in runs):
        known = {row["predictions"] for row in runs if row["data"] == name}
        told = "real" if "real" in known else "noise"
        for load, suffix, goal in ((0.95, "", 0.85), (0.9, "_load90", 0.80)):
            kept = gain_kept(runs, name, load, default, told)
            made.append(Figure(f"oracle_gain_kept_{name}{suffix}", kept, f"of srpt's, {told} predictions", "higher", goal))
        for load, suffix, goal in ((0.9, "", 1.10), (0.8, "_load80", 1.03)):
            ratio = tail_ratio(runs, name, load, default, told)
            made.append(Figure(f"p99_e2e_vs_fcfs_{name}{suffix}", ratio, f"ratio, {told} predictions", "lower", goal))
    took = {row["jobs"]: row["ms"] for row in rows if row["kind"] == "decide"}
    made.append(Figure("decide_1000_ms", took[1000], "ms", "lower", 1.0))
    made.append(Figure("decide_100000_vs_1000", took[max(took)] / took[1000], f"times, for {max(took) // 1000} times the jobs", "lower"))
    speeds = [row["requests_per_minute"] for row in rows if row["kind"] == "speed"]
    made.append(Figure("sim_requests_per_minute", speeds[0], "requests a minute", "higher", 200_000))
    made.append(Figure("core_rss_mib", next(row["mib"] for row in rows if row["kind"] == "rss"), "MiB", "lower", 150))
    made += _engine_figures(rows)
    flood = [row for row in rows if row["kind"] == "flood"]
    for name in (default, "vllm-fcfs"):
        ratios = [row["flooded_seconds"] / row["calm_seconds"] for row in flood if row["policy"] == name]
        label = "flood_quiet_p99_ttft" if name == default else "flood_quiet_p99_ttft_fcfs"
        made.append(Figure(label, float(np.mean(ratios)), "times a calm day's", "lower", 2.0 if name == default else None))
    return made


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


def _runs(data: Data, load: float, seed: int, quick: bool) -> Iterator[Row]:
    count = QUICK_REQUESTS if quick else REQUESTS
    trace, rows = _arranged(data.trace, count, seed)
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
    for name, kind in plans:
        setup = Setup(trace, MODEL, told.get(kind, told[best]))
        began = time.process_time()
        outcome = simulate(trace, MODEL, mind_named(name, setup))
        yield {
            "kind": "run", "data": data.trace.name, "load": load, "policy": name, "predictions": kind, "seed": seed,
            "cpu_seconds": time.process_time() - began, **summary(outcome),
        }  # fmt: skip


def _arranged(trace: Trace, count: int, seed: int) -> tuple[Trace, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """For this seed: a window of a trace with arrivals of its own; another order at Poisson times of data without."""
    rng = np.random.default_rng([seed, 2])
    if trace.arrival_seconds[-1] > 0:
        start = int(rng.integers(max(1, len(trace) - count + 1)))
        rows = np.arange(start, min(start + count, len(trace)))
        window = trace.rows(rows)
        return replace(window, arrival_seconds=window.arrival_seconds - window.arrival_seconds[0]), rows
    rows = rng.permutation(len(trace))[:count]
    return replace(trace.rows(rows), arrival_seconds=poisson(len(rows), rng)), rows


def _datasets(settings: Settings) -> Iterator[Data]:
    folder = settings.dataset
    if folder is not None and folder.is_dir():
        for name in ("alpaca", "sharegpt"):
            yield _answered(folder / f"{name}.parquet", settings.quick)
        if not settings.quick:
            for name in ("azure2023_conv", "azure2023_code", "mooncake_conversation"):
                trace = load_csv(folder / f"{name}.csv.gz")
                fits = trace.input_tokens + trace.output_tokens < DEFAULT_SHAPE.max_model_len
                yield Data(trace.rows(fits.nonzero()[0]), None)
    elif folder is not None:
        yield _answered(folder, settings.quick) if folder.suffix == ".parquet" else Data(load_csv(folder), None)
    if folder is None or not settings.quick:
        yield Data(replace(heavy_tail(20_000, 11), arrival_seconds=np.zeros(20_000)), None)


def _answered(path: Path, quick: bool) -> Data:
    """A data set of prompts and answers: the rows that count, with the prediction each had before its answer was known."""
    examples = predictor.read(path)[: predictor.QUICK_ROWS * 2] if quick else predictor.read(path)
    first = len(examples) - min(predictor.COUNTED, len(examples) // 2)
    real = _predicted(path, examples)
    counted = examples[first:]
    scale = _TOKENS_PER_PIECE if counted[0].group else 1.0
    outputs = np.maximum(1, np.rint(np.array([example.tokens for example in counted]) * scale)).astype(np.int64)
    inputs = np.array([max(1, (len(example.text) + example.earlier_chars) // 4) for example in counted])
    trace = make_trace(path.stem, np.zeros(len(counted)), inputs, outputs)
    return Data(trace, np.clip(real[first:] * scale, 1.0, None))


def _predicted(path: Path, examples: Sequence[predictor.Example]) -> Floats:
    """Quantiles of every row. Kept in bench-results/, because training takes minutes."""
    folder = os.environ.get("ALISE_ENCODER", "")
    encoder = OnnxEncoder(Path(folder)) if folder else None
    kept = RESULTS / f"policies.{path.stem}.{len(examples)}{'' if encoder is None else '.encoder'}.npz"
    if not kept.exists():
        vectors = encoder.encode([example.text for example in examples]) if encoder else [None] * len(examples)
        features = [extract(predictor.question(e, v), b"bench") for e, v in zip(examples, vectors, strict=True)]
        lengths = predictor.prequential(examples, features, predictor.Learned())
        np.savez(kept, quantiles=np.array([answer.tokens for answer in lengths]))
    found: Floats = np.load(kept)["quantiles"]
    return found


# --- tenants --------------------------------------------------------------------------------------------------------------------------


def _flood_rows(settings: Settings) -> Iterator[Row]:
    """A quiet tenant beside three others at a load of 0.8; then one of those sends a hundred times what the quiet one sends."""
    quiet_requests = 60 if settings.quick else 150
    for seed in range(settings.seeds):
        calm, flooded = (_flood_trace(quiet_requests, loud, seed) for loud in (0.25, 5.0))
        for name in ("vllm-fcfs", Policy().name):
            p99 = []
            for trace in (calm, flooded):
                setup = Setup(trace, MODEL, predictions.noisy(trace.output_tokens, NOISE, seed))
                outcome = simulate(trace, MODEL, mind_named(name, setup))
                p99.append(float(np.quantile(outcome.ttft_seconds[outcome.tenant == 0], 0.99)))
            yield {"kind": "flood", "policy": name, "seed": seed, "calm_seconds": p99[0], "flooded_seconds": p99[1]}


def _flood_trace(quiet_requests: int, loud: float, seed: int) -> Trace:
    loads = (0.05, loud, 0.25, 0.25)
    span = 0.0
    parts: list[Trace] = []
    for number, load in enumerate(loads):
        count = round(quiet_requests * load / loads[0])
        part = at_load(heavy_tail(count, 100 * seed + number), load, MODEL)
        span = span or float(part.arrival_seconds[-1])
        parts.append(part.rows((part.arrival_seconds <= span).nonzero()[0]))
    tenant = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    arrivals = np.concatenate([part.arrival_seconds for part in parts])
    # In which order long prompts are prefilled is the engine's business: here they fit into a step.
    inputs = np.minimum(np.concatenate([part.input_tokens for part in parts]), 1024)
    return make_trace("flood", arrivals, inputs, np.concatenate([part.output_tokens for part in parts]), tenant)


# --- what it costs --------------------------------------------------------------------------------------------------------------------


def _decide_rows(quick: bool) -> Iterator[Row]:
    for jobs in SIZES[:3] if quick else SIZES:
        yield {"kind": "decide", "jobs": jobs, "ms": decide_ms(jobs, repeats=max(5, min(200, 100_000 // jobs)))}


def decide_ms(jobs: int, repeats: int) -> float:
    """Median milliseconds of a decision, a plan apart from the one before it."""
    snapshot = live_jobs(jobs, seed=1)
    policy = policy_named(Policy().name)
    first = decide(snapshot, policy)
    later = replace(
        snapshot, at=0.1, age_seconds=snapshot.age_seconds + 0.1, sent=np.stack([first.ranks.level, first.ranks.order, first.ranks.ewt_ms])
    )
    took = []
    for _ in range(repeats):
        began = time.perf_counter()
        decide(later, policy, first.limits)
        took.append(time.perf_counter() - began)
    return median(took) * 1e3


def live_jobs(jobs: int, seed: int) -> Snapshot:
    """A snapshot of so many jobs, 256 of them running."""
    rng = np.random.default_rng(seed)
    running = np.arange(jobs) < 256
    generated = np.where(running, rng.integers(1, 300, jobs), 0).astype(np.float64)
    prompt = rng.integers(10, 2000, jobs).astype(np.float64)
    outputs = np.clip(rng.lognormal(np.log(120), 1.0, jobs), 1, 4000).astype(np.int64)
    age = np.sort(rng.uniform(0, 60, jobs))[::-1].copy()
    none = np.zeros(jobs)
    return Snapshot(
        at=0.0, jobs=tuple(f"job-{number}" for number in range(jobs)), rankable=np.ones(jobs, dtype=np.bool_),
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
    simulate(trace, MODEL, core_mind(setup, Policy()))
    return {"kind": "speed", "requests_per_minute": len(trace) / (time.process_time() - began) * 60}


def _engine_rows(settings: Settings) -> Iterator[Row]:
    """The whole loop on the real engine, in a process of its own: vLLM stays in memory otherwise."""
    command = [sys.executable, "-m", "tests.bench.policies_engine", "60" if settings.quick else "500"]
    named = {} if settings.dataset is None else {"DATASET": str(settings.dataset)}
    env = {key: value for key, value in os.environ.items() if key not in ("DATASET", "ALISE_DATA")} | named
    said = subprocess.run(command, env=env, capture_output=True, text=True, timeout=3600)
    if said.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {said.returncode}: {said.stderr[-2000:]}")
    for line in said.stdout.splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def _engine_figures(rows: Sequence[Row]) -> list[Figure]:
    by = {(row["where"], row["policy"]): row for row in rows if row["kind"] == "engine"}
    default, made = Policy().name, []
    for policy in ("fcfs", default):
        real, simulated = by["engine", policy], by["simulator", policy]
        for column, label in (("e2e_mean_seconds", "mean"), ("e2e_p99_seconds", "p99")):
            off = 100 * abs(simulated[column] / real[column] - 1)
            made.append(Figure(f"sim_vs_engine_{label}_{policy}", off, "% off", "lower", 10.0))
    column = "normalized_mean_seconds"
    data = by["engine", default]["data"]
    ratio = by["engine", default][column] / by["engine", "fcfs"][column]
    made.append(Figure(f"real_engine_norm_vs_fcfs_{data}", ratio, "ratio, cold predictor", "lower", 0.8))
    for row in rows:
        if row["kind"] == "cost":
            made.append(Figure(f"cost_model_error_{row['clock']}", 100 * row["median_error"], "% median", "lower", 25.0))
    return made


def core_rss_mib() -> float:
    """Memory of a process that has the core alone and has decided for a thousand jobs a hundred times."""
    code = (
        "import resource, sys; sys.path.insert(0, '.')\n"
        "from tests.bench.policies_core import decide_often\ndecide_often(1000, 100)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return int(said.stdout.split()[-1]) / 1024

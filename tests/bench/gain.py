"""What ordering and room gain on hardware that people have: every system on the same simulated engines and the same requests.

Each run is open loop: requests arrive as a Poisson process for ten minutes of the engine's time at a share of what stock vLLM can serve
there with its KV cache in 16 bits, and every one of them is counted until it has ended. Seeds are paired: all systems see the same requests
at the same moments. Predictions are the sidecar's own, learned online from the rows before, on rows that were held out when the predictor
was designed (the last 5,000 of Alpaca, the last half of ShareGPT); `overdue_seconds` and `turn_share` were chosen on them. Where a request
does not fit a device at all, it is left out for all systems.

Runs are kept in bench-results/gain.kept.jsonl and not repeated as long as their engine is the same and a small probe of their system comes
to the same times, so a benchmark that was broken off goes on where it was. JOBS says how many run at once (all cores otherwise).
`make bench-gain` runs it.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np

from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.job import Ints
from alise_scheduler.core.lengths import Floats
from alise_simulator import predictions
from alise_simulator.hardware import engine_model
from alise_simulator.model import DEFAULT_SHAPE, EngineModel
from alise_simulator.run import Outcome, simulate
from alise_simulator.trace import Trace, at_load, capacity_per_second, heavy_tail, poisson
from tests.bench import gain_figures
from tests.bench.gain_systems import ABLATIONS, BESIDE_RATE, MAIN, RULES, UNBOUNDED, Predicted, system
from tests.bench.harness import RESULTS, Figure, Row, Settings, present
from tests.bench.policies_data import Data, answered, shipped

WINDOW_SECONDS: Final = 600.0
QUICK_SECONDS: Final = 120.0
LEAST_SEEDS: Final = 5
# The sets that goals are about, by the name that their figures carry.
SETS: Final = {
    "h100_alpaca": ("h100-qwen3-32b", "alpaca"),
    "h100_sharegpt": ("h100-qwen3-32b", "sharegpt"),
    "slots32_alpaca": ("slots32", "alpaca"),
}
# Profiles beside those, each with the set whose window two cores can simulate.
OTHERS: Final = ("a100-qwen3-8b", "h200-qwen3-8b", "h100x4-llama-70b", "l40s-llama-8b", "rtx4090-llama-8b", "v100-opt-13b")
GOAL_LOADS: Final = (0.7, 0.8, 0.9, 1.0, 1.1)
# Loads between which the rate is looked for at which nine of ten requests are within 5x.
RATE_LOADS: Final = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.3)
RATE8_LOADS: Final = (0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.1)
# Every rule and ablation, where one of these requests takes two cores a while: around the rates of FCFS, of alise, and of what is better.
ALPACA_LOADS: Final = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)
ALPACA_RULE_LOADS: Final = (1.1,)
EQUAL_LOADS: Final = (0.9, 1.1)
OTHER_LOADS: Final = (0.7, 0.9, 1.0, 1.1)
# ShareGPT's prompts with answers of one length, which every system knows: nothing can be gained by order.
EQUAL: Final = "equal"
EQUAL_TOKENS: Final = 256
# Upper bounds of the answers' lengths, in tokens, for the worst waits by length.
BUCKETS: Final = (16, 64, 256, 1024, 1 << 20)
# Requests of the probe.
_PROBED: Final = 800


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a system on an engine, at a load, with one seed's requests."""

    profile: str
    kv_bits: int
    data: str
    load: float
    system: str
    seed: int


def plan(settings: Settings) -> list[Cell]:
    """Every run: quick sets first, so that a look at a part says something of all."""
    seeds = range(1 if settings.quick else max(LEAST_SEEDS, settings.seeds))
    if settings.quick:
        return _cells(SETS["h100_sharegpt"], 16, (0.9, 1.1), MAIN, seeds)
    sharegpt, slots32, alpaca, equal = SETS["h100_sharegpt"], SETS["slots32_alpaca"], SETS["h100_alpaca"], ("h100-qwen3-32b", EQUAL)
    cells = _cells(sharegpt, 16, RATE_LOADS, MAIN, seeds)
    cells += _cells(sharegpt, 8, RATE8_LOADS, MAIN, seeds)
    cells += _cells(equal, 16, EQUAL_LOADS, MAIN, seeds)
    for profile in OTHERS:
        cells += _cells((profile, "sharegpt"), 16, OTHER_LOADS, MAIN, seeds)
    for pair in (slots32, ("slots32", "sharegpt")):
        cells += _cells(pair, 16, GOAL_LOADS, MAIN, seeds)
    cells += _cells(alpaca, 16, RATE_LOADS, MAIN, seeds)
    cells += _cells(sharegpt, 16, RATE_LOADS, (*ABLATIONS, *RULES), seeds)
    cells += _cells(sharegpt, 8, RATE8_LOADS, (*ABLATIONS, UNBOUNDED), seeds)
    for pair in (slots32, ("slots32", "sharegpt")):
        cells += _cells(pair, 16, GOAL_LOADS, (*ABLATIONS, *RULES), seeds)
    for profile in OTHERS:
        cells += _cells((profile, "sharegpt"), 16, OTHER_LOADS, (*ABLATIONS, *RULES), seeds)
    cells += _cells(alpaca, 16, ALPACA_RULE_LOADS, (*ABLATIONS, *RULES), seeds)
    cells += _cells(alpaca, 16, ALPACA_LOADS, BESIDE_RATE, seeds)
    return list(dict.fromkeys(cells))


def _cells(pair: tuple[str, str], bits: int, loads: Sequence[float], systems: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
    profile, data = pair
    return [Cell(profile, bits, data, load, name, seed) for load, seed, name in product(loads, seeds, systems)]


def measure(settings: Settings) -> Iterator[Row]:
    """A row for each run, kept ones first. Raises SystemExit without the data sets."""
    if settings.dataset is None or not settings.dataset.is_dir():
        raise SystemExit(
            "the gain is measured with real prompts and answers: set DATASET to a folder with alpaca.parquet and sharegpt.parquet"
        )
    wanted = measurable(plan(settings), settings.dataset)
    window = QUICK_SECONDS if settings.quick else WINDOW_SECONDS
    digests = {name: _digest(_data(settings.dataset, name)[1].learned) for name in dict.fromkeys(cell.data for cell in wanted)}
    probes = {name: probe(name) for name in dict.fromkeys(cell.system for cell in wanted)}
    path = RESULTS / "gain.kept.jsonl"
    engines = {pair: engine_digest(*pair) for pair in dict.fromkeys((cell.profile, cell.kv_bits) for cell in wanted)}
    held = kept(path, window, probes, digests, engines)
    yield from (held[cell] for cell in wanted if cell in held)
    missing = [cell for cell in wanted if cell not in held]
    with path.open("a") as out, get_context("fork").Pool(int(os.environ.get("JOBS") or os.cpu_count() or 1)) as pool:
        for row in pool.imap(_run, [(settings.dataset, cell, window) for cell in missing]):
            engine = engines[row["profile"], row["kv_bits"]]
            of = {"probe": probes[row["system"]], "predictions": digests[row["data"]], "engine": engine, "window_seconds": window}
            made = {**row, **of}
            out.write(json.dumps(made) + "\n")
            out.flush()
            yield made


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Every figure that has a goal, and what it is made of."""
    return gain_figures.figures(rows, SETS)


def kept(
    path: Path, window: float, probes: Mapping[str, str], digests: Mapping[str, str], engines: Mapping[tuple[str, int], str]
) -> dict[Cell, Row]:
    """The kept runs of these probes, predictions, engines and window."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    own = [
        row for row in rows
        if (row["window_seconds"], row["probe"], row["predictions"]) == (window, probes.get(row["system"]), digests.get(row["data"]))
        and row.get("engine") == engines.get((row["profile"], row["kv_bits"]))
    ]  # fmt: skip
    return {Cell(*(row[name] for name in Cell.__slots__)): row for row in own}


def probe(name: str) -> str:
    """Changes with what the code makes of a system: the times of a few requests on engines that are overloaded for minutes."""
    shape = replace(DEFAULT_SHAPE, max_num_seqs=12, num_device_blocks=160, max_model_len=4096, host_limit_bytes=1 << 30)
    trace = heavy_tail(_PROBED, 5)
    trace = trace.rows((trace.input_tokens + trace.output_tokens < shape.max_model_len).nonzero()[0])
    lengths = predictions.noisy(trace.output_tokens, 0.8, 5)
    times = []
    # In the second engine a full batch is many times slower than a request alone, and in the third one a slot is soon free.
    slow, large = Coefficients(decode_seconds=0.01), replace(shape, max_num_seqs=150, num_device_blocks=2000)
    engines = (EngineModel(shape), EngineModel(shape, slow, async_scheduling=True), EngineModel(large))
    for model, count in zip(engines, (_PROBED, _PROBED // 8, _PROBED), strict=True):
        part = trace.rows(np.arange(min(count, len(trace))))
        busy = at_load(replace(part, arrival_seconds=poisson(len(part), np.random.default_rng(5))), 3.0, model)
        model, driver = system(name, busy, Predicted(lengths[: len(part)], lengths[: len(part)]), model)
        outcome = simulate(busy, model, driver)
        times += [outcome.ttft_seconds, outcome.e2e_seconds]
    return _digest(np.concatenate(times))


def engine_digest(profile: str, kv_bits: int) -> str:
    """Changes with the simulated engine: its step times, KV room, slots, host memory and links."""
    return hashlib.sha256(repr(engine_model(profile, kv_bits)).encode()).hexdigest()[:12]


def _digest(values: Floats) -> str:
    return hashlib.sha256(np.round(values, 6).tobytes()).hexdigest()[:12]


@lru_cache(maxsize=4)
def _data(folder: Path, name: str) -> tuple[Data, Predicted]:
    path = _file(folder, name)
    data = answered(path, False)
    assert data.real is not None
    if name == EQUAL:
        trace = replace(data.trace, output_tokens=np.full_like(data.trace.output_tokens, EQUAL_TOKENS))
        known = predictions.oracle(trace.output_tokens)
        return replace(data, trace=trace, real=known), Predicted(known, known)
    return data, Predicted(data.real, shipped(path))


def measurable(cells: Sequence[Cell], folder: Path) -> list[Cell]:
    """Returns the cells whose data set the folder has, and prints which sets it lacks. Raises SystemExit when it has none."""
    held = present(folder, sorted({_file(folder, cell.data).name for cell in cells}))
    return [cell for cell in cells if _file(folder, cell.data) in held]


def _file(folder: Path, data: str) -> Path:
    return folder / f"{'sharegpt' if data == EQUAL else data}.parquet"


def requests(base: Trace, load: float, seed: int, window: float, model: EngineModel) -> tuple[Trace, Ints]:
    """Requests of a window at this load of `model`, and which rows they are: all that fit, in another order, before any comes again."""
    room = min(model.shape.num_device_blocks * model.shape.block_size - model.shape.block_size, model.shape.max_model_len)
    (fits,) = (base.input_tokens + base.output_tokens <= room).nonzero()
    rng = np.random.default_rng([seed, 7])
    count = max(2, int(rng.poisson(capacity_per_second(base.rows(fits), model) * load * window)))
    times = np.sort(rng.uniform(0, window, count))
    rows: Ints = fits[np.concatenate([rng.permutation(len(fits)) for _ in range(-(-count // len(fits)))])[:count]]
    return replace(base.rows(rows), arrival_seconds=times - times[0]), rows


def _run(job: tuple[Path, Cell, float]) -> Row:
    folder, cell, window = job
    data, predicted = _data(folder, cell.data)
    trace, rows = requests(data.trace, cell.load, cell.seed, window, engine_model(cell.profile))
    began = time.process_time()
    model, driver = system(cell.system, trace, predicted.rows(rows), engine_model(cell.profile, cell.kv_bits))
    outcome = simulate(trace, model, driver)
    return {
        "kind": "gain",
        **{name: getattr(cell, name) for name in Cell.__slots__},
        **counted(outcome, model),
        "cpu_seconds": time.process_time() - began,
    }


def counted(outcome: Outcome, model: EngineModel) -> Row:
    """What one run comes to. A refused request is a miss, and has no latency."""
    unloaded = model.cost.step(0, 1, 0) + 0.001
    served = outcome.served
    times = np.where(served, outcome.normalized_seconds / unloaded, np.inf)
    e2e, ttft, tokens = outcome.e2e_seconds[served], outcome.ttft_seconds[served], outcome.output_tokens
    by_length, lower = [], 0
    for upper in BUCKETS:
        own = e2e[(tokens[served] > lower) & (tokens[served] <= upper)]
        if len(own):
            by_length.append([upper, float(own.max())])
        lower = upper
    span = float((outcome.arrival_seconds[served] + e2e).max())
    return {
        "requests": len(times), "rejected": int((~served).sum()), "in5": float((times < 5).mean()), "in10": float((times < 10).mean()),
        "norm_mean": float(times[served].mean()), "ttft_mean": float(ttft.mean()), "ttft_p99": float(np.quantile(ttft, 0.99)),
        "e2e_mean": float(e2e.mean()), "e2e_p99": float(np.quantile(e2e, 0.99)), "e2e_worst": float(e2e.max()),
        "worst_by_length": by_length, "preemptions": int(outcome.preemptions.sum()), "recomputed_tokens": int(outcome.recomputed_tokens),
        "tokens_per_second": float(tokens[served].sum()) / span,
    }  # fmt: skip

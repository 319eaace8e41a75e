"""What one tenant's flood does to another: a quiet tenant's time to first token beside a calm neighbour, and beside a loud one.

`policies.py` runs it.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from alise_scheduler.core.rank import Policy
from alise_simulator import predictions
from alise_simulator.model import EngineModel
from alise_simulator.run import simulate
from alise_simulator.systems import Setup, driver_named
from alise_simulator.trace import Trace, at_load, heavy_tail, make_trace
from tests.bench.harness import Figure, Row, Settings

# Loads of the quiet tenant, the neighbour (calm, flooding) and two more; the flood is a hundred times what the quiet one sends.
QUIET_LOAD: Final = 0.05
CALM_LOAD: Final = 0.25
FLOOD_LOAD: Final = 100 * QUIET_LOAD
OTHER_LOADS: Final = (0.25, 0.25)
MODEL: Final = EngineModel()
_NOISE: Final = 0.8


def measure(settings: Settings) -> Iterator[Row]:
    """A row per policy, seed and neighbour: every time to first token of the quiet tenant."""
    quiet_requests = 60 if settings.quick else 80
    for seed in range(settings.seeds):
        for kind, load in (("calm", CALM_LOAD), ("flood", FLOOD_LOAD)):
            trace = flood_trace(quiet_requests, load, seed)
            for name in ("vllm-fcfs", Policy().name):
                setup = Setup(trace, MODEL, predictions.noisy(trace.output_tokens, _NOISE, seed))
                outcome = simulate(trace, MODEL, driver_named(name, setup))
                ttft = outcome.ttft_seconds[outcome.tenant == 0]
                yield row("simulator", name, kind, seed, ttft.tolist())


def row(where: str, policy: str, kind: str, seed: int, ttft_seconds: Sequence[float]) -> Row:
    """The quiet tenant's times to first token in one run."""
    rounded = [round(seconds, 6) for seconds in ttft_seconds]
    return {"kind": "flood", "where": where, "policy": policy, "neighbour": kind, "seed": seed, "ttft_seconds": rounded}


def figures(rows: Sequence[Row]) -> list[Figure]:
    """p99 beside a flood over p99 beside a calm neighbour, the requests of all seeds together; and the worst seed's."""
    own = [row for row in rows if row["kind"] == "flood"]
    default, made = Policy().name, []
    for where, suffix in (("simulator", "sim"), ("engine", "engine")):
        if any(row["where"] == where for row in own):
            made.append(Figure(f"flood_p99_ttft_{suffix}", _ratio(own, where, default), "times a calm neighbour's", "lower", 2.0))
            seeds = sorted({row["seed"] for row in own if row["where"] == where})
            worst = max(_ratio([row for row in own if row["seed"] == seed], where, default) for seed in seeds)
            made.append(Figure(f"flood_p99_ttft_{suffix}_worst_seed", worst, "times a calm neighbour's", "lower", 2.0))
    made.append(Figure("flood_p99_ttft_sim_fcfs", _ratio(own, "simulator", "vllm-fcfs"), "times a calm neighbour's", "lower"))
    return made


def _ratio(rows: Sequence[Row], where: str, policy: str) -> float:
    p99 = {
        kind: float(np.quantile([t for r in rows if (r["where"], r["policy"], r["neighbour"]) == (where, policy, kind)
                                 for t in r["ttft_seconds"]], 0.99))
        for kind in ("calm", "flood")
    }  # fmt: skip
    return p99["flood"] / p99["calm"]


def flood_trace(quiet_requests: int, loud: float, seed: int) -> Trace:
    """Tenant 0 is the quiet one, tenant 1 asks for `loud` of the engine's capacity. They stop asking when the quiet one does."""
    loads = (QUIET_LOAD, loud, *OTHER_LOADS)
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

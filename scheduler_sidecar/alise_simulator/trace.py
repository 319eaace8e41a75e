"""Traces: who asks when, with how many tokens in and out. Columns of N rows, sorted by arrival.

CSV files (`.gz` too) have the columns `arrival_s,input_tokens,output_tokens` and may have `tenant`, and `prefix_group` with
`prefix_tokens`: requests of one group begin with the same tokens, and an empty group shares nothing. A load is a share of what the
engine can do with all slots busy, so the same trace can be replayed at any. `run.py` replays them.
"""

import csv
import gzip
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from alise_scheduler.core.job import Ints
from alise_scheduler.core.lengths import Floats

from .model import EngineModel

_COLUMNS: Final = ("arrival_s", "input_tokens", "output_tokens")
_HEAVY_TAIL_REQUESTS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Trace:
    name: str
    arrival_seconds: Floats
    input_tokens: Ints
    output_tokens: Ints
    # Number of the tenant of each request, from 0.
    tenant: Ints
    weight: Floats
    # Requests of one group begin with the same `prefix_tokens`; -1: of no group. Without these columns no request shares anything.
    prefix_group: Ints | None = None
    prefix_tokens: Ints | None = None

    def __len__(self) -> int:
        return len(self.arrival_seconds)

    def first(self, count: int) -> "Trace":
        """The first `count` requests."""
        return self.rows(np.arange(min(count, len(self))))

    def rows(self, rows: Ints) -> "Trace":
        """These requests, in this order, at the times they have."""
        return replace(
            self,
            arrival_seconds=self.arrival_seconds[rows],
            input_tokens=self.input_tokens[rows],
            output_tokens=self.output_tokens[rows],
            tenant=self.tenant[rows],
            weight=self.weight[rows],
            prefix_group=None if self.prefix_group is None else self.prefix_group[rows],
            prefix_tokens=None if self.prefix_tokens is None else self.prefix_tokens[rows],
        )


def make_trace(
    name: str, arrival_seconds: Floats, input_tokens: Ints, output_tokens: Ints, tenant: Ints | None = None,
    prefix_group: Ints | None = None, prefix_tokens: Ints | None = None,
) -> Trace:  # fmt: skip
    """A trace of equal weights, sorted by arrival. Raises ValueError when the columns do not fit together or hold nonsense."""
    n = len(arrival_seconds)
    if not n or len(input_tokens) != n or len(output_tokens) != n or (tenant is not None and len(tenant) != n):
        raise ValueError(f"trace {name} needs equally long, non-empty columns, got {n}, {len(input_tokens)} and {len(output_tokens)} rows")
    if not np.isfinite(arrival_seconds).all():
        raise ValueError(f"trace {name} has arrivals that are no finite numbers of seconds")
    if input_tokens.min() < 1 or output_tokens.min() < 1:
        raise ValueError(f"trace {name} has requests without input or output tokens; leave them out")
    rows = np.argsort(arrival_seconds, kind="stable")
    whose = np.zeros(n, dtype=np.int64) if tenant is None else tenant[rows].astype(np.int64)
    arrivals = arrival_seconds[rows] - arrival_seconds[rows[0]]
    return Trace(
        name, arrivals, input_tokens[rows].astype(np.int64), output_tokens[rows].astype(np.int64), whose, np.ones(n),
        None if prefix_group is None else prefix_group[rows].astype(np.int64),
        None if prefix_tokens is None else prefix_tokens[rows].astype(np.int64),
    )  # fmt: skip


def read_trace(name: str, requests: int, seed: int) -> Trace:
    """The trace in a file, or the synthetic one. Raises ValueError or OSError."""
    if name == "heavy-tail":
        return heavy_tail(requests or _HEAVY_TAIL_REQUESTS, seed)
    trace = load_csv(Path(name))
    return trace.first(requests) if requests else trace


def load_csv(path: Path) -> Trace:
    """Reads a trace. Rows without input or output are left out. Raises ValueError that names the file, line and value."""
    opener = gzip.open if path.suffix == ".gz" else open
    columns: list[tuple[float, int, int]] = []
    tenants: dict[str, int] = {}
    whose: list[int] = []
    groups: dict[str, int] = {"": -1}
    shared: list[tuple[int, int]] = []
    with opener(path, "rt", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = set(_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path} lacks the columns {sorted(missing)}; its first line is {reader.fieldnames}")
        for number, row in enumerate(reader, start=2):
            try:
                values = (float(row["arrival_s"]), int(row["input_tokens"]), int(row["output_tokens"]))
                prefix = int(row.get("prefix_tokens") or 0)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path} line {number}: {row} does not hold three numbers") from error
            if values[1] > 0 and values[2] > 0:
                columns.append(values)
                whose.append(tenants.setdefault(row.get("tenant") or "", len(tenants)))
                shared.append((groups.setdefault(row.get("prefix_group") or "", len(groups)), prefix))
    if not columns:
        raise ValueError(f"{path} has no request with input and output tokens")
    table = np.array(columns)
    prefixes = np.array(shared) if len(groups) > 1 else None
    return make_trace(
        path.name.partition(".")[0], table[:, 0], table[:, 1].astype(np.int64), table[:, 2].astype(np.int64), np.array(whose),
        None if prefixes is None else prefixes[:, 0], None if prefixes is None else prefixes[:, 1],
    )  # fmt: skip


def poisson(count: int, rng: np.random.Generator) -> Floats:
    """Arrivals of a Poisson process of one a second."""
    return np.cumsum(rng.exponential(1.0, count))


def heavy_tail(count: int, seed: int) -> Trace:
    """Poisson arrivals; lognormal outputs (median 90, sigma 1.3, cap 4,096) and inputs (median 200, sigma 1, cap 8,192)."""
    rng = np.random.default_rng(seed)
    outputs = np.clip(rng.lognormal(np.log(90), 1.3, count), 1, 4096).astype(np.int64)
    inputs = np.clip(rng.lognormal(np.log(200), 1.0, count), 1, 8192).astype(np.int64)
    return make_trace("heavy_tail", poisson(count, rng), inputs, outputs)


def capacity_per_second(trace: Trace, model: EngineModel) -> float:
    """Requests a second that the engine does with all slots busy: the mean cost of a request at that batch size."""
    slots, c = model.shape.max_num_seqs, model.cost
    inputs, outputs = trace.input_tokens.astype(np.float64), trace.output_tokens.astype(np.float64)
    # Memory may hold fewer than the slots: then that many run.
    held = float(((inputs + outputs / 2) * outputs).sum() / outputs.sum())
    slots = max(1, min(slots, int(model.shape.num_device_blocks * model.shape.block_size / held)))
    decoding = outputs.sum() * (c.step_seconds / slots + c.decode_seconds)
    context = c.context_seconds * float((outputs * (inputs + outputs / 2)).sum())
    prefill = float(c.prefill_seconds * inputs.sum())
    return len(trace) / (float(decoding) + context + prefill)


def at_load(trace: Trace, load: float, model: EngineModel, replicas: int = 1) -> Trace:
    """The trace with its time stretched so that it asks for `load` of what the replicas can do."""
    span = float(trace.arrival_seconds[-1] - trace.arrival_seconds[0])
    if span <= 0 or load <= 0:
        raise ValueError(f"trace {trace.name} spans {span} s and the load is {load}; both must be above 0")
    rate = load * replicas * capacity_per_second(trace, model)
    return replace(trace, arrival_seconds=trace.arrival_seconds * (len(trace) / rate / span))

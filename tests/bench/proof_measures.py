"""What the report computes from the rows of the simulator's grid: means over seeds, paired ratios, and the highest load served well.

A load is a share of what the device serves while its KV memory is full, with a KV cache of 16 bits. Every function takes
rows of the kind `gain` and returns plain values. `proof_tables.py`, `proof_pictures.py` and `proof_page.py` call it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench.harness import Row
from tests.bench.proof_names import ALISE, FCFS

# A ratio that is closer to 1 than this is no gain, and no loss.
NOTICED: Final = 0.05
# The share of requests that a served load has in time.
ATTAINED: Final = 0.9


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over seeds with the lowest and the highest."""

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True, slots=True)
class Rate:
    """The highest load at which enough requests are in time; `bounded` is false when all measured loads are below it."""

    load: float
    bounded: bool


def spread(values: Iterable[float]) -> Spread:
    """Returns the mean, the lowest and the highest. Raises ValueError without values."""
    found = list(values)
    if not found:
        raise ValueError("no values to take a mean of")
    return Spread(sum(found) / len(found), min(found), max(found), len(found))


def where(rows: Iterable[Row], **wanted: object) -> list[Row]:
    """Returns the rows that have these values."""
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def loads(rows: Iterable[Row]) -> list[float]:
    """Returns the loads, lowest first."""
    return sorted({row["load"] for row in rows})


def sets(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Returns the pairs of profile and data set in the order of their first rows."""
    return list(dict.fromkeys((row["profile"], row["data"]) for row in rows))


def over_load(rows: Iterable[Row], column: str) -> list[tuple[float, Spread]]:
    """Returns the column's spread over seeds at each load, of rows of one system."""
    found = list(rows)
    return [(load, spread(row[column] for row in found if row["load"] == load)) for load in loads(found)]


def ratios(rows: Sequence[Row], column: str, system: str, base: str = FCFS) -> list[tuple[float, Spread]]:
    """Returns at each load the ratio of the system's column to the base's, paired by seed; a load without a pair is left out."""
    found: dict[float, list[float]] = {}
    other = {_pair(row): row[column] for row in rows if row["system"] == base}
    for row in rows:
        below = other.get(_pair(row))
        if row["system"] == system and below:
            found.setdefault(row["load"], []).append(row[column] / below)
    return [(load, spread(found[load])) for load in sorted(found)]


def _pair(row: Row) -> tuple[object, ...]:
    return row["profile"], row["kv_bits"], row["data"], row["load"], row["seed"]


def served(rows: Iterable[Row], column: str = "in5") -> Rate | None:
    """Returns the highest load at which ATTAINED of the requests are in time, interpolated between loads; None where none is measured."""
    points = [(load, share.mean) for load, share in over_load(rows, column)]
    if points and points[-1][1] >= ATTAINED:
        return Rate(points[-1][0], False)
    for (low, kept), (load, share) in zip(points[-2::-1], points[:0:-1], strict=True):
        if kept >= ATTAINED > share:
            return Rate(low + (load - low) * (kept - ATTAINED) / (kept - share), True)
    return None


def served_by_seed(rows: Sequence[Row], column: str = "in5") -> dict[int, Rate]:
    """Returns the same of each seed."""
    found = {seed: served([row for row in rows if row["seed"] == seed], column) for seed in sorted({row["seed"] for row in rows})}
    return {seed: rate for seed, rate in found.items() if rate is not None}


def without_gain(rows: Sequence[Row], system: str = ALISE) -> list[float]:
    """Returns the loads at which the mean latency per token is not noticeably below first come, first served's."""
    return [load for load, ratio in ratios(rows, "norm_mean", system) if ratio.mean > 1 - NOTICED]


def lengths(rows: Sequence[Row]) -> list[tuple[int, Spread]]:
    """Returns by upper bound of the answer's tokens the worst end-to-end seconds, over seeds."""
    found: dict[int, list[float]] = {}
    for row in rows:
        for bound, worst in row["worst_by_length"]:
            if worst is not None:
                found.setdefault(int(bound), []).append(float(worst))
    return [(bound, spread(found[bound])) for bound in sorted(found)]

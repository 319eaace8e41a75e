"""Computes the figures of the gain from its rows alone: each the mean over paired seeds, with the spread. `gain.py` calls it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from tests.bench.gain_systems import ALISE, FCFS, PRIORITY
from tests.bench.harness import Figure, Row

# Figure, load, what it is, which way is better, and its goal by set. `in10` is a share; the others are ratios to FCFS in the same runs.
GOALS: Final = (
    ("in10", 1.1, "in10", "higher", {"h100_alpaca": 0.85, "h100_sharegpt": 0.90, "slots32_alpaca": 0.86}),
    ("worst_vs_fcfs", 1.1, "e2e_worst", "lower", {"h100_alpaca": 2.0, "h100_sharegpt": 2.0, "slots32_alpaca": 3.5}),
    ("in10", 1.0, "in10", "higher", {"h100_alpaca": 0.93, "h100_sharegpt": 0.98, "slots32_alpaca": 0.97}),
    ("mean_ttft_vs_fcfs", 0.9, "ttft_mean", "lower", {"h100_alpaca": 0.12, "h100_sharegpt": 0.35, "slots32_alpaca": 0.60}),
    ("p99_e2e_vs_fcfs", 0.9, "e2e_p99", "lower", {"h100_alpaca": 1.0, "h100_sharegpt": 1.15, "slots32_alpaca": 1.10}),
)  # fmt: skip
RATE_GOAL: Final = 1.20
ATTAINED: Final = 0.9
RATE8_GOALS: Final = {"stock16": 1.9, "stock8": 1.12}
PRIORITY_GOAL: Final = 1.15
PRIORITY_LOADS: Final = (0.7, 1.1)


def figures(rows: Sequence[Row], sets: Mapping[str, tuple[str, str]]) -> list[Figure]:
    """All that the rows suffice for; in the plan's order."""
    gained = [row for row in rows if row["kind"] == "gain"]
    made: list[Figure] = []
    for name, load, column, better, goals in GOALS:
        for label, (profile, data) in sets.items():
            own = [row for row in gained if (row["profile"], row["kv_bits"], row["data"], row["load"]) == (profile, 16, data, load)]
            values = column_of(own, ALISE, column) if column == "in10" else ratios(own, own, ALISE, FCFS, column)
            what = "share of requests" if column == "in10" else "ratio"
            made += _figure(f"{name}_load{round(load * 100):03d}_{label}", values, what, better, goals[label])
    for label in ("h100_alpaca", "h100_sharegpt"):
        if label in sets:
            made += _figure(
                f"rate_at_90pct_in5_vs_fcfs_{label}", rate_ratios(gained, sets[label], 16, 16, FCFS), "ratio", "higher", RATE_GOAL
            )
    for stock, goal in RATE8_GOALS.items():
        bits = int(stock.removeprefix("stock"))
        values = rate_ratios(gained, sets["h100_sharegpt"], 8, bits, FCFS) if "h100_sharegpt" in sets else {}
        made += _figure(f"rate8_vs_{stock}_h100_sharegpt", values, "ratio", "higher", goal)
    return made + _worst_beside_priority(gained)


def column_of(rows: Iterable[Row], system: str, column: str) -> dict[int, float]:
    """A column by seed."""
    return {row["seed"]: float(row[column]) for row in rows if row["system"] == system}


def ratios(ours: Iterable[Row], theirs: Iterable[Row], system: str, other: str, column: str) -> dict[int, float]:
    """One system's over another's, by the seeds that both have."""
    top, base = column_of(ours, system, column), column_of(theirs, other, column)
    return {seed: top[seed] / base[seed] for seed in sorted(top.keys() & base.keys()) if base[seed] > 0}


def rate_at(rows: Iterable[Row], system: str, seed: int, column: str = "in5", attained: float = ATTAINED) -> float | None:
    """The highest load at which this share of requests is in time, between two loads by a line; None where it holds at none or at all."""
    points = sorted((row["load"], float(row[column])) for row in rows if row["system"] == system and row["seed"] == seed)
    for (load, share), (next_load, next_share) in zip(points[-2::-1], points[:0:-1], strict=True):
        if share >= attained > next_share:
            return float(load + (next_load - load) * (share - attained) / (share - next_share))
    return None


def rate_ratios(rows: Sequence[Row], pair: tuple[str, str], bits: int, stock_bits: int, other: str) -> dict[int, float]:
    """How much more alise's engine serves in time than stock's, by seed."""
    ours = [row for row in rows if (row["profile"], row["data"], row["kv_bits"]) == (*pair, bits)]
    theirs = [row for row in rows if (row["profile"], row["data"], row["kv_bits"]) == (*pair, stock_bits)]
    made = {}
    for seed in sorted({row["seed"] for row in ours}):
        top, base = rate_at(ours, ALISE, seed), rate_at(theirs, other, seed)
        if top is not None and base is not None:
            made[seed] = top / base
    return made


def _worst_beside_priority(rows: Sequence[Row]) -> list[Figure]:
    worst: tuple[float, str, dict[int, float]] | None = None
    places: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        if row["kv_bits"] == 16 and PRIORITY_LOADS[0] <= row["load"] <= PRIORITY_LOADS[1]:
            places.setdefault((row["profile"], row["data"], row["load"]), []).append(row)
    for (profile, data, load), own in places.items():
        values = ratios(own, own, ALISE, PRIORITY, "norm_mean")
        if values and (worst is None or float(np.mean(list(values.values()))) > worst[0]):
            worst = (float(np.mean(list(values.values()))), f"{profile}, {data}, load {load:g}", values)
    if worst is None:
        return []
    return _figure("mean_vs_stock_priority_worst", worst[2], f"ratio, at {worst[1]}", "lower", PRIORITY_GOAL)


def _figure(name: str, values: Mapping[int, float], what: str, better: str, goal: float) -> list[Figure]:
    if not values:
        return []
    found, seeds = list(values.values()), "1 seed" if len(values) == 1 else f"{len(values)} seeds"
    unit = f"{what} [{min(found):.3g}–{max(found):.3g}], {seeds}"
    return [Figure(name, float(np.mean(found)), unit, "higher" if better == "higher" else "lower", goal)]

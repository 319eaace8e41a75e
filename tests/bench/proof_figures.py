"""The table of figures: what each means, its goal, what was measured with the spread over seeds, and the command.

`proof_figures.toml` lists them. A figure is computed by the suite that owns it; the spread is the same computation on the rows of each seed
alone, and an ablation or another rule is the same computation with its rows in the place of alise's. `proof.py` calls it.
"""

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from tests.bench import proof_names as names
from tests.bench.harness import Figure, Row, verdict
from tests.bench.proof_tables import Table, number

LIST: Final = Path(__file__).with_name("proof_figures.toml")
NOT_MEASURED: Final = "not measured"
_SPREAD: Final = re.compile(r"\s*\[([\d.]+)–([\d.]+)\](?:, (\d+) seeds?)?")
Compute = Callable[[Sequence[Row]], Sequence[Figure]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A figure that the report is expected to have."""

    name: str
    title: str
    suite: str
    better: Literal["higher", "lower"]
    goal: float
    command: str
    # Why it missed its goal, for the report to show if it did.
    missed: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure with its lowest and highest value over seeds, and the value of each ablation and other rule by the system's key."""

    value: float
    unit: str = ""
    low: float | None = None
    high: float | None = None
    seeds: int = 0
    ablations: tuple[tuple[str, float], ...] = ()


def wanted(path: Path = LIST) -> list[Wanted]:
    """Reads the list of figures. Raises ValueError when [missed] names one that is not in it."""
    read = tomllib.loads(path.read_text())
    missed = dict(read["missed"])
    found = []
    for entry in read["figure"]:
        for key, goal in entry["goals"].items():
            name = entry["name"].replace("{set}", key)
            title = f"{entry['title']}: {read['sets'][key]}" if key else entry["title"]
            command = read["commands"][entry["suite"]]
            found.append(Wanted(name, title, entry["suite"], entry["better"], goal, command, missed.pop(name, "")))
    if missed:
        raise ValueError(f"{path.name}: [missed] names figures that are not in the list: {', '.join(sorted(missed))}")
    return found


def measured(rows: Sequence[Row], compute: Compute) -> dict[str, Measured]:
    """Returns each figure of these rows with its spread over seeds."""
    seeds = sorted({row["seed"] for row in rows})
    by_seed = [_values([row for row in rows if row["seed"] == seed], compute) for seed in seeds] if len(seeds) > 1 else []
    found = {}
    for figure in compute(rows) if rows else ():
        stated = of_unit(figure.value, figure.unit)
        own = [values[figure.name] for values in by_seed if figure.name in values]
        if stated.low is None:
            span = (min(own), max(own), len(own)) if own else (None, None, len(seeds))
            stated = Measured(figure.value, figure.unit, *span)
        found[figure.name] = stated
    return found


def of_unit(value: float, unit: str) -> Measured:
    """Returns a figure whose unit states its spread over seeds, as `ratio [0.9–1.1], 5 seeds` does, or none."""
    found = _SPREAD.search(unit)
    if found is None:
        return Measured(value, unit)
    low, high, seeds = found.groups()
    return Measured(value, (unit[: found.start()] + unit[found.end() :]).strip(" ,"), float(low), float(high), int(seeds or 0))


def stated(found: Measured) -> str:
    """Returns the unit with the spread, the way that suites write it."""
    if found.low is None or found.high is None:
        return found.unit
    return f"{found.unit} [{found.low:.3g}–{found.high:.3g}], {found.seeds} seed{'' if found.seeds == 1 else 's'}".strip()


def ablated(rows: Sequence[Row], compute: Compute) -> dict[str, dict[str, float]]:
    """Returns, by ablation or other rule, the figures of the grid with its rows in the place of alise's.

    They have fewer loads than alise. A figure that comes out different for alise itself at these loads is left out.
    """
    found = {}
    whole = _values(rows, compute)
    for system in names.in_order(row["system"] for row in rows if row["system"] in names.BESIDE_MISSES):
        own = {_cell(row): {**row, "system": names.ALISE} for row in rows if row["system"] == system}
        same = [row for row in rows if _cell(row) in own]
        comparable = {name for name, value in _values(same, compute).items() if value == whole[name]}
        found[system] = _values([*(row for row in same if row["system"] != names.ALISE), *own.values()], compute)
        found[system] = {name: value for name, value in found[system].items() if name in comparable}
    return found


def with_ablations(figures: Mapping[str, Measured], by_system: Mapping[str, Mapping[str, float]]) -> dict[str, Measured]:
    """Returns the figures with what each ablation or other rule made of them."""
    found = {}
    for name, figure in figures.items():
        own = tuple((system, values[name]) for system, values in by_system.items() if name in values)
        found[name] = replace(figure, ablations=own)
    return found


def judged(figure: Wanted, found: Measured | None) -> str:
    """Returns `met`, `missed` or `not measured`."""
    return NOT_MEASURED if found is None else verdict(Figure(figure.name, found.value, "", figure.better, figure.goal))


def table(listed: Sequence[Wanted], found: Mapping[str, Measured]) -> Table:
    """Returns the table of all figures, in the order of the list."""
    rows = []
    for figure in listed:
        own = found.get(figure.name)
        goal = f"{'≥' if figure.better == 'higher' else '≤'}\u00a0{number(figure.goal)}"
        rows.append((figure.title, goal, *_shown(own, figure.goal), judged(figure, own), figure.command, figure.name))
    head = ("figure", "goal", "measured", "unit", "lowest to highest seed", "seeds", "verdict", "command", "name")
    return Table("All figures", head, tuple(rows), code=(7, 8))


def misses(listed: Sequence[Wanted], found: Mapping[str, Measured]) -> Table:
    """Returns why each missed figure missed its goal, and what the ablations and other rules make of it."""
    rows = []
    for figure in listed:
        own = found.get(figure.name)
        if own is not None and judged(figure, own) == "missed":
            said = "; ".join(f"{names.system(system).title}: {number(value)}" for system, value in own.ablations)
            values = f"{number(own.value)}, goal {number(figure.goal)}"
            rows.append((figure.title, values, figure.missed or "Not explained yet.", said or "–"))
    return Table(
        "Figures that missed their goal",
        ("figure", "measured", "reason", "the same figure of each ablation, and of orders without a bound on the wait"),
        tuple(rows),
    )


def _shown(found: Measured | None, goal: float) -> tuple[str, str, str, str]:
    if found is None:
        return "–", "–", "–", "–"
    band = "–" if found.low is None or found.high is None else f"{number(found.low)}–{number(found.high)}"
    # A miss by less than three digits show is shown with one more.
    value = f"{found.value:.4g}" if number(found.value) == number(goal) and found.value != goal else number(found.value)
    return value, found.unit or "–", band, f"{found.seeds}" if found.seeds else "–"


def _values(rows: Sequence[Row], compute: Compute) -> dict[str, float]:
    return {figure.name: figure.value for figure in compute(rows)} if rows else {}


def _cell(row: Row) -> tuple[object, ...]:
    return row["profile"], row["kv_bits"], row["data"], row["load"], row["seed"]

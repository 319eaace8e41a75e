"""The tables of the report that come from the simulator's grid. Each function takes rows and returns a table of finished text.

`proof.py` and `proof_page.py` call it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.bench import proof_names as names
from tests.bench.harness import Row
from tests.bench.proof_measures import NOTICED, Spread, lengths, loads, ratios, served_by_seed, sets, spread, where

MAIN_SYSTEMS: Final = (names.FCFS, names.PRIORITY, names.ALISE)
# The loads of tables that do not show all of them.
LOW_LOAD: Final = 0.7
EQUAL: Final = "equal"
COLUMNS: Final = {
    "in10": "within 10×", "in5": "within 5×", "norm_mean": "mean normalized latency ÷ unloaded", "ttft_mean": "mean TTFT, s",
    "ttft_p99": "p99 TTFT, s", "e2e_mean": "mean end to end, s", "e2e_p99": "p99 end to end, s", "e2e_worst": "worst end to end, s",
    "recomputed_tokens": "recomputed tokens", "tokens_per_second": "tokens/s",
}  # fmt: skip
# A bucket up to here has no upper bound.
_UNBOUNDED: Final = 1 << 20
_LATENCIES: Final = ("norm_mean", "ttft_mean", "ttft_p99", "e2e_mean", "e2e_p99", "e2e_worst")


@dataclass(frozen=True, slots=True)
class Table:
    """Text in rows and columns. The first `headers` cells of a row name it."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    headers: int = 1
    note: str = ""
    # The columns that are commands or names.
    code: tuple[int, ...] = ()


def number(value: float) -> str:
    """Returns the value with three significant digits, without an exponent."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    # Rounded first: 0.9996 has no more digits than 1.
    digits = 2 - math.floor(math.log10(abs(float(f"{value:.3g}"))))
    return f"{value:,.{min(digits, 3)}f}" if digits > 0 else f"{float(f'{value:.3g}'):,.0f}"


def banded(found: Spread) -> str:
    """Returns the mean, and the lowest and the highest where they differ from it as written."""
    mean, low, high = number(found.mean), number(found.low), number(found.high)
    return mean if mean == low == high else f"{mean} ({low}–{high})"


def main_rows(rows: Iterable[Row], data: str, kv_bits: int = 16) -> list[Row]:
    """Returns the rows of the first picture's device with one data set."""
    return where(rows, profile=names.MAIN_PROFILE, data=data, kv_bits=kv_bits)


def overview(rows: Sequence[Row], load: float) -> Table:
    """Returns alise beside first come, first served on every profile and data set at one load."""
    found = []
    columns = ("norm_mean", "ttft_mean", "e2e_p99", "e2e_worst")
    for profile, data in ordered_sets(rows):
        own = where(rows, profile=profile, data=data, kv_bits=16, load=load)
        if not own:
            continue
        shares = [_cell(where(own, system=system), "in10") for system in MAIN_SYSTEMS]
        by = [_at(ratios(own, column, names.ALISE), load) for column in columns]
        found.append((names.profile(profile), names.data(data), *shares, *by))
    titles = tuple(_ratio_title(column) for column in columns)
    head = ("profile", "data", "within 10×: first come, first served", "stock priority", "alise", *titles)
    note = "Ratios are alise ÷ first come, first served, paired by seed."
    return Table(f"Every profile and data set at load {load:g}", head, tuple(found), 2, note)


def by_profile(rows: Sequence[Row]) -> list[Table]:
    """Returns a table per profile and data set, with the three main systems at each load."""
    return [_of_set(rows, profile, data) for profile, data in ordered_sets(rows)]


def _of_set(rows: Sequence[Row], profile: str, data: str) -> Table:
    own = where(rows, profile=profile, data=data, kv_bits=16)
    found = [
        (f"{load:g}", names.SHORT[system], *(_cell(where(own, system=system, load=load), column) for column in COLUMNS))
        for load in loads(own)
        for system in MAIN_SYSTEMS
        if where(own, system=system, load=load)
    ]
    return Table(f"{names.profile(profile)}, {names.data(data)}", ("load", "system", *COLUMNS.values()), tuple(found), 2)


def parts(rows: Sequence[Row]) -> Table:
    """Returns what ordering gives, what 8-bit KV gives and what both give, over stock with 16 bits, on each set that has both widths."""
    found = []
    for profile, data in ordered_sets(row for row in rows if row["kv_bits"] == 8):
        own = where(rows, profile=profile, data=data)
        for part, system, bits in (("ordering", names.ALISE, 16), ("room", names.FCFS, 8), ("ordering and room", names.ALISE, 8)):
            mine = where(own, system=system, kv_bits=bits)
            if mine:
                over16, over_same = (_rate_ratio(mine, where(own, system=names.FCFS, kv_bits=width)) for width in (16, bits))
                base = where(own, system=names.FCFS, kv_bits=16)
                cells = (_across(mine, base, "ttft_mean", 0.9), _in10(mine, 1.1), _most_tokens(mine, base))
                found.append((names.profile(profile), names.data(data), part, over16, over_same, *cells))
    head = (
        "profile", "data", "part", "rate with 90% within 5×, over stock with 16-bit KV", "over stock with the same KV",
        "mean TTFT at load 0.9, over stock with 16-bit KV", "within 10× at load 1.1",
        "tokens/s in overload, over stock with 16-bit KV",
    )  # fmt: skip
    return Table(
        "What ordering gives, what room gives, and both", head, tuple(found), 3,
        "Room is an 8-bit KV cache on the device (`engine.kvCacheDtype: fp8`). Overload is the highest load that was measured "
        "with each. ≥ marks a rate that is above all measured loads.",
    )  # fmt: skip


def ablations(rows: Sequence[Row], data: str) -> Table:
    """Returns alise with a part taken away, beside the baselines, on the first picture's device."""
    own = main_rows(rows, data)
    found = []
    for system in names.ABLATIONS if own else ():
        mine = where(own, system=system)
        cells = [_in10(mine, 0.9), _in10(mine, 1.1)]
        cells += [_at(ratios(own, column, system), load) for column, load in (("ttft_mean", 0.9), ("e2e_p99", 0.9), ("e2e_worst", 1.1))]
        found.append((names.system(system).title, *cells, _cell(where(mine, load=1.1), "recomputed_tokens")))
    head = (
        "system", "within 10× at load 0.9", "within 10× at 1.1", "mean TTFT at 0.9 ÷ first come, first served's",
        "p99 end to end at 0.9 ÷ its",
        "worst end to end at 1.1 ÷ its", "recomputed tokens at 1.1",
    )  # fmt: skip
    return Table(f"Ablations: {names.profile(names.MAIN_PROFILE)}, {names.data(data)}", head, tuple(found))


def frontier(rows: Sequence[Row], data: str, load: float = 1.1) -> Table:
    """Returns, of every rule, the share within ten times and the worst wait, best share first."""
    own = where(main_rows(rows, data), load=load)
    marks = names.rules(row["system"] for row in rows)
    measured = [(spread(row["in10"] for row in where(own, system=name)), name) for name in marks if where(own, system=name)]
    measured.sort(key=lambda pair: -pair[0].mean)
    columns = ("e2e_worst", "e2e_p99", "ttft_mean")
    found = tuple(
        (f"{marks[name]}", names.system(name).title, banded(share), *(_cell(where(own, system=name), column) for column in columns))
        for share, name in measured
    )
    head = ("number", "rule", *(COLUMNS[column] for column in ("in10", "e2e_worst", "e2e_p99", "ttft_mean")))
    return Table(f"Every rule at load {load:g}: {names.profile(names.MAIN_PROFILE)}, {names.data(data)}", head, found, 2)


def frontiers(rows: Sequence[Row]) -> list[Table]:
    """Returns a table per profile and data set: of every rule the share within ten times and the worst wait, at each load."""
    made = []
    for profile, data in ordered_sets(rows):
        own = where(rows, profile=profile, data=data, kv_bits=16)
        ruled = loads(row for row in own if row["system"] not in MAIN_SYSTEMS)
        found = []
        for name in names.in_order(row["system"] for row in own) if ruled else ():
            mine = where(own, system=name)
            cells = [
                f"{number(spread(row['in10'] for row in at).mean)}, {number(spread(row['e2e_worst'] for row in at).mean)} s" if at else "–"
                for at in (where(mine, load=load) for load in ruled)
            ]
            found.append((names.system(name).title, *cells))
        if found:
            head = ("rule", *(f"load {load:g}" for load in ruled))
            made.append(Table(f"{names.profile(profile)}, {names.data(data)}", head, tuple(found)))
    return made


def null_cases(rows: Sequence[Row]) -> Table:
    """Returns the ratios to first come, first served where no gain is expected: low load, and answers of equal length."""
    found = []
    for profile, data in ordered_sets(rows):
        own = where(rows, profile=profile, data=data, kv_bits=16)
        for load in loads(own):
            if load <= LOW_LOAD or data == EQUAL:
                cells = [_at(ratios(own, column, names.ALISE), load) for column in _LATENCIES]
                if any(cell != "–" for cell in cells):
                    found.append((names.profile(profile), names.data(data), f"{load:g}", *cells))
    head = ("profile", "data", "load", *(COLUMNS[column].removesuffix(", s").removesuffix(" ÷ unloaded") for column in _LATENCIES))
    return Table(
        "Null cases: alise ÷ first come, first served", head, tuple(found), 3, "1 means no difference; less is a gain. Paired by seed."
    )


def by_length(rows: Sequence[Row], data: str, load: float) -> Table:
    """Returns the worst end-to-end seconds by the answer's length."""
    own = where(main_rows(rows, data), load=load)
    by = {system: dict(lengths(where(own, system=system))) for system in MAIN_SYSTEMS if where(own, system=system)}
    bounds = sorted({bound for found in by.values() for bound in found})
    found = tuple((_bucket(bound, bounds), *(banded(of[bound]) if bound in of else "–" for of in by.values())) for bound in bounds)
    return Table(
        f"Worst end-to-end seconds by length of the answer, load {load:g}: {names.data(data)}",
        ("answer, tokens", *(names.system(system).title for system in by)), found,
    )  # fmt: skip


def _bucket(bound: int, bounds: Sequence[int]) -> str:
    below = [other for other in bounds if other < bound]
    return f"more than {below[-1]:,}" if bound >= _UNBOUNDED and below else f"up to {bound:,}"


def worse(rows: Sequence[Row]) -> Table:
    """Returns every latency that is noticeably longer than first come, first served's, with its loads."""
    found = []
    for profile, data in ordered_sets(rows):
        own = where(rows, profile=profile, data=data, kv_bits=16)
        for column in _LATENCIES:
            longer = [(load, ratio) for load, ratio in ratios(own, column, names.ALISE) if ratio.mean > 1 + NOTICED]
            if longer:
                title = COLUMNS[column].removesuffix(", s").removesuffix(" ÷ unloaded")
                said = ", ".join(f"{number(ratio.mean)} at {load:g}" for load, ratio in longer)
                found.append((names.profile(profile), names.data(data), title, said))
    return Table(
        f"Latencies that are more than {NOTICED:.0%} longer with alise", ("profile", "data", "latency", "alise ÷ first come, first served"),
        tuple(found), 3,
    )  # fmt: skip


def ordered_sets(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Returns the pairs of profile and data set, profiles in the report's order."""
    found = sets(rows)
    return [pair for profile in names.profiles_in_order(profile for profile, _ in found) for pair in found if pair[0] == profile]


def _cell(rows: Sequence[Row], column: str) -> str:
    return banded(spread(row[column] for row in rows)) if rows else "–"


def _at(found: Sequence[tuple[float, Spread]], load: float) -> str:
    return next((banded(ratio) for own, ratio in found if own == load), "–")


def _in10(rows: Sequence[Row], load: float) -> str:
    return _cell(where(rows, load=load), "in10")


def _ratio_title(column: str) -> str:
    return f"{COLUMNS[column].removesuffix(', s').removesuffix(' ÷ unloaded')}, ratio"


def _across(mine: Sequence[Row], base: Sequence[Row], column: str, load: float) -> str:
    other = {row["seed"]: row[column] for row in where(base, load=load)}
    found = [row[column] / other[row["seed"]] for row in where(mine, load=load) if other.get(row["seed"])]
    return banded(spread(found)) if found else "–"


def _most_tokens(mine: Sequence[Row], base: Sequence[Row]) -> str:
    ours, theirs = _in_overload(mine), _in_overload(base)
    found = [ours[seed] / theirs[seed] for seed in ours if theirs.get(seed)]
    return banded(spread(found)) if found else "–"


def _in_overload(rows: Sequence[Row]) -> dict[int, float]:
    return {row["seed"]: row["tokens_per_second"] for row in where(rows, load=max(loads(rows), default=0.0))}


def _rate_ratio(mine: Sequence[Row], base: Sequence[Row]) -> str:
    ours, theirs = served_by_seed(mine), served_by_seed(base)
    both = [seed for seed in ours if seed in theirs and theirs[seed].load > 0]
    if not both or any(not theirs[seed].bounded for seed in both):
        return "–"
    least = "" if all(ours[seed].bounded for seed in both) else "≥ "
    return least + banded(spread(ours[seed].load / theirs[seed].load for seed in both))

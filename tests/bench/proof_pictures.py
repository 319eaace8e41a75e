"""The pictures of the report. Lines are means over seeds, bands reach from the lowest seed to the highest.

`proof.py` and `proof_picture.py` call it.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench import proof_names as names
from tests.bench.harness import Row
from tests.bench.proof_draw import INK, PAPER, Picture, drawn, pyplot
from tests.bench.proof_measures import over_load, ratios, spread, where
from tests.bench.proof_tables import MAIN_SYSTEMS, main_rows, ordered_sets

LOAD: Final = "load (1 = what the device serves while its KV memory is full)"
_TICKS: Final = tuple(digit * 10.0**power for power in (-2, -1, 0, 1, 2, 3) for digit in (1, 1.5, 2, 3, 5, 7))
_TITLE_WIDTH: Final = 38


def gain(rows: Sequence[Row], folder: Path, name: str = "gain", dpi: int = 110) -> Picture:
    """Draws the first picture: the share within ten times and the p99 end to end over load, on the main device."""
    sets = [data for data in names.MAIN_DATA if main_rows(rows, data)]
    figure, axes = pyplot().subplots(len(sets), 2, figsize=(9.6, 0.9 + 2.7 * len(sets)), squeeze=False, sharex=True)
    for line, data in zip(axes, sets, strict=True):
        own = main_rows(rows, data)
        for system in MAIN_SYSTEMS:
            _line(line[0], where(own, system=system), system, "in10", 100)
            _line(line[1], where(own, system=system), system, "e2e_p99")
        line[0].set(title=f"{names.data(data)}: requests within 10× their unloaded time, %", ylim=(0, 103))
        line[1].set(title=f"{names.data(data)}: 99th percentile end to end, seconds", yscale="log")
        _ticks(line[1].yaxis)
    for axis in axes[-1]:
        axis.set_xlabel(LOAD)
    _legend(figure, axes[0][0])
    seeds = len({row["seed"] for row in rows})
    caption = (
        f"{names.profile(names.MAIN_PROFILE)}, simulated with step times fitted to NVIDIA's measurements of vLLM; no GPU ran alise. "
        f"Mean of {seeds} seeds; the band reaches from the lowest to the highest."
    )
    alt = f"Requests within ten times their unloaded time, and the 99th percentile end to end, over load, for {_listed(MAIN_SYSTEMS)}."
    return drawn(figure, name, caption, alt, folder, dpi)


def profiles(rows: Sequence[Row], folder: Path) -> Picture:
    """Draws the share within ten times over load on every profile and data set."""
    sets = ordered_sets(rows)
    columns = min(3, len(sets))
    lines = -(-len(sets) // columns)
    figure, axes = pyplot().subplots(lines, columns, figsize=(3.6 * columns, 0.8 + 2.4 * lines), squeeze=False, sharey=True)
    for axis, (profile, data) in zip(axes.flat, sets, strict=False):
        own = where(rows, profile=profile, data=data, kv_bits=16)
        for system in MAIN_SYSTEMS:
            _line(axis, where(own, system=system), system, "in10", 100)
        axis.set_title(f"{wrapped(names.profile(profile))}\n{names.data(data)}", fontsize=9)
        axis.set_ylim(0, 103)
    for axis in list(axes.flat)[len(sets) :]:
        axis.set_visible(False)
    figure.supxlabel(LOAD, fontsize=10)
    figure.supylabel("requests within 10×, %", fontsize=10)
    _legend(figure, axes[0][0])
    return drawn(
        figure, "profiles", "Requests within ten times their unloaded time, over load, on every profile and data set, with 16-bit KV.",
        f"One panel per profile and data set: share of requests within ten times over load, for {_listed(MAIN_SYSTEMS)}.", folder,
    )  # fmt: skip


def parts(rows: Sequence[Row], folder: Path) -> Picture | None:
    """Draws the share within five times over load with 16 and 8 bits of KV, stock and alise; None without 8-bit rows of the main device."""
    sets = [data for data in names.MAIN_DATA if main_rows(rows, data, 8)]
    if not sets:
        return None
    figure, axes = pyplot().subplots(1, len(sets), figsize=(9.6, 3.6), squeeze=False, sharey=True)
    for axis, data in zip(axes[0], sets, strict=True):
        for system in (names.FCFS, names.ALISE):
            for bits in (16, 8):
                own = where(main_rows(rows, data, bits), system=system)
                _line(axis, own, system, "in5", 100, f"{names.system(system).title}, {bits}-bit KV", filled=bits == 8)
        axis.axhline(90, color=INK, linewidth=0.8, linestyle=":")
        axis.set(title=f"{names.data(data)}", xlabel=LOAD, ylim=(0, 103))
    axes[0][0].set_ylabel("requests within 5×, %")
    _legend(figure, axes[0][0], 2)
    return drawn(
        figure, "parts", "Ordering and room: requests within five times their unloaded time. The dotted line is 90%. Filled markers are "
        "8-bit KV on the device.", "Share of requests within five times over load, stock and alise, each with 16-bit and 8-bit KV.", folder,
    )  # fmt: skip


def ablations(rows: Sequence[Row], data: str, folder: Path) -> Picture:
    """Draws the share within ten times at load 1.1 and the p99 at 0.9 over first come, first served's, a line per system."""
    own = main_rows(rows, data)
    seen = {row["system"] for row in own}
    systems = [name for name in names.ABLATIONS if name in seen][::-1]
    figure, axes = pyplot().subplots(1, 2, figsize=(10.4, 0.9 + 0.36 * len(systems)), sharey=True)
    for place, system in enumerate(systems):
        found = where(own, system=system, load=1.1)
        if found:
            _dot(axes[0], spread(100 * row["in10"] for row in found), place, system)
        tail = dict(ratios(own, "e2e_p99", system)).get(0.9)
        if tail is not None:
            _dot(axes[1], tail, place, system)
    axes[0].set_yticks(range(len(systems)), [_short(system) for system in systems])
    axes[0].set(title="within 10× at load 1.1, %")
    axes[1].set(title="p99 end to end at load 0.9 ÷ FCFS's", xscale="log")
    axes[1].axvline(1, color=INK, linewidth=0.8, linestyle=":")
    _ticks(axes[1].xaxis)
    return drawn(
        figure, f"ablations-{data}", f"Alise with a part taken away, and the baselines: {names.data(data)}.",
        "Per system: share of requests within ten times at load 1.1, and the 99th percentile at load 0.9 over first come, first served's.",
        folder,
    )  # fmt: skip


def frontier(rows: Sequence[Row], folder: Path, load: float = 1.1) -> Picture | None:
    """Draws every rule: the share within ten times against the longest end-to-end time, numbered; None without rows at the load."""
    sets = [data for data in names.MAIN_DATA if where(main_rows(rows, data), load=load)]
    if not sets:
        return None
    marks = names.rules(row["system"] for row in rows)
    figure, axes = pyplot().subplots(1, len(sets), figsize=(9.6, 4.2), squeeze=False)
    for axis, data in zip(axes[0], sets, strict=True):
        own = where(main_rows(rows, data), load=load)
        for system, mark in marks.items():
            found = where(own, system=system)
            if found:
                kind = names.system(system)
                x, y = spread(row["e2e_worst"] for row in found), spread(100 * row["in10"] for row in found)
                axis.errorbar(
                    x.mean, y.mean, xerr=[[x.mean - x.low], [x.high - x.mean]], yerr=[[y.mean - y.low], [y.high - y.mean]],
                    color=kind.color, elinewidth=0.7, marker="o", markersize=13, markerfacecolor=PAPER, markeredgewidth=1.4,
                )  # fmt: skip
                axis.annotate(str(mark), (x.mean, y.mean), ha="center", va="center", fontsize=8, color=kind.color, zorder=9)
        axis.set(title=f"{names.data(data)}, load {load:g}", xscale="log", xlabel="longest end-to-end time, seconds")
        _ticks(axis.xaxis)
    axes[0][0].set_ylabel("requests within 10×, %")
    return drawn(
        figure, "frontier", f"Every rule that was tried, at load {load:g}. Up and to the left is better. The tables name the numbers.",
        "Share of requests within ten times against the longest end-to-end time, one numbered point per rule.", folder,
    )  # fmt: skip


def _line(axis: Any, rows: Sequence[Row], system: str, column: str, times: float = 1, label: str = "", filled: bool = True) -> None:
    points = over_load(rows, column)
    if not points:
        return
    kind = names.system(system)
    xs = [load for load, _ in points]
    axis.xaxis.set_major_formatter("{x:g}")
    axis.plot(
        xs, [times * found.mean for _, found in points], color=kind.color, marker=kind.marker, markersize=4.5, linewidth=1.7,
        dashes=kind.dashes or (None, None), label=label or kind.title, markerfacecolor=kind.color if filled else "none",
    )  # fmt: skip
    axis.fill_between(
        xs, [times * found.low for _, found in points], [times * found.high for _, found in points],
        color=kind.color, alpha=0.15, linewidth=0,
    )  # fmt: skip


def _dot(axis: Any, found: Any, place: int, system: str) -> None:
    kind = names.system(system)
    axis.plot([found.low, found.high], [place, place], color=kind.color, linewidth=2)
    axis.plot([found.mean], [place], color=kind.color, marker=kind.marker, markersize=6)


def wrapped(title: str) -> str:
    """Returns the title in lines that fit over a small panel."""
    return "\n".join(textwrap.wrap(title, _TITLE_WIDTH))


def _legend(figure: Any, axis: Any, columns: int = 3) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=columns, fontsize=9.5)


def _ticks(axis: Any) -> None:
    """Writes a logarithmic axis' ticks as people write them."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axis.set_major_locator(FixedLocator(_TICKS))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _short(system: str) -> str:
    return names.system(system).title.partition(":")[0].replace("first come, first served", "FCFS")


def _listed(systems: Sequence[str]) -> str:
    return "; ".join(names.system(system).title for system in systems)

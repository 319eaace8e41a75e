"""Tables and plots of the policy sweep: one table and one picture a data set, bands from the lowest to the highest seed; and one table of
what the default gains over first come, first served, and where it gains nothing.

`policies.py` calls it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

Row = dict[str, Any]
COLUMNS: Final = {
    "normalized_mean_seconds": "normalized ms/token", "ttft_mean_seconds": "TTFT mean s", "ttft_p99_seconds": "TTFT p99 s",
    "e2e_mean_seconds": "e2e mean s", "e2e_p50_seconds": "e2e p50 s", "e2e_p90_seconds": "e2e p90 s", "e2e_p99_seconds": "e2e p99 s",
    "wait_max_seconds": "max wait s", "preemptions": "preemptions", "saved_gb": "saved GB",
}  # fmt: skip
_PLOTTED: Final = ("normalized_mean_seconds", "ttft_mean_seconds", "e2e_mean_seconds", "e2e_p99_seconds")


# Less than this is no gain.
_LEAST_GAIN: Final = 0.05


def write(runs: Sequence[Row], folder: Path, default: str) -> None:
    """Writes NAME.md and NAME.png for each data set, and gains.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gains.md").write_text(gains(runs, default))
    for name in dict.fromkeys(row["data"] for row in runs):
        own = [row for row in runs if row["data"] == name]
        (folder / f"{name}.md").write_text(table(name, own))
        plot(name, own, folder / f"{name}.png")


def grouped(rows: Sequence[Row]) -> dict[tuple[str, str], dict[float, list[Row]]]:
    """Rows by (policy, predictions), then by load."""
    made: dict[tuple[str, str], dict[float, list[Row]]] = {}
    for row in rows:
        made.setdefault((row["policy"], row["predictions"]), {}).setdefault(row["load"], []).append(row)
    return made


def table(name: str, rows: Sequence[Row]) -> str:
    """Means over seeds as Markdown, a section a load."""
    groups = grouped(rows)
    lines = [f"# {name}", ""]
    for load in sorted({row["load"] for row in rows}):
        lines += [f"## Load {load}", "", f"| policy | predictions | {' | '.join(COLUMNS.values())} |", "|---" * (len(COLUMNS) + 2) + "|"]
        for (policy, told), loads in groups.items():
            if load in loads:
                cells = [
                    banded([row[column] * (1000 if column == "normalized_mean_seconds" else 1) for row in loads[load]])
                    for column in COLUMNS
                ]
                lines.append(f"| {policy} | {told} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def banded(values: Sequence[float]) -> str:
    """The mean, and the lowest and highest where there are several."""
    mean = f"{float(np.mean(values)):.4g}"
    return mean if len(values) == 1 or min(values) == max(values) else f"{mean} ({min(values):.3g} to {max(values):.3g})"


def gains(runs: Sequence[Row], default: str) -> str:
    """Ratios of the default to first come, first served by data set and load, paired by seed; the loads without gain are listed."""
    lines = [f"# What {default} gains", "", "Ratios to first come, first served: the mean over seeds, the lowest and the highest.", ""]
    for name in dict.fromkeys(row["data"] for row in runs):
        own = [row for row in runs if row["data"] == name]
        told = "real" if any(row["predictions"] == "real" for row in own) else "noise"
        base = {(row["load"], row["seed"]): row for row in own if row["policy"] == "vllm-fcfs"}
        ours = [row for row in own if (row["policy"], row["predictions"]) == (default, told) and (row["load"], row["seed"]) in base]
        lines += [f"## {name} ({told} predictions)", "", f"| load | {' | '.join(COLUMNS[column] for column in _PLOTTED)} |"]
        lines.append("|---" * (len(_PLOTTED) + 1) + "|")
        idle = []
        for load in sorted({row["load"] for row in ours}):
            ratios = {c: [row[c] / base[load, row["seed"]][c] for row in ours if row["load"] == load] for c in _PLOTTED}
            lines.append(f"| {load} | {' | '.join(banded(ratios[column]) for column in _PLOTTED)} |")
            if float(np.mean(ratios["normalized_mean_seconds"])) > 1 - _LEAST_GAIN:
                idle.append(f"{load}")
        lines += ["", f"Normalized latency gains less than {_LEAST_GAIN:.0%} at: {', '.join(idle) or 'no load swept'}.", ""]
    return "\n".join(lines)


def plot(name: str, rows: Sequence[Row], path: Path) -> None:
    """Four panels over load, each relative to first come, first served: 1.0 is no gain."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = grouped(rows)
    base = {(row["load"], row["seed"]): row for row in rows if row["policy"] == "vllm-fcfs"}
    figure, axes = pyplot.subplots(1, len(_PLOTTED), figsize=(5 * len(_PLOTTED), 4.5))
    for axis, column in zip(axes, _PLOTTED, strict=True):
        for (policy, told), loads in groups.items():
            xs = sorted(loads)
            ratios = [[row[column] / base[load, row["seed"]][column] for row in loads[load]] for load in xs]
            (line,) = axis.plot(xs, [float(np.mean(values)) for values in ratios], marker=".", label=f"{policy} ({told})")
            axis.fill_between(
                xs, [min(values) for values in ratios], [max(values) for values in ratios], alpha=0.15, color=line.get_color()
            )
        axis.set(title=f"{COLUMNS[column]} / fcfs", xlabel="load", yscale="log")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=6)
    figure.suptitle(name)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)

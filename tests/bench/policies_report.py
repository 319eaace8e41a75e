"""Tables and plots of the policy sweep: one table and one picture a data set, bands from the lowest to the highest seed."""

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


def write(runs: Sequence[Row], folder: Path) -> None:
    """Writes NAME.md and NAME.png for each data set."""
    folder.mkdir(parents=True, exist_ok=True)
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
                means = [float(np.mean([row[column] for row in loads[load]])) for column in COLUMNS]
                means[0] *= 1000
                lines.append(f"| {policy} | {told} | {' | '.join(f'{value:.4g}' for value in means)} |")
        lines.append("")
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

"""What every benchmark shares: settings, rows, figures, and where they are written.

A suite is a module with two functions: `measure(settings)` yields raw rows as they are measured, `figures(rows, settings)` computes
every figure from those rows alone. The rows are written beside the figures, so that anyone can compute them again
(`python -m tests.bench NAME --recompute`). `__main__.py` and every suite call it.
"""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench-results"

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to run: `quick` for a look rather than a figure, `seeds` repetitions, `dataset` a file or folder or None (synthetic)."""

    quick: bool
    seeds: int
    dataset: Path | None
    # An emulated device for the suites that serve on one, and how much slower time runs on it; empty: as the suite has it.
    device: str = ""
    time_scale: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number with its unit, which way is better, and the goal where there is one."""

    name: str
    value: float
    unit: str
    better: Literal["higher", "lower"]
    goal: float | None = None


class Suite(Protocol):
    """A benchmark module."""

    def measure(self, settings: Settings) -> Iterator[Row]:
        """Yield raw rows as they come."""

    def figures(self, rows: Sequence[Row], settings: Settings) -> list[Figure]:
        """Compute the figures from the rows alone."""


def present(folder: Path, names: Sequence[str]) -> list[Path]:
    """Returns those of these files that the folder has, and prints which it lacks. Raises SystemExit when it has none of them."""
    found = [folder / name for name in names if (folder / name).exists()]
    absent = [name for name in names if not (folder / name).exists()]
    if not found:
        raise SystemExit(f"{folder} has none of {', '.join(names)}: set DATASET to a folder that holds some of them")
    if absent:
        print(f"\nleft out, not in {folder}: {', '.join(absent)}", file=sys.stderr)
    return found


def percentile(values: Iterable[float], share: float) -> float:
    """The value below which `share` (0..1) of the values lie, by the nearest rank. Raises ValueError without values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no rows to take a percentile of")
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def median(values: Iterable[float]) -> float:
    """The middle value; the mean of the two middle ones for an even count. Raises ValueError without values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no rows to take a median of")
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1]) if Path("/proc/meminfo").exists() else 0
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit that was measured; `-dirty` when the tree differs from it, `unknown` outside a checkout."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return said.stdout.strip()


def rows_path(name: str) -> Path:
    """Where a suite's raw rows are."""
    return RESULTS / f"{name}.rows.jsonl"


def write_result(name: str, figures: Sequence[Figure]) -> Path:
    """Write bench-results/NAME.json and return its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    values = {figure.name: {key: value for key, value in asdict(figure).items() if key != "name"} for figure in figures}
    path.write_text(json.dumps({"figures": values, "machine": machine(), "commit": commit()}, indent=2) + "\n")
    return path


def table(figures: Sequence[Figure]) -> str:
    """The figures as an aligned text table."""
    lines = [("figure", "value", "unit", "goal", "")]
    for figure in figures:
        goal = "" if figure.goal is None else f"{'≥' if figure.better == 'higher' else '≤'} {figure.goal:g}"
        lines.append((figure.name, f"{figure.value:.4g}", figure.unit, goal, verdict(figure)))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def verdict(figure: Figure) -> str:
    """`met`, `missed`, or nothing without a goal."""
    if figure.goal is None:
        return ""
    met = figure.value >= figure.goal if figure.better == "higher" else figure.value <= figure.goal
    return "met" if met else "missed"


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"

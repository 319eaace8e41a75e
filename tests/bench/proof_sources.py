"""Where the report's rows come from: the simulator's grid, the emulated engine over HTTP, clients of others, and the other suites' figures.

PARTS names the sources that may be measured, all of them without it; the others give the rows that they already have. `PARTS=none` measures
nothing. Rows carry the name of their suite.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from tests.bench import serving_emulated as emulated
from tests.bench.harness import RESULTS, Row, Settings, commit, rows_path
from tests.bench.proof_gather import Piece, gathered, read, watched
from tests.bench.serving import order

PARTS: Final = ("gain", "replay", "emulated", "clients", "serving", "policies")
# The devices over HTTP; DEVICE names one.
DEVICES: Final = ("h100-qwen3-32b", "rtx4090-llama-8b")
# Suites that are run whole, and whose rows the report reads; of the others it takes the figures alone.
_WITH_ROWS: Final = ("clients", "serving")
_CELL: Final = ("profile", "kv_bits", "data", "load", "system", "seed")


def chosen(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Reads PARTS. Raises SystemExit when it names a part that does not exist."""
    named = environment.get("PARTS", "").replace(",", " ").split()
    unknown = [name for name in named if name not in (*PARTS, "none")]
    if unknown:
        raise SystemExit(f"PARTS={' '.join(named)}: there is no part {', '.join(unknown)}; name some of {', '.join(PARTS)}, or none")
    return tuple(name for name in PARTS if name in named) if named else PARTS


def rows(settings: Settings, parts: Sequence[str]) -> Iterator[Row]:
    """Yields the rows of all sources, each with its suite."""
    yield from _of("gain", _gain(settings, "gain" in parts))
    yield from _of("emulated", _emulated(settings, "emulated" in parts))
    for name in ("replay", "clients", "serving", "policies"):
        if name in parts and not _complete(name):
            _run(name, settings)
        yield from _of(name, _figures(name))
        if name in _WITH_ROWS:
            yield from _of(name, read(rows_path(name)))


def _of(suite: str, found: Iterable[Row]) -> Iterator[Row]:
    return ({**row, "suite": suite} for row in found)


def _gain(settings: Settings, measure: bool) -> Iterator[Row]:
    from tests.bench import gain

    if measure:
        return watched("gain", len(gain.plan(settings)), gain.measure(settings))
    return iter(newest(read(RESULTS / "gain.kept.jsonl")))


def newest(kept: Sequence[Row]) -> list[Row]:
    """Returns the runs with the longest window that were made with what is the newest of each system, each run once."""
    longest = max((row["window_seconds"] for row in kept), default=0)
    own = [row for row in kept if row["window_seconds"] == longest]
    probes = {row["system"]: row["probe"] for row in own}
    cells = {tuple(row[name] for name in _CELL): row for row in own if row["probe"] == probes[row["system"]]}
    return list(cells.values())


def _emulated(settings: Settings, measure: bool) -> Iterator[Row]:
    path = rows_path("emulated")
    if not measure:
        # A run that was only a look has another window.
        return (row for row in read(path) if row.get("window_seconds") == emulated.FULL.window_seconds)
    plan = emulated.QUICK if settings.quick else emulated.FULL
    pieces = [
        Piece(
            (device, seed, system, plan.window_seconds), f"{device}, seed {seed}, {system}",
            lambda device=device, seed=seed, place=place, system=system: emulated.measure_system(  # type: ignore[misc]
                replace(settings, device=device), seed, place, system
            ),
        )
        for device in ((settings.device,) if settings.device else DEVICES)
        for seed in range(settings.seeds)
        for place, system in enumerate(order(seed))
    ]  # fmt: skip
    return gathered("emulated", path, pieces, _emulated_identity, {"commit": commit()})


def _emulated_identity(row: Row) -> tuple[object, ...]:
    return row["device"], row["seed"], row["system"], row.get("window_seconds")


def _complete(name: str) -> bool:
    """Whether the suite's last run came to its end: figures are written after the rows."""
    result, measured = RESULTS / f"{name}.json", rows_path(name)
    return result.exists() and measured.exists() and result.stat().st_mtime >= measured.stat().st_mtime


def _run(name: str, settings: Settings) -> None:
    """Runs a suite in a process of its own, with what this one was set to."""
    environment = {key: value for key, value in os.environ.items() if key not in ("DEVICE", "PARTS")}
    if name == "clients" and settings.device:
        environment["DEVICE"] = settings.device
    print(f"\r\033[K{name}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "tests.bench", name], env=environment, check=True)


def _figures(name: str) -> Iterator[Row]:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return
    result = json.loads(path.read_text())
    for figure, values in result["figures"].items():
        yield {"kind": "figure", "name": figure, **values, "commit": result["commit"]}

"""Where the report's rows come from: the simulator's grid, the emulated engine over HTTP, clients of others, and the other suites' figures.

PARTS names the sources that may be measured, all of them without it; the others give the rows that they already have. `PARTS=none` measures
nothing. Rows carry the name of their suite. `proof.py` and `proof_picture.py` call it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Final

from tests.bench import serving_emulated as emulated
from tests.bench.harness import RESULTS, Row, Settings, commit, rows_path
from tests.bench.proof_gather import Piece, gathered, read, watched, whole
from tests.bench.serving import order

PARTS: Final = ("gain", "replay", "emulated", "clients", "serving", "policies")
# The devices over HTTP; DEVICE names one.
DEVICES: Final = ("h100-qwen3-32b", "rtx4090-llama-8b")
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
    yield from _of("clients", _clients(settings, "clients" in parts))
    for name in ("replay", "serving", "policies"):
        if name in parts and not _complete(name):
            _run(name)
        yield from _of(name, _figures(name))
        if name == "serving":
            yield from _of(name, read(rows_path(name)))


def _of(suite: str, found: Iterable[Row]) -> Iterator[Row]:
    return ({**row, "suite": suite} for row in found)


def _gain(settings: Settings, measure: bool) -> Iterator[Row]:
    from tests.bench import gain

    if measure:
        return watched("gain", len(gain.plan(settings)), gain.measure(settings))
    return iter(kept_runs())


def kept_runs() -> list[Row]:
    """Returns the runs of the grid that are kept and that the code as it is now would make again, and says how many others there are."""
    from tests.bench import gain

    kept = read(kept_path("gain"))
    own = [row for row in kept if row.get("engine") == gain.engine_digest(row["profile"], row["kv_bits"])]
    found = current(own, {system: gain.probe(system) for system in dict.fromkeys(row["system"] for row in own)})
    if len(found) < len(kept):
        print(
            f"\r\033[Kgain: {len(found)} runs; {len(kept) - len(found)} of earlier versions or shorter windows are left out",
            file=sys.stderr,
        )
    return found


def current(kept: Sequence[Row], probes: Mapping[str, str]) -> list[Row]:
    """Returns the runs with the longest window whose system has this probe, each run once."""
    own = [row for row in kept if row["probe"] == probes[row["system"]]]
    longest = max((row["window_seconds"] for row in own), default=0)
    cells = {tuple(row[name] for name in _CELL): row for row in own if row["window_seconds"] == longest}
    return list(cells.values())


def _emulated(settings: Settings, measure: bool) -> Iterator[Row]:
    plan = emulated.QUICK if settings.quick else emulated.FULL
    identity = itemgetter("device", "seed", "system", "window_seconds")
    if not measure:
        return _kept("emulated", lambda row: identity({"window_seconds": 0, **row}), plan.window_seconds)
    pieces = [
        Piece(
            (device, seed, system, plan.window_seconds), f"{device}, seed {seed}, {system}",
            partial(emulated.measure_system, replace(settings, device=device), seed, place, system),
        )
        for device in _devices(settings)
        for seed in range(settings.seeds)
        for place, system in enumerate(order(seed))
    ]  # fmt: skip
    return _measured("emulated", lambda row: identity({"window_seconds": 0, **row}), pieces)


def _clients(settings: Settings, measure: bool) -> Iterator[Row]:
    from tests.bench import clients

    plan = clients.plan_of(settings)
    identity = itemgetter("profile", "seed", "load", "system", "plan_requests")
    if not measure:
        return _kept("clients", lambda row: identity({"plan_requests": 0, **row}), plan.requests)
    pieces = [
        Piece(
            (device, seed, load, system, plan.requests), f"{device}, seed {seed}, load {load:g}, {system}",
            partial(clients.measure_system, replace(settings, device=device), seed, load, place, system),
        )
        for device in _devices(settings)[:1]
        for seed in range(settings.seeds)
        for load in plan.loads
        for place, system in enumerate(order(seed))
    ]  # fmt: skip
    return _measured("clients", lambda row: identity({"plan_requests": 0, **row}), pieces)


def _measured(name: str, identity: Callable[[Row], tuple[object, ...]], pieces: Sequence[Piece]) -> Iterator[Row]:
    return gathered(name, kept_path(name), pieces, identity, {"commit": commit()}, _whole_run(name))


def _kept(name: str, identity: Callable[[Row], tuple[object, ...]], plan: float) -> Iterator[Row]:
    """The rows of all pieces of this plan, which is the last part of their identity."""
    found = whole(identity, read(kept_path(name)), _whole_run(name))
    return (row for own in found.values() if identity(own[0])[-1] == plan for row in own)


def kept_path(name: str) -> Path:
    """Where the pieces of a source are kept, apart from the rows of its suite, which each run of it writes anew."""
    return RESULTS / f"{name}.kept.jsonl"


def _whole_run(name: str) -> list[Row]:
    """The rows of the suite's own last run, if it came to its end."""
    return read(rows_path(name)) if _complete(name) else []


def _devices(settings: Settings) -> tuple[str, ...]:
    return (settings.device,) if settings.device else DEVICES


def _complete(name: str) -> bool:
    """Whether the suite's last run came to its end: figures are written after the rows."""
    result, measured = RESULTS / f"{name}.json", rows_path(name)
    return result.exists() and measured.exists() and result.stat().st_mtime >= measured.stat().st_mtime


def _run(name: str) -> None:
    """Runs a suite in a process of its own, which ends with this one. Raises SystemExit with its status where that is not 0."""
    environment = {key: value for key, value in os.environ.items() if key not in ("DEVICE", "PARTS")}
    print(f"\r\033[K{name}", file=sys.stderr, flush=True)
    with subprocess.Popen([sys.executable, "-m", "tests.bench", name], env=environment) as child:
        try:
            status = child.wait()
        except BaseException:
            child.terminate()
            raise
    if status:
        raise SystemExit(status)


def _figures(name: str) -> Iterator[Row]:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return
    result = json.loads(path.read_text())
    for figure, values in result["figures"].items():
        yield {"kind": "figure", "name": figure, **values, "commit": result["commit"]}

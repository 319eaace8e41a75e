"""The tables and the picture of the real engine on an emulated device: over HTTP with our client, and with clients of others.

`proof.py` calls it.
"""

from collections.abc import Sequence
from pathlib import Path

from tests.bench import proof_names as names
from tests.bench.harness import Row, percentile
from tests.bench.proof_draw import Picture, drawn, pyplot
from tests.bench.proof_measures import Spread, loads, spread, where
from tests.bench.proof_pictures import wrapped
from tests.bench.proof_tables import Table, banded, number

# What the emulated suite calls stock vLLM, by what the grid does.
_KEYS = {"stock": names.FCFS, "stock-priority": names.PRIORITY, "alise": names.ALISE}
PROCESSES = ("engine_core", "api_server", "sidecar")


def summaries(rows: Sequence[Row]) -> list[Row]:
    """Returns a row per device, system, load and seed with the measures of the grid; failed requests are misses and have no latency."""
    cells: dict[tuple[str, str, float, int], list[Row]] = {}
    for row in rows:
        if row["kind"] == "request":
            cells.setdefault((row["device"], row["system"], row["load"], row["seed"]), []).append(row)
    runs = {(row["device"], row["system"], row["load"], row["seed"]): row for row in rows if row["kind"] == "run"}
    return [_summary(key, own, runs.get(key)) for key, own in cells.items()]


def _summary(key: tuple[str, str, float, int], own: Sequence[Row], run: Row | None) -> Row:
    device, system, load, seed = key
    served = [row for row in own if not row["error"]]
    slowness = [row["end_seconds"] / row["alone_seconds"] for row in served]
    found: Row = {
        "device": device, "system": _key(system), "load": load, "seed": seed, "data": own[0]["workload"],
        "time_scale": own[0]["time_scale"], "requests": len(own), "failed": len(own) - len(served),
        "in10": sum(1 for slow in slowness if slow <= 10) / len(own), "in5": sum(1 for slow in slowness if slow <= 5) / len(own),
    }  # fmt: skip
    if served:
        found |= {
            "ttft_mean": sum(row["ttft_seconds"] for row in served) / len(served),
            "e2e_mean": sum(row["end_seconds"] for row in served) / len(served),
            "e2e_p99": percentile((row["end_seconds"] for row in served), 0.99),
            "e2e_worst": max(row["end_seconds"] for row in served),
            "slow_mean": sum(slowness) / len(slowness),
        }
    if run is not None:
        found["tokens_per_second"] = run["tokens"] / run["seconds"]
        found["late"] = run["tally"]["late_steps"] / max(1, run["tally"]["steps"])
        found |= {name: 1000 * run["cpu_seconds"][name] / len(own) for name in PROCESSES}
    return found


def over_http(cells: Sequence[Row]) -> Table:
    """Returns each system on each emulated device at each load."""
    columns = {
        "in10": "within 10×", "slow_mean": "mean time ÷ unloaded", "ttft_mean": "mean TTFT, s", "e2e_p99": "p99 end to end, s",
        "e2e_worst": "worst end to end, s", "tokens_per_second": "tokens/s", "late": "late steps",
    }  # fmt: skip
    found = []
    for device, data, load, system, own in _groups(cells):
        shown = [_cell(own, column) for column in columns]
        counts = (f"{sum(row['requests'] for row in own):,}", f"{sum(row['failed'] for row in own):,}")
        found.append((names.profile(device), names.data(data), f"{load:g}", names.system(system).title, *counts, *shown))
    head = ("device, emulated", "data", "load", "system", "requests", "failed", *columns.values())
    slower = {row["device"]: row["time_scale"] for row in cells if row["time_scale"] != 1}
    paces = "".join(f" Time ran {number(scale)} times slower on {names.profile(device)}." for device, scale in slower.items())
    note = f"Times are the device's.{paces} A step is late when the device stood idle before it although requests were decoding."
    return Table("The real engine on an emulated device, over HTTP", head, tuple(found), 4, note)


def cpu(cells: Sequence[Row]) -> Table:
    """Returns the CPU of each process per request."""
    found = []
    for device, data, load, system, own in _groups(cells):
        spent = (_cell(own, process) for process in PROCESSES)
        found.append((names.profile(device), names.data(data), f"{load:g}", names.system(system).title, *spent))
    head = ("device, emulated", "data", "load", "system", "EngineCore", "API server", "sidecar")
    return Table("CPU milliseconds per request", head, tuple(found), 4)


def clients(rows: Sequence[Row]) -> Table:
    """Returns what unmodified clients measured, means over seeds."""
    columns = {"ttft_mean": "mean TTFT, s", "tpot_mean": "mean TPOT, s", "e2e_mean": "mean end to end, s", "e2e_p99": "p99 end to end, s"}
    keys = {(row["client"], row["client_version"], row["profile"], row["load"], row["system"]) for row in rows}
    found = []
    for client, version, profile, load, system in sorted(keys, key=lambda key: (key[0], key[2], key[3], _place(key[4]))):
        own = where(rows, client=client, client_version=version, profile=profile, load=load, system=system)
        counts = (f"{sum(row['requests'] for row in own):,}", f"{sum(row['failed'] for row in own):,}")
        title = names.system(_key(system)).title
        found.append((f"{client} {version}", names.profile(profile), f"{load:g}", title, *counts, *(_cell(own, c) for c in columns)))
    head = ("client", "device, emulated", "load", "system", "requests", "failed", *columns.values())
    return Table("Clients of other projects, unmodified", head, tuple(found), 4, "Times are the device's.")


def commands(rows: Sequence[Row]) -> list[str]:
    """Returns the command lines of the clients, each once."""
    return list(dict.fromkeys(row["command"] for row in rows))


def picture(cells: Sequence[Row], folder: Path) -> Picture:
    """Draws mean time to first token, p99 and the share within ten times over load, a line of panels per device."""
    devices = names.profiles_in_order(row["device"] for row in cells)
    figure, axes = pyplot().subplots(len(devices), 3, figsize=(10.5, 0.9 + 2.6 * len(devices)), squeeze=False)
    panels = (("ttft_mean", "mean TTFT, s", 1), ("e2e_p99", "p99 end to end, s", 1), ("in10", "within 10×, %", 100))
    for line, device in zip(axes, devices, strict=True):
        for axis, (column, title, times) in zip(line, panels, strict=True):
            for system in names.in_order(row["system"] for row in cells):
                own = [row for row in where(cells, device=device, system=system) if column in row]
                points = [(load, spread(times * row[column] for row in where(own, load=load))) for load in loads(own)]
                kind = names.system(system)
                xs = [load for load, _ in points]
                axis.xaxis.set_major_formatter("{x:g}")
                axis.plot(xs, [at.mean for _, at in points], color=kind.color, marker=kind.marker, label=kind.title)
                axis.fill_between(xs, [at.low for _, at in points], [at.high for _, at in points], color=kind.color, alpha=0.15)
            axis.set(title=f"{wrapped(names.profile(device))}\n{title}", ylim=(0, 103 if times == 100 else None))
    for axis in axes[-1]:
        axis.set_xlabel("load")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=3)
    return drawn(
        figure, "emulated", "vLLM's real server and scheduler with the device emulated, over HTTP on the wall clock.",
        "Per emulated device: mean time to first token, 99th percentile end to end and share within ten times, over load.", folder,
    )  # fmt: skip


def _groups(cells: Sequence[Row]) -> list[tuple[str, str, float, str, list[Row]]]:
    found = []
    for device in names.profiles_in_order(row["device"] for row in cells):
        for data in sorted({row["data"] for row in where(cells, device=device)}):
            for load in loads(where(cells, device=device, data=data)):
                here = where(cells, device=device, data=data, load=load)
                found += [(device, data, load, system, where(here, system=system)) for system in names.in_order(r["system"] for r in here)]
    return found


def _cell(rows: Sequence[Row], column: str) -> str:
    values: list[float] = [row[column] for row in rows if row.get(column) is not None]
    found: Spread | None = spread(values) if values else None
    return "–" if found is None else banded(found)


def _key(system: str) -> str:
    return _KEYS.get(system, system)


def _place(system: str) -> int:
    return list(_KEYS).index(system) if system in _KEYS else len(_KEYS)


def paired(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of the seeds that every system has."""
    systems = {row["system"] for row in rows}
    seeds = {seed for seed in {row["seed"] for row in rows} if {row["system"] for row in where(rows, seed=seed)} == systems}
    return [row for row in rows if row["seed"] in seeds] if len(systems) > 1 else []

"""The gain beside stock vLLM, as one report: `make bench-proof` writes bench-results/proof/ with an HTML page, pictures and a table.

The rows come from the sources in `proof_sources.py`. Measuring all of them takes hours; a run that was broken off goes on where it stopped.
"""

import gzip
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from tests.bench import proof_figures, proof_pictures, proof_served, proof_sources, proof_tables, serving, serving_emulated
from tests.bench import proof_names as names
from tests.bench.harness import RESULTS, Figure, Row, Settings, commit, machine
from tests.bench.proof_figures import Measured
from tests.bench.proof_gather import duration
from tests.bench.proof_measures import where
from tests.bench.proof_page import counted, lead, markdown, no_gain, page, seeds_of

FOLDER: Final = RESULTS / "proof"


def measure(settings: Settings) -> Iterator[Row]:
    """Yields the rows of every source; those that are kept are not measured again."""
    return proof_sources.rows(settings, proof_sources.chosen(os.environ))


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Writes the report; returns the listed figures that were measured."""
    listed = proof_figures.wanted()
    found = measured(rows, settings)
    # The report of the last run stays until this one is whole.
    folder = FOLDER.with_suffix(".part")
    shutil.rmtree(folder, ignore_errors=True)
    write(rows, listed, found, folder, pictures(rows, folder))
    shutil.rmtree(FOLDER, ignore_errors=True)
    folder.rename(FOLDER)
    return [
        Figure(figure.name, found[figure.name].value, proof_figures.stated(found[figure.name]), figure.better, figure.goal)
        for figure in listed
        if figure.name in found
    ]


def measured(rows: Sequence[Row], settings: Settings) -> dict[str, Measured]:
    """Returns every figure that the rows give, by name, with its spread where the suite has seeds."""
    found = {row["name"]: proof_figures.of_unit(row["value"], row["unit"]) for row in rows if row["kind"] == "figure"}
    for device in names.profiles_in_order(row["device"] for row in rows if row["suite"] == "emulated")[::-1]:
        # The main device comes last, and its figures stand where two devices have one of the same name.
        own = proof_served.paired(where(rows, suite="emulated", device=device))
        found |= proof_figures.measured(own, lambda some: serving_emulated.figures(some, settings))
    bare = [row for row in rows if row["suite"] == "serving" and row["kind"] != "figure"]
    found |= proof_figures.measured(bare, lambda some: serving.figures(some, settings))
    grid = where(rows, suite="gain")
    if grid:
        from tests.bench import gain

        whole = proof_figures.measured(grid, lambda some: gain.figures(some, settings))
        found |= proof_figures.with_ablations(whole, proof_figures.ablated(grid, lambda some: gain.figures(some, settings)))
    return found


def write(
    rows: Sequence[Row], listed: Sequence[proof_figures.Wanted], found: Mapping[str, Measured], folder: Path, drawn: Mapping[str, Any]
) -> Path:
    """Writes report.html with the drawn pictures, figures.md and the rows; returns the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    table = proof_figures.table(listed, found)
    (folder / "figures.md").write_text(markdown(table))
    context = {
        "pictures": drawn, "tables": {**_tables(rows), "figures": table, "misses": proof_figures.misses(listed, found)},
        **_sentences(rows), "counts": counted([proof_figures.judged(figure, found.get(figure.name)) for figure in listed]),
        "files": _files(rows, folder),
    }  # fmt: skip
    path = folder / "report.html"
    path.write_text(page(context))
    return path


def pictures(rows: Sequence[Row], folder: Path) -> dict[str, Any]:
    """Draws every picture that the rows suffice for, each also as a PNG in the folder, by its place on the page."""
    grid, cells = where(rows, suite="gain"), proof_served.summaries(where(rows, suite="emulated"))
    own = [data for data in names.MAIN_DATA if proof_tables.main_rows(grid, data)]
    return {
        "gain": proof_pictures.gain(grid, folder) if own else None,
        "parts": proof_pictures.parts(grid, folder),
        "ablations": [proof_pictures.ablations(grid, data, folder) for data in own],
        "frontier": proof_pictures.frontier(grid, folder) if own else None,
        "profiles": proof_pictures.profiles(grid, folder) if grid else None,
        "emulated": proof_served.picture(cells, folder) if cells else None,
    }


def _tables(rows: Sequence[Row]) -> dict[str, Any]:
    grid, cells = where(rows, suite="gain"), proof_served.summaries(where(rows, suite="emulated"))
    own = [data for data in names.MAIN_DATA if proof_tables.main_rows(grid, data)]
    return {
        "parts": proof_tables.parts(grid), "ablations": [proof_tables.ablations(grid, data) for data in own],
        "frontier": [proof_tables.frontier(grid, data) for data in own], "frontiers": proof_tables.frontiers(grid),
        "overview": [proof_tables.overview(grid, load) for load in (0.9, 1.1)], "by_profile": proof_tables.by_profile(grid),
        "null": proof_tables.null_cases(grid), "lengths": [proof_tables.by_length(grid, data, load) for data in own for load in (0.9, 1.1)],
        "worse": proof_tables.worse(grid), "cpu": proof_served.cpu(cells), "emulated": proof_served.over_http(cells),
        "clients": proof_served.clients(where(rows, kind="client")),
    }  # fmt: skip


def _sentences(rows: Sequence[Row]) -> dict[str, Any]:
    grid = where(rows, suite="gain")
    windows = sorted({row["window_seconds"] for row in grid})
    http_windows = sorted({row["window_seconds"] for row in where(rows, suite="emulated")})
    commits = sorted({row["commit"] for row in rows if "commit" in row})
    notices = []
    if windows and windows[-1] < 600:
        notices.append(f"This is a quick look with windows of {duration(windows[-1])}; its figures are not those of a full run.")
    if http_windows and http_windows[0] < serving_emulated.FULL.window_seconds:
        notices.append(f"Over HTTP this is a quick look with windows of {duration(http_windows[0])}.")
    if len(commits) > 1:
        notices.append(f"The rows were measured with more than one version of the source: {', '.join(commits)}.")
    where_run = machine()
    versions = [
        ("alise", commit()), ("vLLM", metadata.version("vllm")), ("Python", where_run["python"]),
        ("Machine", f"{where_run['cpu']}, {where_run['cores']} cores, {where_run['memory_gib']} GiB, {where_run['system']}"),
    ]  # fmt: skip
    clients = dict.fromkeys(f"{row['client']} {row['client_version']}" for row in where(rows, kind="client"))
    return {
        "lead": lead(grid), "no_gain": no_gain(grid), "notices": notices, "seeds": seeds_of(grid), "measured": {"gain": bool(grid)},
        "window": " or ".join(duration(seconds) for seconds in windows) or "10 min",
        "http_window": " or ".join(duration(seconds) for seconds in http_windows) or duration(serving_emulated.FULL.window_seconds),
        "versions": [*versions, *([("Clients", ", ".join(clients))] if clients else [])],
        "client_commands": proof_served.commands(where(rows, kind="client")),
    }  # fmt: skip


def _files(rows: Sequence[Row], folder: Path) -> list[tuple[str, str]]:
    """Writes the rows of each suite, compressed, and returns their paths beside the report with their numbers."""
    found = []
    for suite in dict.fromkeys(row["suite"] for row in rows):
        own = where(rows, suite=suite)
        path = folder / "rows" / f"{suite}.jsonl.gz"
        path.parent.mkdir(exist_ok=True)
        # Without a time in it the same rows make the same file.
        with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as packed:
            packed.writelines(f"{json.dumps(row)}\n".encode() for row in own)
        found.append((f"rows/{path.name}", f"{len(own):,}"))
    return found

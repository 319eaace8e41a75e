"""The operator against a real API server, in parts: from `create` to children (children), a thousand AliseEngines (scale, in
operator_scale.py), what one namespace can cost the operator and the others (hostile, in operator_hostile.py), on a whole node from `apply`
to Ready (node, in operator_node.py), whether the manifests keep to Kubernetes' schemas and to checkov's rules (manifests), and whether the
operator takes fuzzed specs (fuzz). PARTS names some of them; without it, all are measured.

Against the control plane alone the operator runs as its own process with its own rights, and nothing waits for pods. `make bench-operator`
runs it.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from alise_operator.kube import HttpKube
from tests.bench import fuzz, manifests, operator_hostile, operator_node, operator_scale
from tests.bench.harness import Figure, Row, Settings, median, percentile
from tests.bench.operator_children import engine, until_children
from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import install, running_operator


def measure(settings: Settings) -> Iterator[Row]:
    """The rows of each part, in the order of PARTS below."""
    wanted = os.environ.get("PARTS", "").split() or list(PARTS)
    if unknown := [part for part in wanted if part not in PARTS]:
        raise SystemExit(f"PARTS={' '.join(unknown)}: expected some of {', '.join(PARTS)}")
    for part in PARTS:
        if part in wanted:
            yield from PARTS[part](settings)


def _children(settings: Settings) -> Iterator[Row]:
    """One control plane per seed; on it engines one after another, then a burst of engines at once."""
    engines = 5 if settings.quick else 30
    for seed in range(settings.seeds):
        with ControlPlane() as cp, tempfile.TemporaryDirectory() as folder:
            yield {"seed": seed, "what": "control_plane_start", "seconds": cp.start_seconds}
            install(cp)
            with running_operator(cp, Path(folder)):
                for seconds in asyncio.run(_one_by_one(cp.kubeconfig, engines)):
                    yield {"seed": seed, "what": "children", "seconds": seconds}
                yield {"seed": seed, "what": "burst", "engines": engines, "seconds": asyncio.run(_burst(cp.kubeconfig, engines))}


PARTS: Final[Mapping[str, Callable[[Settings], Iterator[Row]]]] = {
    "children": _children,
    "scale": operator_scale.measure,
    "hostile": operator_hostile.measure,
    "node": operator_node.measure,
    "manifests": lambda settings: manifests.measure(),
    "fuzz": lambda settings: fuzz.fuzz_operator(fuzz.QUICK_SPECS if settings.quick else fuzz.SPECS),
}


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """From the rows alone, of the parts that were measured."""
    found: list[Figure] = []
    kinds = {row.get("what") for row in rows}
    if "children" in kinds:
        children = [row["seconds"] for row in rows if row["what"] == "children"]
        per_engine = [row["seconds"] / row["engines"] for row in rows if row["what"] == "burst"]
        start = [row["seconds"] for row in rows if row["what"] == "control_plane_start"]
        found += [
            Figure("operator_children_p50_ms", 1000 * percentile(children, 0.5), "ms", "lower"),
            Figure("operator_children_p99_ms", 1000 * percentile(children, 0.99), "ms", "lower"),
            Figure("operator_burst_ms_per_engine", 1000 * median(per_engine), "ms", "lower"),
            Figure("control_plane_start_seconds", median(start), "s", "lower"),
        ]
    if "converge" in kinds:
        found += operator_scale.figures(rows)
    if "beside_edits" in kinds:
        found += hostile_figures(rows)
    if "ready" in kinds:
        found.append(Figure("apply_to_ready_seconds", median(row["seconds"] for row in rows if row["what"] == "ready"), "s", "lower"))
        found += [Figure(row["name"], row["megabytes"], "MB", "lower") for row in rows if row["what"] == "image"]
    if "manifest" in kinds:
        found += manifests.figures(rows)
    if "fuzzed_specs" in kinds:
        found += fuzz.operator_figures(rows)
    return found


def hostile_figures(rows: Sequence[Row]) -> list[Figure]:
    """What one namespace may cost."""
    beside, alone = ([row["seconds"] for row in rows if row["what"] == what] for what in ("beside_edits", "alone"))
    return [
        Figure("operator_peak_rss_mb", max(row["mb"] for row in rows if row["what"] == "peak_rss"), "MB", "lower", 256),
        Figure("healthz_failures_beside_10000_pods", sum(row["failed"] for row in rows if row["what"] == "healthz"), "", "lower", 0),
        Figure("converge_beside_edit_loop_ratio", median(beside) / median(alone), "", "lower", 1.5),
    ]


async def _one_by_one(kubeconfig: Path, engines: int) -> list[float]:
    async with HttpKube(kubeconfig) as kube:
        return [await until_children(kube, engine(f"one-{number}")) for number in range(engines)]


async def _burst(kubeconfig: Path, engines: int) -> float:
    async with HttpKube(kubeconfig) as kube:
        began = time.monotonic()
        await asyncio.gather(*(until_children(kube, engine(f"burst-{number}")) for number in range(engines)))
        return time.monotonic() - began

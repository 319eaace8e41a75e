"""The operator against a real API server: from `create` to children, how long the control plane takes to start, and what one namespace can
cost the operator and the others (operator_hostile.py); then, on a whole node, from `apply` to Ready (operator_node.py); and whether the
manifests keep to Kubernetes' schemas and to checkov's rules (manifests.py), and whether the operator takes fuzzed specs (fuzz.py).

Against the control plane alone the operator runs as its own process with its own rights, and nothing waits for pods.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from alise_operator.kube import HttpKube
from tests.bench import fuzz, manifests, operator_hostile, operator_node
from tests.bench.harness import Figure, Row, Settings, median, percentile
from tests.bench.operator_children import engine, until_children
from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import install, running_operator


def measure(settings: Settings) -> Iterator[Row]:
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
    yield from operator_hostile.measure(settings)
    yield from operator_node.measure(settings)
    yield from manifests.measure()
    yield from fuzz.fuzz_operator(fuzz.QUICK_SPECS)


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """From the rows alone."""
    found = {what: [row["seconds"] for row in rows if row["what"] == what] for what in ("control_plane_start", "children", "ready")}
    per_engine = [row["seconds"] / row["engines"] for row in rows if row["what"] == "burst"]
    return [
        Figure("operator_children_p50_ms", 1000 * percentile(found["children"], 0.5), "ms", "lower"),
        Figure("operator_children_p99_ms", 1000 * percentile(found["children"], 0.99), "ms", "lower"),
        Figure("operator_burst_ms_per_engine", 1000 * median(per_engine), "ms", "lower"),
        Figure("control_plane_start_seconds", median(found["control_plane_start"]), "s", "lower"),
        *hostile_figures(rows),
        Figure("apply_to_ready_seconds", median(found["ready"]), "s", "lower"),
        *(Figure(row["name"], row["megabytes"], "MB", "lower") for row in rows if row["what"] == "image"),
        *manifests.figures(rows),
        *fuzz.operator_figures(rows),
    ]


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

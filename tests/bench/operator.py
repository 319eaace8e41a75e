"""The operator against a real API server: from `create` to children, and how long the control plane takes to start; then, on a whole
node, from `apply` to Ready (operator_node.py).

Against the control plane alone the operator runs as its own process with its own rights, and nothing waits for pods.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from alise_operator.errors import Gone
from alise_operator.kube import HttpKube, Resource
from alise_operator.reconcile import ENGINES
from tests.bench import operator_node
from tests.bench.harness import Figure, Row, Settings, median, percentile
from tests.cluster.control_plane import ControlPlane
from tests.operator.control_plane import MANIFESTS, install, running_operator

# The last child that is applied: when it is there, all are.
LAST_CHILD: Final = Resource("networking.k8s.io/v1", "ingresses")
LOOK_SECONDS: Final = 0.005
GIVE_UP_SECONDS: Final = 60.0


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
    yield from operator_node.measure(settings)


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """From the rows alone."""
    found = {what: [row["seconds"] for row in rows if row["what"] == what] for what in ("control_plane_start", "children", "ready")}
    per_engine = [row["seconds"] / row["engines"] for row in rows if row["what"] == "burst"]
    return [
        Figure("operator_children_p50_ms", 1000 * percentile(found["children"], 0.5), "ms", "lower"),
        Figure("operator_children_p99_ms", 1000 * percentile(found["children"], 0.99), "ms", "lower"),
        Figure("operator_burst_ms_per_engine", 1000 * median(per_engine), "ms", "lower"),
        Figure("control_plane_start_seconds", median(found["control_plane_start"]), "s", "lower"),
        Figure("apply_to_ready_seconds", median(found["ready"]), "s", "lower"),
        *(Figure(row["name"], row["megabytes"], "MB", "lower") for row in rows if row["what"] == "image"),
    ]


async def _one_by_one(kubeconfig: Path, engines: int) -> list[float]:
    async with HttpKube(kubeconfig) as kube:
        return [await _until_children(kube, f"one-{number}") for number in range(engines)]


async def _burst(kubeconfig: Path, engines: int) -> float:
    async with HttpKube(kubeconfig) as kube:
        began = time.monotonic()
        await asyncio.gather(*(_until_children(kube, f"burst-{number}") for number in range(engines)))
        return time.monotonic() - began


async def _until_children(kube: HttpKube, name: str) -> float:
    """Seconds from creating the engine until its last child is there."""
    began = time.monotonic()
    await kube.create(ENGINES, _engine(name))
    while time.monotonic() - began < GIVE_UP_SECONDS:
        try:
            await kube.get(LAST_CHILD, "default", name)
        except Gone:
            await asyncio.sleep(LOOK_SECONDS)
        else:
            return time.monotonic() - began
    raise TimeoutError(f"the children of {name} did not appear within {GIVE_UP_SECONDS:.0f} s")


def _engine(name: str) -> dict[str, Any]:
    """The CPU sample under another name, without pods: the figure is the operator's, not the controller manager's."""
    resource: dict[str, Any] = yaml.safe_load((MANIFESTS / "samples" / "tiny.yaml").read_text())
    resource["metadata"] = {"name": name, "namespace": "default"}
    resource["spec"]["replicas"] = 0
    return resource

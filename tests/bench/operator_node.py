"""From `kubectl apply` to Ready on the whole node, and how large the images are. Real pods of the real images. `operator.py` runs it."""

import time
from collections.abc import Iterator
from typing import Final

from tests.bench.harness import Row, Settings
from tests.cluster import cluster, image_build
from tests.cluster.resource import Resource, wait_until
from tests.cluster.state import DEFAULT_NAME, named
from tests.tools import run_cluster

READY_SECONDS: Final = 420.0
GONE_SECONDS: Final = 200.0


def measure(settings: Settings) -> Iterator[Row]:
    """A row per image, and per seed the seconds from apply to Ready. Raises ClusterError where no node can be had."""
    target = run_cluster.bring_up(DEFAULT_NAME)
    try:
        for name, megabytes in image_build.figures(image_build.build()).items():
            yield {"seed": 0, "what": "image", "name": name, "megabytes": megabytes}
        run_cluster.install(target)
        for seed in range(1 if settings.quick else settings.seeds):
            yield {"seed": seed, "what": "ready", "seconds": _to_ready(target)}
    finally:
        if target.started_here:
            cluster.down(named(DEFAULT_NAME))


def _to_ready(target: run_cluster.Target) -> float:
    resource = Resource(target.access, run_cluster.NAME)
    _delete(resource)
    began = time.monotonic()
    run_cluster.apply_sample(target)
    resource.wait_condition("Ready", "True", READY_SECONDS)
    seconds = time.monotonic() - began
    _delete(resource)
    return seconds


def _delete(resource: Resource) -> None:
    resource.kubectl("delete", "alise", resource.name, "--ignore-not-found", "--wait=true", timeout_seconds=GONE_SECONDS)
    wait_until("its pods gone", lambda: not resource.pods(), GONE_SECONDS)

"""A pod that is told to stop before it serves is gone in seconds, however long its streams would have been given."""

import pytest

from alise_contract.names import ENGINE_CONTAINER, ENGINE_LABEL
from tests.cluster.errors import CommandFailed
from tests.e2e.conftest import manifest
from tests.e2e.support import Resource, wait_until
from tests.tools import run_cluster

pytestmark = pytest.mark.e2e

NAME = "early"
DRAIN_SECONDS = 300
GONE_SECONDS = 60.0


@pytest.mark.parametrize(
    "said",
    [
        pytest.param("", id="as soon as its process runs"),
        pytest.param("Starting to load model", id="while the model is loaded"),
    ],
)
def test_a_pod_that_is_deleted_while_it_starts_is_gone_long_before_its_drain_would_end(
    target: run_cluster.Target, tiny: Resource, said: str
) -> None:
    target.access.apply(manifest(NAME, drainSeconds=DRAIN_SECONDS, route={"type": "None"}))
    early = Resource(target.access, NAME)
    try:
        wait_until("its engine's process", lambda: is_running(early) and said in log(early), 120, every_seconds=0.5)
        assert early.ready_pods() == [], "it was ready before it could be deleted: nothing was tried"
    finally:
        early.kubectl("delete", "alise", NAME, "--wait=false")
    wait_until("its pods gone", lambda: pods(early) == [], GONE_SECONDS)


def is_running(resource: Resource) -> bool:
    """Whether the engine's container has a process."""
    found = [one for pod in resource.pods() for one in pod["status"].get("containerStatuses", []) if one["name"] == ENGINE_CONTAINER]
    return any("running" in one["state"] for one in found)


def log(resource: Resource) -> str:
    try:
        return resource.kubectl("logs", "-l", f"{ENGINE_LABEL}={resource.name}", "-c", ENGINE_CONTAINER, "--tail=-1")
    except CommandFailed:
        return ""


def pods(resource: Resource) -> list[str]:
    """Every pod, those on their way out as well."""
    return resource.kubectl("get", "pods", "-l", f"{ENGINE_LABEL}={resource.name}", "-o", "name").split()

"""A pod that has to stop before it serves is gone in seconds, however long its streams would have been given."""

from functools import partial

import pytest

from alise_contract.names import ENGINE_CONTAINER, ENGINE_LABEL
from tests.cluster.errors import CommandFailed
from tests.cluster.resource import Resource, wait_until
from tests.e2e.conftest import manifest
from tests.tools import run_cluster

pytestmark = pytest.mark.e2e

DRAIN_SECONDS = 300
GONE_SECONDS = 60.0
# How far a resource's engine has come when the resource is deleted, as its log says. They start side by side.
DELETED_AT = {"early": "", "loading": "Starting to load model"}


def test_pods_that_are_deleted_while_they_start_are_gone_long_before_their_drain_would_end(
    target: run_cluster.Target, tiny: Resource
) -> None:
    starting = {Resource(target.access, name): words for name, words in DELETED_AT.items()}
    try:
        for resource in starting:
            target.access.apply(manifest(resource.name, drainSeconds=DRAIN_SECONDS, route={"type": "None"}))
        for resource, words in starting.items():
            wait_until(f"the engine of {resource.name} at {words!r}", partial(has_come_to, resource, words), 240, every_seconds=0.5)
            assert resource.ready_pods() == [], "it was ready before it could be deleted: nothing was tried"
            resource.kubectl("delete", "alise", resource.name, "--wait=false")
    finally:
        for resource in starting:
            resource.kubectl("delete", "alise", resource.name, "--ignore-not-found", "--wait=false")
    for resource in starting:
        wait_until(f"the pods of {resource.name} gone", partial(is_gone, resource), GONE_SECONDS)


def has_come_to(resource: Resource, words: str) -> bool:
    return is_running(resource) and words in log(resource)


def is_running(resource: Resource) -> bool:
    """Whether the engine's container has a process."""
    found = [one for pod in resource.pods() for one in pod["status"].get("containerStatuses", []) if one["name"] == ENGINE_CONTAINER]
    return any("running" in one["state"] for one in found)


def log(resource: Resource) -> str:
    try:
        return resource.kubectl("logs", "-l", f"{ENGINE_LABEL}={resource.name}", "-c", ENGINE_CONTAINER, "--tail=-1")
    except CommandFailed:
        return ""


def is_gone(resource: Resource) -> bool:
    """Whether there is no pod any more, those on their way out counted as well."""
    return not resource.kubectl("get", "pods", "-l", f"{ENGINE_LABEL}={resource.name}", "-o", "name").split()

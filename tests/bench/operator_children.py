"""How long the operator takes from an engine's creation to its last child. `operator.py` runs it."""

import asyncio
import time
from typing import Any, Final

import yaml

from alise_operator.errors import Gone
from alise_operator.kube import HttpKube, Resource
from alise_operator.reconcile import ENGINES
from tests.operator.control_plane import MANIFESTS

# The last child that is applied: when it is there, all are.
LAST_CHILD: Final = Resource("networking.k8s.io/v1", "ingresses")
LOOK_SECONDS: Final = 0.005
GIVE_UP_SECONDS: Final = 60.0


async def until_children(kube: HttpKube, resource: dict[str, Any]) -> float:
    """Seconds from creating the engine until its last child is there."""
    began, name, namespace = time.monotonic(), resource["metadata"]["name"], resource["metadata"]["namespace"]
    await kube.create(ENGINES, resource)
    while time.monotonic() - began < GIVE_UP_SECONDS:
        try:
            await kube.get(LAST_CHILD, namespace, name)
        except Gone:
            await asyncio.sleep(LOOK_SECONDS)
        else:
            return time.monotonic() - began
    raise TimeoutError(f"the children of {namespace}/{name} did not appear within {GIVE_UP_SECONDS:.0f} s")


def engine(name: str, namespace: str = "default") -> dict[str, Any]:
    """The CPU sample under another name, without pods: the figure is the operator's, not the controller manager's."""
    resource: dict[str, Any] = yaml.safe_load((MANIFESTS / "samples" / "tiny.yaml").read_text())
    resource["metadata"] = {"name": name, "namespace": namespace}
    resource["spec"]["replicas"] = 0
    # A host of its own: two engines with one would be in each other's way.
    resource["spec"]["route"]["hosts"] = [f"{name}.{namespace}.alise.test"]
    return resource

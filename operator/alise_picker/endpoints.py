"""Which replicas are ready: from the EndpointSlices of the resource's Service, followed through the API server; or a fixed list.

EndpointSlices say what is needed and no more: pods would show their whole specs. The picker may list and watch them in its namespace, and
nothing else; besides, it reads the API server's version and API groups. While the API server is away, the last list stays in force.
`__main__.py` runs it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from alise_contract.names import LENGTHS_PORT
from alise_operator.cluster import Images
from alise_operator.errors import ApplyError, ClusterError
from alise_operator.kube import Kube, Resource
from alise_operator.pods import address_refusal
from alise_picker.replicas import Target

log = logging.getLogger(__name__)

_V1_MINOR: Final = 21
SERVICE_LABEL: Final = "kubernetes.io/service-name"
# As the Service of a resource calls the engine's port.
PORT_NAME: Final = "http"
MAX_REPLICAS: Final = 1000
RESYNC_SECONDS: Final = 60.0
# A change between a list and the opening of the watch behind it is seen by one more list after this.
OPENED_SECONDS: Final = 1.0
AGAIN_SECONDS: Final = 1.0


async def follow(kube: Kube, namespace: str, service: str, on_targets: Callable[[Sequence[Target]], None]) -> None:
    """Calls `on_targets` with the ready replicas at once and after each change, until cancelled."""
    changed = asyncio.Event()
    labels = f"{SERVICE_LABEL}={service}"
    slices = await _slices(kube)
    watching = asyncio.create_task(_watch(kube, slices, namespace, labels, changed), name="endpoints watch")
    patience = OPENED_SECONDS
    try:
        while True:
            changed.clear()
            try:
                on_targets(targets_of(await kube.list(slices, namespace, labels=labels)))
            except (ApplyError, ClusterError) as error:
                log.warning("the replicas cannot be listed; the last list stays in force", extra={"detail": str(error)})
                patience = AGAIN_SECONDS
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), patience)
            patience = RESYNC_SECONDS if not changed.is_set() else OPENED_SECONDS
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _slices(kube: Kube) -> Resource:
    """Returns the newest version of EndpointSlices that the API server has; both have the same fields."""
    while True:
        try:
            cluster = await kube.discover(Images())
        except (ApplyError, ClusterError) as error:
            log.warning("the API server does not answer; trying again", extra={"detail": str(error)})
            await asyncio.sleep(AGAIN_SECONDS)
            continue
        version = "v1" if (cluster.major, cluster.minor) >= (1, _V1_MINOR) else "v1beta1"
        return Resource(f"discovery.k8s.io/{version}", "endpointslices")


async def _watch(kube: Kube, slices: Resource, namespace: str, labels: str, changed: asyncio.Event) -> None:
    while True:
        with contextlib.suppress(ApplyError, ClusterError):
            async for _ in kube.watch(slices, namespace, labels=labels):
                changed.set()
        await asyncio.sleep(AGAIN_SECONDS)
        changed.set()


def targets_of(slices: Iterable[dict[str, Any]]) -> list[Target]:
    """Returns the ready replicas in EndpointSlices, sorted. Addresses that no pod has are left out."""
    found = set()
    for one in slices:
        port = next((port.get("port") for port in one.get("ports") or () if port.get("name") == PORT_NAME), None)
        for endpoint in one.get("endpoints") or ():
            # Absent means ready.
            if port is None or (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            for ip in (endpoint.get("addresses") or ())[:1]:
                if address_refusal({"metadata": {}, "status": {"podIP": ip}}) is None:
                    host = f"[{ip}]" if ":" in ip else ip
                    found.add(Target(f"{host}:{port}", f"{host}:{LENGTHS_PORT}"))
    return sorted(found, key=lambda target: target.address)[:MAX_REPLICAS]


def fixed(text: str) -> list[Target]:
    """Returns the replicas in `ADDRESS=LENGTHS_ADDRESS,…`. Raises ValueError."""
    found = []
    for part in text.split(","):
        address, equals, lengths = part.strip().partition("=")
        if not equals or not all(":" in one for one in (address, lengths)):
            raise ValueError(f"{part.strip()!r} is not ENGINE_HOST:PORT=SIDECAR_HOST:PORT, as 127.0.0.1:8000=127.0.0.1:9401")
        found.append(Target(address, lengths))
    return found

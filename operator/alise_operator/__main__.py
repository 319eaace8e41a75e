"""`alise-operator`: settings, logging, metrics and health; then a wait for the lease; then kopf and the workers until SIGTERM."""

import asyncio
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import kopf

from alise_contract.names import CONTRACT_VERSION
from alise_operator import handlers, logs, metrics
from alise_operator.app import App
from alise_operator.errors import LeaseLost
from alise_operator.kube import HttpKube, own_namespace
from alise_operator.lease import Lease
from alise_operator.poller import Poller
from alise_operator.reconcile import Reconciler
from alise_operator.server import serving
from alise_operator.settings import ConfigError, Settings, load
from alise_operator.watches import watch_engines, watch_pods

log = logging.getLogger(__name__)

# kopf ends its watches within this; after it the process ends anyway.
KOPF_SECONDS: Final = 10.0
# The API server takes objects that are nested 10,000 levels deep, as a pod patch may be. With Python's own limit of 1,000 one of them would
# end the watch, and with it the operator, for all resources. 20,000 levels were tried with the 8 MiB of stack that a main thread has.
RECURSION_LIMIT: Final = 50_000


async def run(settings: Settings) -> None:
    """Runs the whole operator until SIGTERM. Raises LeaseLost when it may not go on."""
    metrics.BUILD_INFO.labels(own_version(), CONTRACT_VERSION).set(1)
    # Until there is something that may fail, the process is well: one that waits for the lease is.
    unhealthy: list[Callable[[], str | None]] = []
    async with HttpKube() as kube, serving(lambda: unhealthy[0]() if unhealthy else None, settings.http_host, settings.http_port) as port:
        log.info("operator started", extra={"port": port})
        me = f"{socket.gethostname()}_{uuid.uuid4()}"
        lease = Lease(kube, settings.watch_namespace or own_namespace(), me, seconds=settings.lease_seconds)
        try:
            await lease.acquire()
            kube.before_write = lease.require
            async with Poller() as poller:
                reconciler = Reconciler(
                    kube,
                    poller,
                    settings.images,
                    allowed=settings.allowed,
                    route_annotations=settings.route_annotations,
                    namespace=settings.watch_namespace,
                )
                app = App(reconciler, resync_seconds=settings.resync_seconds, is_namespaced=bool(settings.watch_namespace))
                unhealthy.append(app.unhealthy)
                await act(settings, kube, lease, app)
        finally:
            await lease.release()


async def act(settings: Settings, kube: HttpKube, lease: Lease, app: App) -> None:
    """Works until kopf ends, which it does at SIGTERM, or the lease is lost. Raises LeaseLost."""
    registry, kopf_settings = kopf.OperatorRegistry(), kopf.OperatorSettings()
    handlers.configure(kopf_settings, is_namespaced=bool(settings.watch_namespace))
    holding = asyncio.create_task(lease.hold(), name="lease")
    async with app:
        app.run_beside("watch of resources", watch_engines(kube, settings.watch_namespace, app.queue.add))
        app.run_beside("watch of pods", watch_pods(kube, settings.watch_namespace, app.queue.add))
        handlers.register(registry, app)
        scope = {"namespaces": [settings.watch_namespace]} if settings.watch_namespace else {"clusterwide": True}
        watching = asyncio.create_task(kopf.operator(registry=registry, settings=kopf_settings, standalone=True, **scope), name="kopf")
        await asyncio.wait({watching, holding}, return_when=asyncio.FIRST_COMPLETED)
    # The workers have ended: nothing acts any more.
    lost = holding.done()
    for task in (holding, watching):
        task.cancel()
    with suppress(asyncio.CancelledError, TimeoutError):
        await asyncio.wait_for(watching, KOPF_SECONDS)
    if lost:
        holding.result()


def own_version() -> str:
    try:
        return version("alise")
    except PackageNotFoundError:
        return "unknown"


async def until_stopped(settings: Settings) -> None:
    """Runs the operator; SIGTERM ends it in the wait for the lease as well. kopf takes the signal over when it starts."""
    running = asyncio.create_task(run(settings), name="operator")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


def main() -> None:
    try:
        settings = load(os.environ)
    except ConfigError as error:
        sys.exit(f"alise-operator: {error}")
    logs.configure(settings.log_level)
    sys.setrecursionlimit(RECURSION_LIMIT)
    try:
        asyncio.run(until_stopped(settings))
    except LeaseLost as error:
        # Started again, the process waits for its turn, and remembers nothing that another operator may have changed.
        log.error("the operator stops", extra={"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()

"""`alise-operator`: reads the settings, serves metrics and health, waits for the lease, and runs kopf and the workers until SIGTERM.

The only module that reads the environment for settings, and the one that puts the others together.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import kopf

from alise_contract.release import release
from alise_operator import handlers, logs
from alise_operator.app import App
from alise_operator.demand import Demands
from alise_operator.errors import LeaseLost, OperatorError
from alise_operator.held_requests import HeldRequests
from alise_operator.kube import HttpKube, own_namespace
from alise_operator.lease import Lease
from alise_operator.load import Loads
from alise_operator.page.read import Reader
from alise_operator.page.server import serving_page
from alise_operator.poller import Poller
from alise_operator.reconcile import Reconciler
from alise_operator.server import serving
from alise_operator.settings import ConfigError, Settings, load
from alise_operator.watches import watch_engines, watch_pods

log = logging.getLogger(__name__)

# kopf ends its watches within this time; afterwards the process exits anyway.
KOPF_SECONDS: Final = 10.0
# The API server accepts objects that are nested 10,000 levels deep, as a pod patch may be. With Python's default limit of 1,000, one such
# object would end the watch, and with it the operator. 20,000 levels were tried with the main thread's stack of 8 MiB.
RECURSION_LIMIT: Final = 50_000


async def run(settings: Settings) -> None:
    """Runs the whole operator until SIGTERM. Raises LeaseLost if it may not continue."""
    # A process that waits for the lease is healthy; the check is added once there is something that may fail.
    unhealthy: list[Callable[[], str | None]] = []
    async with HttpKube() as kube, serving(lambda: unhealthy[0]() if unhealthy else None, settings.http_host, settings.http_port) as port:
        log.info("operator started", extra={"port": port})
        me = f"{socket.gethostname()}_{uuid.uuid4()}"
        lease = Lease(kube, settings.watch_namespace or own_namespace(), me, seconds=settings.lease_seconds)
        try:
            await lease.acquire()
            kube.before_write = lease.require
            demands, loads = Demands(), Loads()
            async with (
                Poller() as poller,
                HeldRequests(kube) as held,
                serving_keda(settings, demands),
                serving_page(Reader(kube, poller, loads, namespace=settings.watch_namespace), settings.page_port),
            ):
                reconciler = Reconciler(
                    kube,
                    poller,
                    settings.images,
                    keda=settings.keda_scaler(own_namespace()),
                    demands=demands,
                    held=held,
                    loads=loads,
                    allowed=settings.allowed,
                    route_annotations=settings.route_annotations,
                    namespace=settings.watch_namespace,
                )
                app = App(reconciler, resync_seconds=settings.resync_seconds, is_namespaced=bool(settings.watch_namespace))
                unhealthy.append(app.unhealthy)
                await act(settings, kube, lease, app)
        finally:
            await lease.release()


@asynccontextmanager
async def serving_keda(settings: Settings, demands: Demands) -> AsyncIterator[None]:
    """Serves KEDA while the block runs, if there is a certificate for it. Raises ConfigError."""
    if not settings.scaler_tls_dir:
        yield
        return
    # Loaded here, because an operator without KEDA does without the memory that gRPC takes.
    from alise_operator.scaler import serving_scaler

    async with serving_scaler(demands, Path(settings.scaler_tls_dir), settings.http_host, settings.scaler_port):
        yield


async def act(settings: Settings, kube: HttpKube, lease: Lease, app: App) -> None:
    """Works until kopf ends, which happens at SIGTERM, or until the lease is lost. Raises LeaseLost."""
    registry, kopf_settings = kopf.OperatorRegistry(), kopf.OperatorSettings()
    handlers.configure(kopf_settings, is_namespaced=bool(settings.watch_namespace))
    holding = asyncio.create_task(lease.hold(), name="lease")
    async with app:
        app.run_beside("watch of resources", watch_engines(kube, settings.watch_namespace, app.edited, app.reconciler.missed))
        app.run_beside("held requests", app.reconciler.wake(app.awaited))
        app.run_beside("watch of pods", watch_pods(kube, settings.watch_namespace, app.changed, app.reconciler.missed))
        handlers.register(registry, app)
        scope = {"namespaces": [settings.watch_namespace]} if settings.watch_namespace else {"clusterwide": True}
        watching = asyncio.create_task(kopf.operator(registry=registry, settings=kopf_settings, standalone=True, **scope), name="kopf")
        await asyncio.wait({watching, holding}, return_when=asyncio.FIRST_COMPLETED)
    # The workers have ended, so nothing acts any more.
    lost = holding.done()
    for task in (holding, watching):
        task.cancel()
    await ended(watching)
    if lost:
        holding.result()


async def ended(watching: asyncio.Task[None]) -> None:
    """Waits until kopf has ended, which first ends the tasks that are under way. What they raise then is logged: it is tried again."""
    try:
        await asyncio.wait_for(watching, KOPF_SECONDS)
    except (asyncio.CancelledError, TimeoutError):
        pass
    except OperatorError as error:
        log.info("a reconcile was interrupted by the end of this operator", extra={"detail": str(error)})


async def until_stopped(settings: Settings) -> None:
    """Runs the operator. SIGTERM also ends the wait for the lease; kopf handles the signal from its start on."""
    running = asyncio.create_task(run(settings), name="operator")
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


def parser() -> argparse.ArgumentParser:
    """Returns the command line, whose help lists the environment variables."""
    variables = "\n".join(
        textwrap.fill(
            f"{field.description} Default: {field.default if field.default != '' else 'empty'}.".replace("`", ""),
            width=100,
            initial_indent=f"  {field.alias}\n      ",
            subsequent_indent="      ",
        )
        for field in Settings.model_fields.values()
    )
    root = argparse.ArgumentParser(
        prog="alise-operator",
        description="Runs the Kubernetes operator for AliseEngines until SIGTERM. Outside a cluster it uses KUBECONFIG.",
        epilog=f"environment variables:\n{variables}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=release())
    return root


def main(argv: Sequence[str] | None = None) -> None:
    parser().parse_args(argv)
    try:
        settings = load(os.environ)
    except ConfigError as error:
        sys.exit(f"alise-operator: {error}")
    logs.configure(settings.log_level)
    sys.setrecursionlimit(RECURSION_LIMIT)
    try:
        asyncio.run(until_stopped(settings))
    except ConfigError as error:
        sys.exit(f"alise-operator: {error}")
    except LeaseLost as error:
        # After a restart the process waits for its turn, without memory of what another operator may have changed.
        log.error("the operator is stopping because it lost the lease", extra={"error": str(error)})
        sys.exit(1)


if __name__ == "__main__":
    main()

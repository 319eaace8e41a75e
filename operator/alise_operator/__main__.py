"""`alise-operator`: settings, logging, metrics, then kopf until SIGTERM."""

import asyncio
import logging
import os
import sys

import kopf

from alise_operator import handlers, logs
from alise_operator.app import App
from alise_operator.kube import HttpKube
from alise_operator.poller import Poller
from alise_operator.reconcile import Reconciler
from alise_operator.server import serving
from alise_operator.settings import ConfigError, Settings, load

log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """The whole operator, until it is told to stop."""
    registry, kopf_settings = kopf.OperatorRegistry(), kopf.OperatorSettings()
    handlers.configure(kopf_settings)
    async with HttpKube() as kube, Poller() as poller:
        reconciler = Reconciler(kube, poller, settings.images, allowed=settings.allowed)
        async with (
            App(reconciler, resync_seconds=settings.resync_seconds) as app,
            serving(app, settings.http_host, settings.http_port) as port,
        ):
            handlers.register(registry, app)
            log.info("operator started", extra={"port": port})
            await kopf.operator(registry=registry, settings=kopf_settings, clusterwide=True, standalone=True)


def main() -> None:
    try:
        settings = load(os.environ)
    except ConfigError as error:
        sys.exit(f"alise-operator: {error}")
    logs.configure(settings.log_level)
    asyncio.run(run(settings))


if __name__ == "__main__":
    main()

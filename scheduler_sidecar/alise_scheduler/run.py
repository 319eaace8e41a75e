"""The scheduler process: puts the parts together, runs until told to stop, or dies so that the supervisor starts it anew."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Callable

from alise_contract.names import ADMISSION_SOCKET, CONTROL_SOCKET

from .config import Settings
from .dispatcher import Dispatcher, LoopClock
from .engine.client import EngineClient
from .metrics import Metrics
from .predictor.model import BucketPredictor
from .rpc.admission import AdmissionServer, AdmissionService
from .rpc.http import HttpServer, make_app
from .state import ClassRule, State

log = logging.getLogger(__name__)


async def run(settings: Settings, restarts: int, beat: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT. `beat` is called at every turn of the dispatcher.

    Raises whatever ends the dispatcher, and OSError when a port or socket cannot be had.
    """
    metrics = Metrics()
    metrics.restarts.set(restarts)
    state = State(
        policy=settings.to_policy(),
        limits=settings.to_admit_limits(),
        classes={item.name: ClassRule(item.weight, item.slo_ttft_ms) for item in settings.classes},
        predictor=BucketPredictor(),
        metrics=metrics,
        salt=secrets.token_bytes(16),
    )
    engine = EngineClient(os.path.join(settings.socket_dir, CONTROL_SOCKET), metrics.reconnects.inc)
    dispatcher = Dispatcher(state, engine, LoopClock(), beat)
    admission = AdmissionServer(AdmissionService(dispatcher.admit, metrics), os.path.join(settings.socket_dir, ADMISSION_SOCKET))
    http = HttpServer(make_app(metrics.registry, dispatcher.status), settings.http_host, settings.http_port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    work = asyncio.create_task(dispatcher.run(), name="dispatcher")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await admission.start()
        port = await http.start()
        log.info("scheduler started", extra={"policy": settings.policy, "http_port": port, "restarts": restarts, "pid": os.getpid()})
        await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
            raise RuntimeError("the dispatcher ended without being told to")
    finally:
        await admission.stop()
        await http.stop()
        for task in (work, stopping):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await engine.close()
        log.info("scheduler stopped")

"""The scheduler process: puts the parts together, runs until told to stop, or dies so that the supervisor starts it anew."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from alise_contract.names import ADMISSION_SOCKET, CONTROL_SOCKET

from .config import Settings
from .dispatcher import Dispatcher, LoopClock
from .engine.client import EngineClient
from .metrics import Metrics
from .predictor.encode_queue import EncodeQueue
from .predictor.learner import Learner
from .predictor.model import BucketPredictor, Predictor
from .predictor.start import Parts, load_encoder, start
from .rpc.admission import AdmissionServer, AdmissionService, no_encoder
from .rpc.http import HttpServer, make_app
from .state import ClassRule, State

log = logging.getLogger(__name__)

# The encoder's thread gets the interpreter back within this long, whatever the loop is at.
_SWITCH_SECONDS: Final = 0.0005


async def run(settings: Settings, restarts: int, beat: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT. `beat` is called at every turn of the dispatcher.

    Raises whatever ends the dispatcher, and OSError when a port or socket cannot be had.
    """
    metrics = Metrics()
    metrics.restarts.set(restarts)
    sys.setswitchinterval(_SWITCH_SECONDS)
    parts = start(settings.history_dir, settings.history_dsn) if settings.predictor == "learned" else None
    predictor: Predictor = parts.predictor if parts else BucketPredictor()
    encoder = load_encoder(settings.encoder) if parts else None
    metrics.encoder_ready.set(encoder is not None)
    encoding = EncodeQueue(encoder, settings.encode_ms / 1000, lambda said: metrics.encodings.labels(said).inc()) if encoder else None
    state = State(
        policy=settings.to_policy(),
        limits=settings.to_admit_limits(),
        classes={item.name: ClassRule(item.weight, item.slo_ttft_ms) for item in settings.classes},
        predictor=predictor,
        metrics=metrics,
        salt=parts.salt if parts else secrets.token_bytes(16),
    )
    engine = EngineClient(os.path.join(settings.socket_dir, CONTROL_SOCKET), metrics.reconnects.inc)
    dispatcher = Dispatcher(state, engine, LoopClock(), beat)
    service = AdmissionService(dispatcher.admit, metrics, encoding.encode if encoding else no_encoder)
    admission = AdmissionServer(service, os.path.join(settings.socket_dir, ADMISSION_SOCKET))
    http = HttpServer(make_app(metrics.registry, dispatcher.status), settings.http_host, settings.http_port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    work = asyncio.create_task(dispatcher.run(), name="dispatcher")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    tasks: list[asyncio.Task[Any]] = [work, stopping]
    if parts:
        tasks.append(asyncio.create_task(_learner(parts, metrics).run(), name="learner"))
    try:
        await admission.start()
        port = await http.start()
        log.info("scheduler started", extra={"policy": settings.policy, "http_port": port, "restarts": restarts, "pid": os.getpid()})
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task is not stopping and task.done():
                await task
                raise RuntimeError(f"the {task.get_name()} ended without being told to")
    finally:
        await admission.stop()
        await http.stop()
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await engine.close()
        if encoding:
            encoding.close()
        if parts:
            await asyncio.to_thread(parts.archive.close)
        log.info("scheduler stopped")


def _learner(parts: Parts, metrics: Metrics) -> Learner:
    def measure() -> None:
        metrics.head_version.set(parts.predictor.version)
        metrics.head_rows.set(parts.predictor.head_rows)
        metrics.rollbacks.set(parts.predictor.rollbacks)
        for outlet in parts.archive.outlets():
            metrics.history_up.labels(outlet.name).set(outlet.up)
            metrics.history_dropped.labels(outlet.name).set(outlet.dropped)

    metrics.history_recovered.set(parts.recovered)
    return Learner(parts.predictor, parts.archive, lambda said: metrics.trainings.labels(said).inc(), on_turn=measure)

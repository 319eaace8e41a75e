"""The scheduler process: builds its parts, connects them, and runs until SIGTERM or an unexpected error.

`__main__.py` calls `run()` for `alise-scheduler run`, which the supervisor starts and restarts.
"""

import asyncio
import contextlib
import gc
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from alise_contract.names import CONTROL_SOCKET, REQUESTS_SOCKET

from .admissions import ClassRule
from .config import Settings
from .dispatcher import Dispatcher, LoopClock
from .engine.client import EngineClient
from .keys import Keys, keys_of
from .metrics import Metrics, Rise
from .predictor.encode_queue import EncodeQueue
from .predictor.learned import LearnedPredictor
from .predictor.start import Parts, Where, load_encoder, start
from .predictor.training.loop import Learner, prior_in_process
from .rpc.admission import AdmissionService
from .rpc.lengths import LengthsServer, LengthsService
from .rpc.server import AdmissionServer
from .state import State

log = logging.getLogger(__name__)

# The encoder's thread gets the interpreter lock within this time, even while the event loop is busy.
_SWITCH_SECONDS: Final = 0.0005


async def run(settings: Settings, restarts: int, beat: Callable[[], None]) -> None:
    """Serves until SIGTERM or SIGINT. `beat` is called at every turn of the dispatcher.

    Admissions are answered at once. The learned state, the encoder and the HTTP server follow as soon as they are loaded. Raises any error
    that ends the dispatcher, and OSError if a port or socket is not available.
    """
    metrics = Metrics(item.name for item in settings.classes)
    metrics.restarts.inc(restarts)
    sys.setswitchinterval(_SWITCH_SECONDS)
    encoding = EncodeQueue(
        None,
        settings.encode_ms / 1000,
        lambda outcome: metrics.encodings.labels(outcome).inc(),
        on_failure=metrics.background_failures.labels("encoder").inc,
    )
    keys = keys_of(settings)
    state = State(
        policy=settings.to_policy(),
        limits=settings.to_admit_limits(),
        classes={item.name: ClassRule(item.weight, item.slo_ttft_ms) for item in settings.classes},
        predictor=LearnedPredictor(),
        metrics=metrics,
        salt=keys.salt,
        hint_key=keys.hint,
    )
    engine = EngineClient(os.path.join(settings.socket_dir, CONTROL_SOCKET), metrics.reconnects.inc)
    dispatcher = Dispatcher(state, engine, LoopClock(), beat)
    service = AdmissionService(dispatcher.admit, metrics, encoding.encode, dispatcher.withdraw)
    admission = AdmissionServer(service, settings.socket_dir)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(dispatcher.run(), name="dispatcher"), stopping]
    try:
        await admission.start()
        tasks.append(asyncio.create_task(admission.serve(), name="admission server"))
        if settings.predictor == "learned":
            tasks.append(asyncio.create_task(_learn(settings, keys, state, engine, encoding, metrics), name="learner"))
        tasks.append(asyncio.create_task(_serve_http(settings, dispatcher, metrics), name="http server"))
        if settings.lengths_port:
            tasks.append(asyncio.create_task(_serve_lengths(settings, dispatcher, encoding), name="lengths server"))
        log.info("scheduler started", extra={"policy": settings.policy, "restarts": restarts, "pid": os.getpid()})
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task is not stopping and task.done():
                await task
                raise RuntimeError(f"the {task.get_name()} ended unexpectedly")
    finally:
        await admission.stop()
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await engine.close()
        encoding.close()
        log.info("scheduler stopped")


async def _serve_http(settings: Settings, dispatcher: Dispatcher, metrics: Metrics) -> None:
    """Serves HTTP until cancelled. Its library takes 0.2 s to load, so it is loaded in a thread while admissions are answered."""
    http = await asyncio.to_thread(importlib.import_module, ".rpc.http", __package__)
    requests = await asyncio.to_thread(importlib.import_module, ".rpc.requests", __package__)
    server = http.HttpServer(http.make_app(metrics.registry, dispatcher.status), settings.http_host, settings.http_port)
    people = requests.SocketServer(
        requests.make_requests_app(dispatcher.requests, dispatcher.explain), os.path.join(settings.socket_dir, REQUESTS_SOCKET)
    )
    try:
        port = await server.start()
        await people.start()
        log.info("http listens", extra={"http_port": port, "pid": os.getpid()})
        await asyncio.Event().wait()
    finally:
        await people.stop()
        await server.stop()


async def _serve_lengths(settings: Settings, dispatcher: Dispatcher, encoding: EncodeQueue) -> None:
    """Serves endpoint pickers until cancelled. Raises OSError if the port is not available."""
    server = LengthsServer(LengthsService(dispatcher.forecast, dispatcher.load_report, encoding.encode_aside), settings.http_host)
    try:
        port = await server.start(settings.lengths_port)
        log.info("lengths listens", extra={"lengths_port": port})
        await server.serve()
    finally:
        await server.stop()


async def _learn(
    settings: Settings, keys: Keys, state: State, engine: EngineClient, encoding: EncodeQueue, metrics: Metrics
) -> None:  # fmt: skip
    """Loads the learned state and then the encoder, then learns until cancelled."""
    where = Where(settings.history_dir, settings.history_dsn, keys.head, settings.history_embeddings)
    try:
        parts = await asyncio.to_thread(start, where)
    except Exception:
        # The stored state would fail again after a restart. Without it, requests are served.
        log.exception("the history cannot be used; starting without it")
        metrics.background_failures.labels("history").inc()
        parts = await asyncio.to_thread(start, Where())
    try:
        state.predict_with(parts.predictor)
        if settings.encoder:
            encoding.encoder = await asyncio.to_thread(load_encoder, settings.encoder)
            engine.has_encoder = encoding.encoder is not None
            metrics.encoder_ready.set(engine.has_encoder)
        # These objects stay for the life of the process, so the garbage collector does not have to scan them again.
        gc.freeze()
        await _learner(parts, metrics, settings.encoder if engine.has_encoder else "").run()
    finally:
        await asyncio.to_thread(parts.archive.close)


def _learner(parts: Parts, metrics: Metrics, encoder: str) -> Learner:
    failed = metrics.background_failures.labels
    rolled_back, archive_failed = Rise(metrics.rollbacks.inc), Rise(failed("archive").inc)
    dropped = {outlet.name: Rise(metrics.history_dropped.labels(outlet.name).inc) for outlet in parts.archive.outlets()}

    def measure() -> None:
        parts.archive.start()
        metrics.head_version.set(parts.predictor.version)
        metrics.head_rows.set(parts.predictor.head_rows)
        metrics.prior_ready.set(parts.predictor.prior is not None)
        rolled_back(parts.predictor.rollbacks)
        archive_failed(parts.archive.failures + sum(outlet.failures for outlet in parts.archive.outlets()))
        for outlet in parts.archive.outlets():
            metrics.history_up.labels(outlet.name).set(outlet.up and parts.archive.alive)
            dropped[outlet.name](outlet.dropped)

    metrics.history_recovered.set(parts.recovered)
    return Learner(
        parts.predictor,
        parts.archive,
        lambda outcome: metrics.trainings.labels(outcome).inc(),
        on_turn=measure,
        know=partial(prior_in_process, encoder),
        on_failure=failed("learner").inc,
    )

"""Serves EngineControl over gRPC on a unix socket of the pod. It checks versions and sessions, and EngineCore decides how a plan is carried
out. `engine_api.py` starts it.
"""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from alise_contract.names import CONTRACT_VERSION, LOCAL_RPC_OPTIONS
from alise_contract.v1 import engine_control_pb2 as pb
from alise_contract.v1 import engine_control_pb2_grpc as pb_grpc

from ...errors import (
    AliseEngineError,
    ConfigError,
    CoreUnavailable,
    InvalidCall,
    PayloadError,
    StaleSequence,
    StaleSession,
    VersionRefused,
    WatcherTooSlow,
)
from ..metrics import Metrics
from ..status import SidecarTally
from . import convert, sessions
from . import core as core_calls
from .core import Core
from .drain import Drain
from .progress import Progress

logger = logging.getLogger("vllm.alise.control")

SERVICE: Final = "alise.v1.EngineControl"
# The kernel's limit for a unix socket's path, its final zero included.
MAX_SOCKET_PATH_BYTES: Final = 107
STOP_GRACE_SECONDS: Final = 0.5

_STATUS: Final[dict[type[AliseEngineError], grpc.StatusCode]] = {
    VersionRefused: grpc.StatusCode.FAILED_PRECONDITION,
    StaleSession: grpc.StatusCode.FAILED_PRECONDITION,
    StaleSequence: grpc.StatusCode.ABORTED,
    InvalidCall: grpc.StatusCode.INVALID_ARGUMENT,
    PayloadError: grpc.StatusCode.INTERNAL,
    WatcherTooSlow: grpc.StatusCode.RESOURCE_EXHAUSTED,
    CoreUnavailable: grpc.StatusCode.UNAVAILABLE,
}
_APPLY_OUTCOMES: Final[dict[type[AliseEngineError], str]] = {
    VersionRefused: "version",
    StaleSession: "stale_session",
    StaleSequence: "stale_sequence",
    InvalidCall: "invalid",
}

Context = grpc.aio.ServicerContext[Any, Any]


class ControlServicer(pb_grpc.EngineControlServicer):
    def __init__(
        self,
        core: Core,
        progress: Progress,
        drain: Drain,
        sidecar: SidecarTally,
        metrics: Metrics,
        report: Callable[[], pb.StatusReport],
        boot_id: str,
    ) -> None:
        self._core = core
        self._progress = progress
        self._drain = drain
        self._sidecar = sidecar
        self._metrics = metrics
        self._report = report
        self._boot_id = boot_id
        self._sessions = sessions.Sessions()
        # Two plans of one session must reach EngineCore in the order of their numbers.
        self._apply_turn = asyncio.Lock()

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        watcher = None
        try:
            self._check_version(request.contract_version)
            watcher = await self._progress.watch()
            self._sessions = sessions.opened(self._sessions, watcher.opening.session_id)
            self._sidecar.understood()
            logger.info("watch opened session=%s client=%s", watcher.opening.session_id, request.client)
            sequence = 0
            for message in convert.opening_messages(watcher.opening, self._boot_id):
                sequence += 1
                message.sequence = sequence
                yield message
            async for changes in watcher.changes():
                for message in convert.update_messages(changes):
                    sequence += 1
                    message.sequence = sequence
                    yield message
        except StaleSession as error:
            # For Watch this is not a wrong call but the end that the contract announces.
            await context.abort(grpc.StatusCode.ABORTED, str(error))
        except AliseEngineError as error:
            await _abort(context, error)
        finally:
            if watcher is not None:
                self._progress.unwatch(watcher)
                logger.info("watch ended session=%s", watcher.opening.session_id)

    async def Apply(self, request: pb.ApplyRequest, context: Context) -> pb.ApplyResponse:
        try:
            self._check_version(request.contract_version)
            call = convert.apply_call(request)
            async with self._apply_turn:
                sessions.check(self._sessions, request.session_id, request.sequence)
                answer = await core_calls.apply(self._core, call)
                # A newer session may have been opened meanwhile; its numbers are its own.
                if self._sessions.newest == request.session_id:
                    self._sessions = sessions.applied(self._sessions, request.sequence)
                self._sidecar.last_apply_seconds = self._sidecar.clock()
                self._sidecar.encoder = request.encoder
                self._sidecar.work = request.work if request.HasField("work") else None
        except AliseEngineError as error:
            self._metrics.applies.labels(_APPLY_OUTCOMES.get(type(error), "failed")).inc()
            await _abort(context, error)
        self._metrics.applies.labels("applied").inc()
        return pb.ApplyResponse(sequence=request.sequence, unknown_jobs=answer.unknown)

    async def Drain(self, request: pb.DrainRequest, context: Context) -> pb.DrainResponse:
        try:
            self._check_version(request.contract_version)
            logger.info("drain accept_seconds=%.1f timeout_seconds=%.1f", request.accept_seconds, request.timeout_seconds)
            drained = await self._drain.drain(request.accept_seconds, request.timeout_seconds)
        except AliseEngineError as error:
            await _abort(context, error)
        logger.info("drained finished=%s open=%d waited=%.1f s", drained.finished, drained.open_requests, drained.waited_seconds)
        return pb.DrainResponse(finished=drained.finished, open_requests=drained.open_requests, waited_seconds=drained.waited_seconds)

    async def Status(self, request: pb.StatusRequest, context: Context) -> pb.StatusReport:
        return self._report()

    def _check_version(self, version: int) -> None:
        if version != CONTRACT_VERSION:
            self._sidecar.refused(version)
            raise VersionRefused(
                f"contract version {version} is not supported, this engine has {CONTRACT_VERSION}: use images of one release"
            )


async def _abort(context: Context, error: AliseEngineError) -> NoReturn:
    await context.abort(_STATUS.get(type(error), grpc.StatusCode.INTERNAL), str(error))
    raise AssertionError("abort always raises")


class ControlServer:
    """Owns the server's socket from `start` to `stop`."""

    def __init__(self, servicer: ControlServicer, socket: Path) -> None:
        self._servicer = servicer
        self._socket = socket
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Starts to serve. Raises ConfigError when the socket cannot be created."""
        prepare_socket(self._socket)
        server = grpc.aio.server(options=LOCAL_RPC_OPTIONS)
        pb_grpc.add_EngineControlServicer_to_server(self._servicer, server)
        checks = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        for name in ("", SERVICE):
            await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        # The socket must not be reachable by others between bind and chmod; the directory is 0700 as well.
        before = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{self._socket}")
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {self._socket}: {error}") from error
        finally:
            os.umask(before)
        os.chmod(self._socket, 0o600)
        await server.start()
        self._server = server
        logger.info("control server on %s", self._socket)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(STOP_GRACE_SECONDS)
            self._server = None
        # The sidecar's preStop waits for it to vanish.
        self._socket.unlink(missing_ok=True)


def prepare_socket(socket: Path) -> None:
    """Creates the directory with mode 0700 if it is missing, and removes the socket of a killed predecessor. Raises ConfigError."""
    length = len(os.fsencode(socket))
    if length > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the socket's path {socket} has {length} bytes, the kernel allows {MAX_SOCKET_PATH_BYTES}: use a shorter --alise-socket-dir"
        )
    try:
        socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if stat.S_ISSOCK(socket.lstat().st_mode):
            socket.unlink()
        else:
            raise ConfigError(f"{socket} exists and is not a socket: remove it, or use another --alise-socket-dir")
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"cannot create the socket {socket}: {error.strerror}; use another --alise-socket-dir") from error

"""The two unix sockets of admission: one for the middleware's requests, and one for gRPC with health and reflection.

`run.py` starts and stops it. `admission.py` answers the requests.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]
from grpc_reflection.v1alpha import reflection

from alise_contract.names import ADMISSION_GRPC_SOCKET, ADMISSION_SOCKET, LOCAL_RPC_OPTIONS
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1.admission_pb2_grpc import add_AdmissionServicer_to_server

from .admission import AdmissionService
from .connection import AdmissionConnections

log = logging.getLogger(__name__)

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Admission"].full_name


def _remove_stale(path: str) -> None:
    """Removes a socket that a dead process left, and creates its folder with mode 0700 if there is none."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)


class AdmissionServer:
    """Admission on two unix sockets of a folder: the middleware's questions, and gRPC with health and reflection."""

    def __init__(self, service: AdmissionService, folder: str) -> None:
        self._path = os.path.join(folder, ADMISSION_SOCKET)
        self._grpc_path = os.path.join(folder, ADMISSION_GRPC_SOCKET)
        self._connections = AdmissionConnections(service)
        self._listening: asyncio.Server | None = None
        self._server = grpc.aio.server(options=(*LOCAL_RPC_OPTIONS, ("grpc.max_receive_message_length", 64 << 20)))
        self._health = health.HealthServicer()
        add_AdmissionServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names: Sequence[str] = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> None:
        """Listens on both sockets, replacing those that a dead process left."""
        _remove_stale(self._path)
        _remove_stale(self._grpc_path)
        mask = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self._grpc_path}")
            await self._server.start()
            self._listening = await asyncio.get_running_loop().create_unix_server(self._connections.connected, self._path)
        finally:
            os.umask(mask)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("admission listens", extra={"socket": self._path})

    async def serve(self) -> None:
        """Waits until the server ends, which only `stop` should cause."""
        await self._server.wait_for_termination()

    async def stop(self, grace_seconds: float = 1.0) -> None:
        """Stops listening. Open calls are answered within the grace period."""
        await self._health.enter_graceful_shutdown()
        if self._listening is not None:
            self._listening.close()
        await self._connections.end(grace_seconds)
        await self._server.stop(grace_seconds)

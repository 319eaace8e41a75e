"""Serves KEDA's interface for external scalers over TLS, so that KEDA scales AliseEngines by their predicted work.

__main__.py runs it while this operator is active, if a certificate is configured. It reads demand.py, and touches neither the cluster nor
pods. KEDA asks for each ScaledObject, which has the name of its AliseEngine. The certificate is read again when its files change, because
cert-manager and similar tools renew it.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc

from alise_contract.v1 import externalscaler_pb2 as pb
from alise_contract.v1.externalscaler_pb2_grpc import ExternalScalerServicer, add_ExternalScalerServicer_to_server
from alise_operator.demand import Demand, Demands
from alise_operator.settings import ConfigError

log = logging.getLogger(__name__)

METRIC: Final = "predicted-work-seconds"
# Streams of all ScaledObjects, and the calls beside them. More are refused, so that a client cannot exhaust the operator.
_MOST_CALLS: Final = 10_000
_MOST_MESSAGE_BYTES: Final = 64 * 1024
_STOP_SECONDS: Final = 1.0

Context = grpc.aio.ServicerContext[Any, Any]


class Scaler(ExternalScalerServicer):
    """Answers KEDA. An AliseEngine that has not been observed yet is UNAVAILABLE: KEDA then keeps the number of pods and asks again."""

    def __init__(self, demands: Demands) -> None:
        self._demands = demands

    async def IsActive(self, request: pb.ScaledObjectRef, context: Context) -> pb.IsActiveResponse:
        return pb.IsActiveResponse(result=(await self._demand(request, context)).is_active)

    async def StreamIsActive(self, request: pb.ScaledObjectRef, context: Context) -> AsyncIterator[pb.IsActiveResponse]:
        last: bool | None = None
        demand: Demand | None = await self._demand(request, context)
        while demand is not None:
            # Nothing has run since the look, so no change is missed. A name that is not known leaves nothing behind.
            change = self._demands.next_change(request.namespace, request.name)
            if demand.is_active != last:
                last = demand.is_active
                yield pb.IsActiveResponse(result=last)
            await change.wait()
            # An open stream does not show that KEDA is still there, as a call does.
            demand = self._demands.known(request.namespace, request.name)
        await _unavailable(context, request)

    async def GetMetricSpec(self, request: pb.ScaledObjectRef, context: Context) -> pb.GetMetricSpecResponse:
        target = (await self._demand(request, context)).target_seconds
        spec = pb.MetricSpec(metricName=METRIC, targetSize=max(1, round(target)), targetSizeFloat=target)
        return pb.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context) -> pb.GetMetricsResponse:
        seconds = (await self._demand(request.scaledObjectRef, context)).seconds
        value = pb.MetricValue(metricName=METRIC, metricValue=round(seconds), metricValueFloat=seconds)
        return pb.GetMetricsResponse(metricValues=[value])

    async def _demand(self, request: pb.ScaledObjectRef, context: Context) -> Demand:
        demand = self._demands.get(request.namespace, request.name)
        if demand is None:
            await _unavailable(context, request)
        return demand


async def _unavailable(context: Context, request: pb.ScaledObjectRef) -> NoReturn:
    await context.abort(
        grpc.StatusCode.UNAVAILABLE,
        f"the predicted work of AliseEngine {request.namespace}/{request.name} is not known: it has no spec.autoscaling, or the operator "
        "has just started and has not read the status of its pods yet",
    )
    raise AssertionError("abort always raises")


@asynccontextmanager
async def serving_scaler(demands: Demands, folder: Path, host: str, port: int) -> AsyncIterator[int]:
    """Serves while the block runs, and yields the port. `folder` has tls.crt and tls.key, as a mounted Secret of type kubernetes.io/tls.

    Raises ConfigError if there is no such certificate, or the port is taken.
    """
    certificate = Certificate(folder)
    options = (("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES), ("grpc.so_reuseport", 0))
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=_MOST_CALLS)
    add_ExternalScalerServicer_to_server(Scaler(demands), server)
    try:
        bound = server.add_secure_port(f"{host}:{port}", certificate.credentials())
    except RuntimeError as error:
        raise ConfigError(f"ALISE_SCALER_PORT={port}: the scaler for KEDA cannot listen: {error}") from error
    await server.start()
    log.info("scaler for KEDA started", extra={"port": bound})
    try:
        yield bound
    finally:
        await server.stop(_STOP_SECONDS)


class Certificate:
    """A certificate and its key in a folder. New connections use the files' present content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._served: tuple[bytes, bytes] | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Raises ConfigError if the files cannot be read."""
        try:
            self._served = self._read()
        except OSError as error:
            raise ConfigError(
                f"ALISE_SCALER_TLS_DIR={self._folder}: {error.strerror}: {error.filename}; mount a Secret of type kubernetes.io/tls there, "
                "or leave the setting empty to do without KEDA"
            ) from error
        key, chain = self._served
        first = grpc.ssl_server_certificate_configuration([(key, chain)])
        # None keeps the last certificate; the stubs do not know it.
        return grpc.dynamic_ssl_server_credentials(first, self._renewed)  # type: ignore[arg-type]

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns the configuration for a new connection; None if the files have not changed, or cannot be read while they are renewed."""
        try:
            present = self._read()
        except OSError as error:
            log.warning("the certificate of the scaler cannot be read; the last one is used", extra={"error": str(error)})
            return None
        if present == self._served:
            return None
        self._served = present
        key, chain = present
        return grpc.ssl_server_certificate_configuration([(key, chain)])

    def _read(self) -> tuple[bytes, bytes]:
        return (self._folder / "tls.key").read_bytes(), (self._folder / "tls.crt").read_bytes()

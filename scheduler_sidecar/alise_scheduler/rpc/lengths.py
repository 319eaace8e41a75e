"""Answer endpoint pickers: the predicted length of a request, and the load of this replica.

`run.py` serves it on a TCP port of the pod if `lengths_port` is set. Nothing is admitted or learned from what is asked here.

It shares the event loop with the engine's own admissions. Predictions are refused while those of the last second took more than a tenth of
it. Their texts are embedded in a thread, where an admission waits for one of them at most; they are left out while those of the last second
took more than a tenth of it there. The load is looked at ten times a second for
all watches together. What grpc needs for a message is bounded only by MAX_CALLS, by MAX_MESSAGE_BYTES and by who may connect.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from grpc_reflection.v1alpha import reflection

from alise_contract.names import CONTRACT_VERSION
from alise_contract.v1 import lengths_pb2 as pb
from alise_contract.v1.lengths_pb2_grpc import LengthsServicer, add_LengthsServicer_to_server

from ..admissions import Ask
from ..core.estimate import Estimate
from ..core.lengths import Lengths
from ..core.load_report import LoadReport
from .admission import Encode, no_encoder
from .convert import prompt_of, to_ask

SERVICE: Final = pb.DESCRIPTOR.services_by_name["Lengths"].full_name
MAX_PREDICTIONS: Final = 32
# The part of the last second that predictions may take. More are refused.
MAX_SHARE: Final = 0.1
# Predictions and watches together; more are refused by the server.
MAX_CALLS: Final = 256
MAX_MESSAGE_BYTES: Final = 256 * 1024
# How often the load is looked at, and how often a watch sends one that has not changed.
LOOK_SECONDS: Final = 0.1
REPEAT_SECONDS: Final = 1.0


class LengthsService(LengthsServicer):
    """Reads the dispatcher's state; changes none of it."""

    def __init__(
        self,
        forecast: Callable[[Ask], tuple[Lengths, Estimate]],
        load: Callable[[], LoadReport],
        encode: Encode = no_encoder,
        repeat_seconds: float = REPEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`work_clock` is the CPU time of the calling thread."""
        self._forecast = forecast
        self._load = load
        self._encode = encode
        self._repeat_seconds = repeat_seconds
        self._clock = clock
        self._work_clock = work_clock
        self._predicting = 0
        # When each prediction of the last second ended, and the CPU time that it took.
        self._took: deque[tuple[float, float]] = deque()
        # The newest look at the load, and when it was.
        self._seen: tuple[float, LoadReport] | None = None

    async def Predict(self, request: pb.PredictRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.PredictResponse:
        given = request.request.contract_version
        if given != CONTRACT_VERSION:
            text = f"request.contract_version {given} is not supported, {CONTRACT_VERSION} is; use images of one release"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        if self._predicting >= MAX_PREDICTIONS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_PREDICTIONS} predictions are in flight; ask another replica")
        if self._share() > MAX_SHARE:
            text = f"predictions took more than {MAX_SHARE:.0%} of the last second; ask another replica, or ask less often"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._predicting += 1
        try:
            embedding = None if request.without_embedding else await self._encode(prompt_of(request.request))
        finally:
            self._predicting -= 1
        began = self._work_clock()
        lengths, estimate = self._forecast(to_ask(request.request, embedding))
        self._took.append((self._clock(), self._work_clock() - began))
        return pb.PredictResponse(
            quantiles=lengths.tokens, level=estimate.level, work_seconds=estimate.work_seconds, alone_seconds=estimate.alone_seconds
        )

    async def WatchLoad(self, request: pb.WatchLoadRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[pb.LoadReport]:
        sent: LoadReport | None = None
        sent_at = -self._repeat_seconds
        loop = asyncio.get_running_loop()
        while True:
            report = self._report()
            if report != sent or loop.time() - sent_at >= self._repeat_seconds:
                sent, sent_at = report, loop.time()
                yield to_message(report)
            await asyncio.sleep(LOOK_SECONDS)

    def _share(self) -> float:
        """The part of the last second that predictions took."""
        oldest = self._clock() - 1.0
        while self._took and self._took[0][0] <= oldest:
            self._took.popleft()
        return sum(seconds for _, seconds in self._took)

    def _report(self) -> LoadReport:
        """The load, at most LOOK_SECONDS old. All watches share it."""
        at = self._clock()
        if self._seen is None or at - self._seen[0] >= LOOK_SECONDS:
            self._seen = at, self._load()
        return self._seen[1]


def to_message(report: LoadReport) -> pb.LoadReport:
    """The report as a message."""
    levels = [pb.LevelLoad(level=row.level, samples=row.samples, work_seconds=row.work_seconds) for row in report.levels]
    return pb.LoadReport(
        levels=levels, slots=report.slots, draining=report.draining, connected=report.connected,
        max_wait_seconds=report.max_wait_seconds, arrivals=report.arrivals,
    )  # fmt: skip


class LengthsServer:
    """The service on a TCP port, with reflection for people's tools."""

    def __init__(self, service: LengthsService, host: str) -> None:
        options = (("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0))
        self._host = host
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_CALLS)
        add_LengthsServicer_to_server(service, self._server)
        reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), self._server)

    async def start(self, port: int) -> int:
        """Listens and returns the port; 0 takes a free one. Raises OSError if the port is not available."""
        try:
            bound = self._server.add_insecure_port(f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}")
        except RuntimeError as error:
            raise OSError(f"lengths_port {port} is not available on {self._host}: {error}") from error
        await self._server.start()
        return bound

    async def serve(self) -> None:
        """Waits until the server ends."""
        await self._server.wait_for_termination()

    async def stop(self) -> None:
        await self._server.stop(None)

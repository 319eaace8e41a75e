"""A small real `EngineControl` server on a unix socket: what the sidecar's client is tested against.

`pod.py`, `test_process.py` and `tests/bench/admit.py` start it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import grpc

from alise_contract.v1 import engine_control_pb2 as pb
from alise_contract.v1.engine_control_pb2_grpc import EngineControlServicer, add_EngineControlServicer_to_server


class EngineServer(EngineControlServicer):
    """Sessions and sequences by the contract's rules; the requests are what the test says."""

    def __init__(self, path: str, boot_id: str = "boot-1", max_num_seqs: int = 2) -> None:
        self.path = path
        self.boot_id = boot_id
        self.shape = pb.EngineShape(
            max_num_seqs=max_num_seqs, max_model_len=2048, block_size=32, num_device_blocks=512, block_bytes=4096, host_limit_bytes=1 << 20
        )
        self.requests: dict[str, pb.EngineRequest] = {}
        self.ranks: dict[str, pb.Rank] = {}
        self.limits: pb.Limits | None = None
        self.applies = 0
        self.sessions = 0
        # Applies answer with this instead, while set.
        self.refuse: grpc.StatusCode | None = None
        self.encoder = pb.ENCODER_STATE_UNSPECIFIED
        self._sequence = 0
        self._queue: asyncio.Queue[pb.Update | None] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> "EngineServer":
        if os.path.lexists(self.path):  # noqa: ASYNC240 a stat of a local socket
            os.unlink(self.path)
        self._server = grpc.aio.server()
        add_EngineControlServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self.path}")
        await self._server.start()
        return self

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(None)

    def report(self, **fields: Any) -> None:
        self.report_all([pb.EngineRequest(**fields)])

    def report_all(self, requests: list[pb.EngineRequest]) -> None:
        """One update for all of them, as an engine sends it."""
        self.requests.update({request.request_id: request for request in requests})
        self._queue.put_nowait(pb.Update(requests=requests))

    def finish(self, request_id: str, generated_tokens: int) -> None:
        request = self.requests.pop(request_id)
        done = pb.Finished(
            request_id=request_id, job_id=request.job_id, reason=pb.FINISH_REASON_STOP, prompt_tokens=8, generated_tokens=generated_tokens
        )
        self._queue.put_nowait(pb.Update(finished=[done]))

    async def Watch(self, request: pb.WatchRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> AsyncIterator[pb.WatchResponse]:
        self.sessions += 1
        self._sequence = 0
        self._queue.put_nowait(None)
        queue = self._queue = asyncio.Queue()
        yield pb.WatchResponse(
            sequence=1,
            snapshot=pb.Snapshot(
                boot_id=self.boot_id, session_id=f"s{self.sessions}", engine=self.shape, requests=list(self.requests.values())
            ),
        )
        number = 1
        while (update := await queue.get()) is not None:
            number += 1
            yield pb.WatchResponse(sequence=number, update=update)
        await context.abort(grpc.StatusCode.ABORTED, "a newer session opened")

    async def Apply(self, request: pb.ApplyRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.ApplyResponse:
        if self.refuse is not None:
            await context.abort(self.refuse, "the test refuses")
        if request.session_id != f"s{self.sessions}":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not the newest session")
        if request.sequence <= self._sequence:
            await context.abort(grpc.StatusCode.ABORTED, "stale sequence")
        self._sequence = request.sequence
        self.applies += 1
        self.encoder = request.encoder
        if request.HasField("limits"):
            self.limits = request.limits
        jobs = {item.job_id for item in self.requests.values()}
        self.ranks.update({rank.job_id: rank for rank in request.ranks if rank.job_id in jobs})
        return pb.ApplyResponse(sequence=request.sequence, unknown_jobs=[rank.job_id for rank in request.ranks if rank.job_id not in jobs])

    async def Status(self, request: pb.StatusRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.StatusReport:
        return pb.StatusReport(boot_id=self.boot_id)

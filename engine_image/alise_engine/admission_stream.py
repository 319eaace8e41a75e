"""The stream on which the sidecar is asked: opened with the first question, and anew after it broke. Many wait on it at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import grpc

from alise_contract.names import LOCAL_RPC_OPTIONS
from alise_contract.v1 import admission_pb2, admission_pb2_grpc

# A restarted sidecar is found again within a second; gRPC's own backoff grows to two minutes.
_CHANNEL_OPTIONS: Final = (
    *LOCAL_RPC_OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)
# Messages that wait to be sent.
MAX_UNSENT: Final = 10_000
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class AskError(Exception):
    """The sidecar did not decide."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(f"{code.name}: {detail}")
        self.code = code


class AdmissionStream:
    """Asks over one channel. Made outside of a loop, used inside of one."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._channel: grpc.aio.Channel | None = None
        self._open: _OpenStream | None = None
        self._closed = False

    async def ask(self, request: admission_pb2.AdmitRequest, timeout_seconds: float) -> admission_pb2.AdmitResponse:
        """The answer to this request, whose job nobody else may be asking about. Raises AskError: what failed, or that it took too long."""
        if self._closed:
            raise AskError(grpc.StatusCode.CANCELLED, "this side is shutting down")
        request.deadline_monotonic_ms = round(1000 * (time.monotonic() + timeout_seconds))
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._opened().ask(request)
        except TimeoutError:
            raise AskError(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {timeout_seconds} s") from None
        if answer.HasField("failure"):
            raise AskError(_CODES.get(answer.failure.code, grpc.StatusCode.UNKNOWN), answer.failure.message)
        return answer.response

    def tell(self, request: admission_pb2.AdmitRequest) -> None:
        """Sends what is not answered, where there is a stream. Never waits and never fails."""
        if not self._closed and self._open is not None and not self._open.ended:
            self._open.tell(request)

    async def close(self) -> None:
        self._closed = True
        if self._open is not None:
            self._open.cancel()
        if self._channel is not None:
            await self._channel.close(None)

    def _opened(self) -> "_OpenStream":
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"unix:{self._socket}", options=_CHANNEL_OPTIONS)
        if self._open is None or self._open.ended:
            self._open = _OpenStream(admission_pb2_grpc.AdmissionStub(self._channel))
        return self._open


class _OpenStream:
    """One call, from its start to its end."""

    def __init__(self, stub: Any) -> None:
        self.ended = False
        self._unsent: dict[str, admission_pb2.AdmitRequest] = {}
        self._more = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[admission_pb2.AdmitAnswer]] = {}
        self._call = stub.AdmitStream(self._questions())
        self._reading = asyncio.create_task(self._read(), name="admission answers")

    async def ask(self, request: admission_pb2.AdmitRequest) -> admission_pb2.AdmitAnswer:
        """Raises AskError when the stream ends first."""
        answer: asyncio.Future[admission_pb2.AdmitAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[request.job_id] = answer
        self._unsent[request.job_id] = request
        self._more.set()
        try:
            return await answer
        finally:
            # Nobody waits for it any more: a sidecar that hangs is not sent what piled up meanwhile.
            self._waiting.pop(request.job_id, None)
            self._unsent.pop(request.job_id, None)

    def tell(self, request: admission_pb2.AdmitRequest) -> None:
        # To a sidecar that hangs nothing is piled up.
        if len(self._unsent) < MAX_UNSENT:
            self._unsent[request.job_id] = request
            self._more.set()

    def cancel(self) -> None:
        self._call.cancel()

    async def _questions(self) -> AsyncIterator[admission_pb2.AdmitRequest]:
        while True:
            while self._unsent:
                yield self._unsent.pop(next(iter(self._unsent)))
            if self.ended:
                return
            self._more.clear()
            await self._more.wait()

    async def _read(self) -> None:
        code, detail = grpc.StatusCode.UNAVAILABLE, "the sidecar ended the stream"
        try:
            async for answer in self._call:
                waiting = self._waiting.get(answer.job_id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except grpc.aio.AioRpcError as error:
            code, detail = error.code(), error.details() or ""
        finally:
            self.ended = True
            # The library leaves the task that takes our questions waiting when the other side ends the call.
            self._call.cancel()
            self._more.set()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(AskError(code, detail))

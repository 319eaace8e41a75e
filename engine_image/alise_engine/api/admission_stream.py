"""Holds the connection to the sidecar: it is opened with the first question and again after it broke. Many questions wait on it at once.

`admission.py` calls it.
"""

import asyncio
import time
from pathlib import Path
from typing import Final

import grpc
from google.protobuf.message import DecodeError

from alise_contract.frames import MAX_FRAME_BYTES, Frames
from alise_contract.v1 import admission_pb2

# Messages that wait until the sidecar reads on.
MAX_UNSENT: Final = 10_000
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class AskError(Exception):
    """The sidecar did not decide."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(f"{code.name}: {detail}")
        self.code = code


class AdmissionStream:
    """Asks over one connection at a time. May be created outside of an event loop, and is used inside of one."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._open: _OpenStream | None = None
        self._opening = asyncio.Lock()
        self._closed = False

    async def ask(self, request: admission_pb2.AdmitRequest, timeout_seconds: float) -> admission_pb2.AdmitResponse:
        """The answer to this request, the only one about its job. Raises AskError: what failed, or that it took too long."""
        if self._closed:
            raise AskError(grpc.StatusCode.CANCELLED, "this side is shutting down")
        request.deadline_monotonic_ms = round(1000 * (time.monotonic() + timeout_seconds))
        if request.ByteSize() > MAX_FRAME_BYTES:
            # The sidecar would close the connection that all others ask on.
            raise AskError(grpc.StatusCode.INVALID_ARGUMENT, f"a question of {request.ByteSize()} bytes is more than {MAX_FRAME_BYTES}")
        try:
            async with asyncio.timeout(timeout_seconds):
                stream = self._open
                if stream is None or stream.ended:
                    stream = await self._opened()
                answer = await stream.ask(request)
        except TimeoutError:
            raise AskError(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {timeout_seconds} s") from None
        if answer.HasField("failure"):
            raise AskError(_CODES.get(answer.failure.code, grpc.StatusCode.UNKNOWN), answer.failure.message)
        return answer.response

    def tell(self, request: admission_pb2.AdmitRequest) -> None:
        """Sends a message that has no answer, if a connection is open. Never waits and never fails."""
        if not self._closed and self._open is not None and not self._open.ended:
            self._open.tell(request)

    async def close(self) -> None:
        self._closed = True
        if self._open is not None:
            self._open.close()

    async def _opened(self) -> "_OpenStream":
        """Raises AskError when no sidecar listens."""
        async with self._opening:
            if self._closed:
                raise AskError(grpc.StatusCode.CANCELLED, "this side is shutting down")
            if self._open is None or self._open.ended:
                stream = _OpenStream()
                try:
                    await asyncio.get_running_loop().create_unix_connection(lambda: stream.frames, str(self._socket))
                except OSError as error:
                    raise AskError(grpc.StatusCode.UNAVAILABLE, f"{self._socket}: {error.strerror or error}") from error
                self._open = stream
            return self._open


class _OpenStream:
    """One connection, from its start to its end."""

    def __init__(self) -> None:
        self.ended = False
        # Questions that the sidecar does not read yet.
        self._unsent: dict[str, admission_pb2.AdmitRequest] = {}
        self._waiting: dict[str, asyncio.Future[admission_pb2.AdmitAnswer]] = {}
        self.frames = Frames(self._received, self._lost, self._send_on)

    async def ask(self, request: admission_pb2.AdmitRequest) -> admission_pb2.AdmitAnswer:
        """Raises AskError when the connection ends first."""
        if self.ended:
            raise AskError(grpc.StatusCode.UNAVAILABLE, "the sidecar closed the connection")
        answer: asyncio.Future[admission_pb2.AdmitAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[request.job_id] = answer
        self._send(request)
        try:
            return await answer
        finally:
            # No caller waits for it any more, so a sidecar that hung does not get the backlog later.
            self._waiting.pop(request.job_id, None)
            self._unsent.pop(request.job_id, None)

    def tell(self, request: admission_pb2.AdmitRequest) -> None:
        # Nothing is queued for a sidecar that hangs.
        if len(self._unsent) < MAX_UNSENT:
            self._send(request)

    def close(self) -> None:
        self._end(grpc.StatusCode.CANCELLED, "this side is shutting down")

    def _send(self, request: admission_pb2.AdmitRequest) -> None:
        self._unsent[request.job_id] = request
        self._send_on()

    def _send_on(self) -> None:
        while self._unsent and self.frames.has_room:
            self.frames.send(self._unsent.pop(next(iter(self._unsent))).SerializeToString())

    def _received(self, message: bytes) -> None:
        try:
            answer = admission_pb2.AdmitAnswer.FromString(message)
        except DecodeError as error:
            self._end(grpc.StatusCode.INTERNAL, f"the sidecar's answer cannot be read: {error}")
            return
        waiting = self._waiting.get(answer.job_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def _lost(self) -> None:
        self._end(grpc.StatusCode.UNAVAILABLE, "the sidecar closed the connection")

    def _end(self, code: grpc.StatusCode, detail: str) -> None:
        self.ended = True
        self.frames.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(AskError(code, detail))

"""The middleware's connections: frames with AdmitRequests come in, frames with AdmitAnswers go out.

`server.py` makes one protocol per connection, and `admission.py` answers the requests. Nothing is decided here.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from alise_contract.frames import Frames
from alise_contract.v1 import admission_pb2 as pb

log = logging.getLogger(__name__)

# The largest number of unanswered requests of a connection.
MAX_IN_FLIGHT: Final = 1024


class Service(Protocol):
    """Answers the requests."""

    async def answer_in_time(self, request: pb.AdmitRequest) -> pb.AdmitAnswer | None:
        """The answer, or why there is none. None once the caller's deadline has passed."""

    def withdraw(self, request: pb.AdmitRequest) -> bool:
        """Stops counting a job that will not reach the engine. False if the message does not name a job."""


class AdmissionConnections:
    """All open connections."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._open: set[_Connection] = set()
        self._ending = False

    def connected(self) -> Frames:
        """The protocol of a new connection."""
        connection = _Connection(self._service, self._open.discard)
        self._open.add(connection)
        if self._ending:
            connection.end()
        return connection.frames

    async def end(self, grace_seconds: float) -> None:
        """Stops reading. Requests that were read are answered within the grace period."""
        self._ending = True
        answering = [task for connection in self._open for task in connection.end()]
        if answering:
            await asyncio.wait(answering, timeout=grace_seconds)
        for task in answering:
            task.cancel()


class _Connection:
    """Replies out of order, as results become ready.

    At most MAX_IN_FLIGHT requests are in flight. The rest stay unread, which back-pressures the client. They also stay unread while the
    client does not read its answers. A withdrawn job stops counting even if its admission is still in flight.
    """

    def __init__(self, service: Service, ended: Callable[["_Connection"], None]) -> None:
        self._service = service
        self._ended = ended
        self._answering: dict[asyncio.Task[None], str] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._ending = False
        self.frames = Frames(self._received, self._lost, self._read_on)

    def end(self) -> list[asyncio.Task[None]]:
        """Stops reading, and closes once every request is answered. Returns the tasks that are still answering."""
        self._ending = True
        self.frames.pause()
        if not self._answering:
            self.frames.close()
        return list(self._answering)

    def _received(self, message: bytes) -> None:
        try:
            request = pb.AdmitRequest.FromString(message)
        except DecodeError:
            log.warning("an admission request cannot be parsed; closing its connection")
            self.end()
            return
        if request.withdrawn:
            if self._service.withdraw(request) and (asking := self._asking.pop(request.job_id, None)) is not None:
                asking.cancel()
            return
        task = asyncio.create_task(self._answer(request))
        self._answering[task] = request.job_id
        self._asking[request.job_id] = task
        task.add_done_callback(self._answered)
        if len(self._answering) >= MAX_IN_FLIGHT or not self.frames.has_room:
            self.frames.pause()

    async def _answer(self, request: pb.AdmitRequest) -> None:
        answer = await self._service.answer_in_time(request)
        if answer is not None:
            self.frames.send(answer.SerializeToString())

    def _answered(self, task: "asyncio.Task[None]") -> None:
        job_id = self._answering.pop(task)
        if self._asking.get(job_id) is task:
            del self._asking[job_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("an admission request was not answered", exc_info=error)
        if self._ending and not self._answering:
            self.frames.close()
        else:
            self._read_on()

    def _read_on(self) -> None:
        if not self._ending and self.frames.has_room and len(self._answering) < MAX_IN_FLIGHT:
            self.frames.resume()

    def _lost(self) -> None:
        self._ending = True
        for task in self._answering:
            task.cancel()
        self._ended(self)

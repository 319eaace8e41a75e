"""What stands beside the API-server half of the engine in its tests: EngineCore, the sidecar's Admission service, an ASGI client.

`conftest.py`, `middleware_server.py` and many tests of `tests/engine` use them.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from msgspec.structs import replace

from alise_contract.frames import Frames
from alise_contract.v1 import admission_pb2
from alise_engine.errors import CoreUnavailable
from alise_engine.wire import calls as core
from alise_engine.wire import terms

SHAPE = core.EngineShape(
    max_num_seqs=16,
    max_num_batched_tokens=2048,
    max_model_len=4096,
    block_size=32,
    num_device_blocks=96,
    block_bytes=65536,
    host_limit_bytes=1 << 30,
    model="tiny",
    kv_bits=16,
)


def make_row(request_id: str = "r1", **changes: Any) -> core.RequestRow:
    row = core.RequestRow(
        request_id=request_id,
        job_id=f"job-{request_id}",
        phase=terms.PHASE_WAITING,
        prompt_tokens=10,
        generated_tokens=0,
        device_tokens=0,
        host_tokens=0,
        host_bytes=0,
        max_tokens=100,
        preemptions=0,
        priority=0,
        age_ms=1,
        phase_ms=1,
        hint="",
    )
    return replace(row, **changes)


def make_finished(request_id: str = "r1", **changes: Any) -> core.FinishedRow:
    ending = core.FinishedRow(request_id, f"job-{request_id}", terms.FINISH_STOP, 10, 5, 0, 100, 20, 10, 0)
    return replace(ending, **changes)


@dataclass
class FakeCore:
    """EngineCore as far as `wire.calls` shows it; the tests move its requests."""

    live: dict[str, core.RequestRow] = field(default_factory=dict)
    counters: core.Counters = field(default_factory=core.Counters)
    # In order.
    calls: list[core.Call] = field(default_factory=list)
    down: bool = False
    # In a step that does not end: no call is answered.
    stuck: bool = False
    _changed: dict[str, core.RequestRow] = field(default_factory=dict)
    _finished: list[core.FinishedRow] = field(default_factory=list)
    _steps: list[core.StepRow] = field(default_factory=list)
    _traces: list[core.TraceRow] = field(default_factory=list)

    async def call(self, call: core.Call) -> bytes:
        self.calls.append(call)
        await asyncio.sleep(3600 if self.stuck else 0)
        if self.down:
            raise CoreUnavailable("the engine is shutting down")
        match call:
            case core.SnapshotCall():
                self._changed.clear()
                return core.encode(core.SnapshotAnswer(SHAPE, tuple(self.live.values()), self.counters))
            case core.PollCall():
                rows, finished, steps = tuple(self._changed.values()), tuple(self._finished), tuple(self._steps)
                answer = core.PollAnswer(rows, finished, steps, self.counters, tuple(self._traces))
                self._changed, self._finished, self._steps, self._traces = {}, [], [], []
                return core.encode(answer)
            case core.ApplyCall(ranks):
                known = {row.job_id for row in self.live.values()}
                return core.encode(core.ApplyAnswer(tuple(rank.job_id for rank in ranks if rank.job_id not in known)))

    def put(self, row: core.RequestRow) -> None:
        self.live[row.request_id] = self._changed[row.request_id] = row

    def end(self, ending: core.FinishedRow, *marks: core.Mark) -> None:
        """`marks`: the request is traced."""
        self.live.pop(ending.request_id, None)
        self._changed.pop(ending.request_id, None)
        self._finished.append(ending)
        if marks:
            self._traces.append(core.TraceRow(ending, marks))

    def step(self, step: core.StepRow) -> None:
        self._steps.append(step)

    def count(self, kind: type[core.Call]) -> int:
        return sum(isinstance(call, kind) for call in self.calls)


# --- the sidecar ------------------------------------------------------------------------------------------------------------------

Answer = Callable[[admission_pb2.AdmitRequest], Awaitable[admission_pb2.AdmitResponse]]


class RefusedError(Exception):
    """The service fails with this code."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self.code = code


class FakeAdmission:
    """Answers on real connections; `answer` is exchanged by the test."""

    def __init__(self) -> None:
        self.requests: list[admission_pb2.AdmitRequest] = []
        self.calls = 0
        self.answer: Answer = admit(priority=0)
        self.answering: set[asyncio.Task[None]] = set()
        self.connections: list[Frames] = []

    def connected(self) -> Frames:
        self.calls += 1

        def received(message: bytes) -> None:
            request = admission_pb2.AdmitRequest.FromString(message)
            self.requests.append(request)
            if not request.withdrawn:
                task = asyncio.create_task(self._answer(request, frames))
                self.answering.add(task)
                task.add_done_callback(self.answering.discard)

        frames = Frames(received, lambda: self.connections.remove(frames))
        self.connections.append(frames)
        return frames

    async def _answer(self, request: admission_pb2.AdmitRequest, frames: Frames) -> None:
        try:
            said = admission_pb2.AdmitAnswer(job_id=request.job_id, response=await self.answer(request))
        except RefusedError as error:
            said = admission_pb2.AdmitAnswer(job_id=request.job_id, failure=admission_pb2.Failure(code=error.code.value[0], message="no"))
        frames.send(said.SerializeToString())


def admit(priority: int, hint: bytes = b"") -> Answer:
    async def answer(_: admission_pb2.AdmitRequest) -> admission_pb2.AdmitResponse:
        return admission_pb2.AdmitResponse(admitted=admission_pb2.Admitted(priority=priority, hint=hint))

    return answer


def reject(reason: admission_pb2.Rejected.Reason, message: str = "too much", retry_after_seconds: int = 7) -> Answer:
    rejected = admission_pb2.Rejected(reason=reason, message=message, retry_after_seconds=retry_after_seconds)

    async def answer(_: admission_pb2.AdmitRequest) -> admission_pb2.AdmitResponse:
        return admission_pb2.AdmitResponse(rejected=rejected)

    return answer


def fail(code: grpc.StatusCode) -> Answer:
    async def answer(_: admission_pb2.AdmitRequest) -> admission_pb2.AdmitResponse:
        raise RefusedError(code)

    return answer


def never() -> Answer:
    async def answer(_: admission_pb2.AdmitRequest) -> admission_pb2.AdmitResponse:
        await asyncio.Event().wait()
        raise AssertionError("waits for ever")

    return answer


@asynccontextmanager
async def admission_server(socket: Path) -> AsyncIterator[FakeAdmission]:
    sidecar = FakeAdmission()
    server = await asyncio.get_running_loop().create_unix_server(sidecar.connected, str(socket))
    try:
        yield sidecar
    finally:
        server.close()
        for task in sidecar.answering:
            task.cancel()
        for frames in sidecar.connections:
            frames.close()
        socket.unlink()  # noqa: ASYNC240


# --- the client -------------------------------------------------------------------------------------------------------------------


@dataclass
class Exchange:
    """One HTTP request against an ASGI application, driven by the test: what arrives and when the client goes away."""

    path: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    # The body arrives in messages of this many bytes.
    chunk_bytes: int = 1 << 16
    sent: list[dict[str, Any]] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    _gone: asyncio.Event = field(default_factory=asyncio.Event)
    _offset: int = 0
    _delivered: bool = False

    @property
    def scope(self) -> dict[str, Any]:
        headers = {"content-type": "application/json", "content-length": str(len(self.body)), **self.headers}
        pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        return {"type": "http", "method": self.method, "path": self.path, "headers": pairs, "query_string": b"", "root_path": ""}

    async def receive(self) -> dict[str, Any]:
        if not self._delivered:
            part = self.body[self._offset : self._offset + self.chunk_bytes]
            self._offset += len(part)
            self._delivered = self._offset >= len(self.body)
            return {"type": "http.request", "body": part, "more_body": not self._delivered}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))
        if message.get("body"):
            self.started.set()

    def disconnect(self) -> None:
        self._gone.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def response_headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def data(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def chunks(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:] if message.get("body")]

    def json(self) -> Any:
        return json.loads(self.data)


async def eventually(condition: Callable[[], bool], what: str, within_seconds: float = 30.0) -> None:
    """Waits for what another task does; fails, naming it, when it does not happen."""
    deadline_seconds = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline_seconds, f"did not happen within {within_seconds} s: {what}"
        await asyncio.sleep(0.005)

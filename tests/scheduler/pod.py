"""A sidecar's parts with real sockets between them: server, dispatcher, a small real EngineControl server.

`test_rpc.py`, `test_rpc_stream.py` and `test_withdrawals.py` start it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from alise_contract.names import CONTRACT_VERSION
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1.admission_pb2_grpc import AdmissionStub
from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.dispatcher import Dispatcher, LoopClock
from alise_scheduler.engine.client import EngineClient
from alise_scheduler.rpc.admission import AdmissionService
from alise_scheduler.rpc.http import HttpServer, make_app
from alise_scheduler.rpc.server import AdmissionServer
from alise_scheduler.state import State
from tests.scheduler.builders import make_state
from tests.scheduler.engine_server import EngineServer

PATIENCE_SECONDS = 20.0


async def until(what: Any) -> None:
    """Waits until something holds; fails when it does not for a long time."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not what():  # noqa: ASYNC110 what is waited for is another process' or task's state
            await asyncio.sleep(0.01)


class Encoding:
    """No encoder, but one that takes its time or fails where a test says so."""

    def __init__(self) -> None:
        self.hold: asyncio.Event | None = None
        self.broken = False
        self.asked = 0

    async def __call__(self, text: str) -> None:
        self.asked += 1
        if self.broken:
            raise RuntimeError("broken")
        if self.hold is not None:
            await self.hold.wait()


@dataclass
class Pod:
    state: State
    dispatcher: Dispatcher
    engine: EngineServer
    channel: grpc.aio.Channel
    folder: Path
    http_port: int
    server: AdmissionServer
    service: AdmissionService
    encoding: Encoding

    async def admit(self, job_id: str = "a", **fields: Any) -> pb.AdmitResponse:
        values: dict[str, Any] = {"contract_version": CONTRACT_VERSION, "job_id": job_id, "endpoint": 1, "prompt": "hi"}
        request = pb.AdmitRequest(**(values | fields))
        answer: pb.AdmitResponse = await AdmissionStub(self.channel).Admit(request, timeout=PATIENCE_SECONDS)
        return answer

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the series with these labels."""
        families = self.state.metrics.registry.collect()
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    async def get(self, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.http_port}{path}") as answer:
            return answer.status, await answer.text()


@contextlib.asynccontextmanager
async def started(folder: Path, limits: AdmitLimits | None = None) -> AsyncIterator[Pod]:
    folder.mkdir(exist_ok=True)  # noqa: ASYNC240
    engine = await EngineServer(str(folder / "control.sock")).start()
    state = make_state(limits=limits)
    client = EngineClient(str(folder / "control.sock"), state.metrics.reconnects.inc)
    dispatcher = Dispatcher(state, client, LoopClock())
    encoding = Encoding()
    service = AdmissionService(dispatcher.admit, state.metrics, encoding, dispatcher.withdraw)
    server = AdmissionServer(service, str(folder))
    http = HttpServer(make_app(state.metrics.registry, dispatcher.status), "127.0.0.1", 0)
    task = asyncio.create_task(dispatcher.run())
    await server.start()
    port = await http.start()
    channel = grpc.aio.insecure_channel(f"unix:{folder}/admission-grpc.sock")
    pod = Pod(state, dispatcher, engine, channel, folder, port, server, service, encoding)
    try:
        await until(lambda: state.session is not None)
        yield pod
    finally:
        await channel.close(None)
        await server.stop(0)
        await http.stop()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await client.close()
        await pod.engine.stop()

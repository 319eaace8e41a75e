"""The API half of an engine before a fake EngineCore, and a client of its control server.

`test_control_server.py` and `test_drain.py` use it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from alise_contract.names import CONTRACT_VERSION
from alise_contract.v1 import engine_control_pb2 as pb
from alise_contract.v1 import engine_control_pb2_grpc as pb_grpc
from alise_engine.api.engine_api import ApiSettings, EngineApi
from alise_engine.api.metrics import Metrics
from tests.engine.api_fakes import FakeCore

TIMEOUT_SECONDS = 10.0


class Engine:
    """The API half of an engine, and a client of its control server."""

    def __init__(self, api: EngineApi, core: FakeCore, channel: grpc.aio.Channel, registry: CollectorRegistry) -> None:
        self.api = api
        self.core = core
        self.channel = channel
        self.stub: Any = pb_grpc.EngineControlStub(channel)
        self.registry = registry

    def watch(self, contract_version: int = CONTRACT_VERSION) -> "Watching":
        return Watching(self.stub.Watch(pb.WatchRequest(contract_version=contract_version, client="test"), timeout=TIMEOUT_SECONDS))

    async def apply(self, session_id: str, sequence: int, *ranks: pb.Rank, **more: Any) -> pb.ApplyResponse:
        more.setdefault("contract_version", CONTRACT_VERSION)
        request = pb.ApplyRequest(session_id=session_id, sequence=sequence, ranks=ranks, **more)
        response: pb.ApplyResponse = await self.stub.Apply(request, timeout=TIMEOUT_SECONDS)
        return response

    async def drain(self, accept_seconds: float = 0.0, timeout_seconds: float = 5.0) -> pb.DrainResponse:
        request = pb.DrainRequest(contract_version=CONTRACT_VERSION, accept_seconds=accept_seconds, timeout_seconds=timeout_seconds)
        response: pb.DrainResponse = await self.stub.Drain(request, timeout=TIMEOUT_SECONDS)
        return response

    def metric(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"alise_engine_{name}", labels)
        assert value is not None, f"no metric {name} {labels}"
        return value


class Watching:
    def __init__(self, call: Any) -> None:
        self.call = call

    async def snapshot(self) -> pb.Snapshot:
        message = await self.call.read()
        assert message.WhichOneof("event") == "snapshot"
        return pb.Snapshot.FromString(message.snapshot.SerializeToString())

    async def update(self) -> pb.Update:
        message = await self.call.read()
        assert message.WhichOneof("event") == "update"
        return pb.Update.FromString(message.update.SerializeToString())

    async def status(self) -> grpc.StatusCode:
        """How the stream ends."""
        try:
            while await self.call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined]
                pass
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@asynccontextmanager
async def running(directory: Path, fake: FakeCore | None = None) -> AsyncIterator[Engine]:
    fake, registry = fake or FakeCore(), CollectorRegistry()
    api = EngineApi(ApiSettings(directory, 0.05, "0.32.0", bytes(32)), Metrics(registry))
    await api.connect(fake)
    async with grpc.aio.insecure_channel(f"unix:{directory / 'control.sock'}") as channel:
        try:
            yield Engine(api, fake, channel, registry)
        finally:
            await api.stop()


async def refused(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()

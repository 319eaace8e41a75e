"""What the picker has sent counts until a replica reports it: a real gRPC service in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from alise_contract.v1 import lengths_pb2
from alise_contract.v1.lengths_pb2_grpc import LengthsServicer, add_LengthsServicer_to_server
from alise_picker.choose import Sent
from alise_picker.exchange import Asked
from alise_picker.metrics import Metrics
from alise_picker.picker import Picker
from alise_picker.replicas import Replicas, Target
from tests.scheduler.pod import until

ADDRESS = "127.0.0.1:1"
BODY = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'


class Lengths(LengthsServicer):
    """Reports a number of arrivals each time that the test gives one."""

    def __init__(self) -> None:
        self.arrivals: asyncio.Queue[int] = asyncio.Queue()

    async def WatchLoad(self, request: lengths_pb2.WatchLoadRequest, context: Any) -> AsyncIterator[lengths_pb2.LoadReport]:
        while True:
            yield lengths_pb2.LoadReport(slots=2, connected=True, arrivals=await self.arrivals.get())


@asynccontextmanager
async def watched() -> "AsyncIterator[tuple[Replicas, Lengths]]":
    """A replica that has reported five arrivals."""
    async with AsyncExitStack() as stack:
        service, server = Lengths(), grpc.aio.server()
        add_LengthsServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        # The clock stands, so no request is taken for lost.
        replicas = Replicas(clock=lambda: 0.0)
        stack.push_async_callback(replicas.close)
        replicas.set([Target(ADDRESS, f"127.0.0.1:{port}")])
        service.arrivals.put_nowait(5)
        await until(lambda: replicas.endpoints()[0].load)
        yield replicas, service


def sent(replicas: Replicas) -> list[int]:
    return [one.level for one in replicas.endpoints()[0].sent]


async def test_a_request_counts_as_sent_until_it_is_reported() -> None:
    async with watched() as (replicas, service):
        for level in (1, 2, 3):
            replicas.note(ADDRESS, Sent(0.0, level, 1.0, 5.0))
        assert sent(replicas) == [1, 2, 3]
        service.arrivals.put_nowait(7)
        await until(lambda: len(sent(replicas)) < 3)
        assert sent(replicas) == [3]


@pytest.mark.parametrize(
    ("method", "path", "count"),
    [
        pytest.param("POST", "/v1/chat/completions", 1, id="a chat"),
        pytest.param("POST", "/v1/embeddings", 1, id="embeddings"),
        pytest.param("GET", "/v1/models", 0, id="the list of models"),
        pytest.param("POST", "/tokenize", 0, id="tokenizing"),
    ],
)
async def test_only_a_request_that_takes_a_slot_counts(method: str, path: str, count: int) -> None:
    async with watched() as (replicas, _):
        await Picker(replicas, Metrics()).decide(Asked(method, path, BODY))
        assert len(sent(replicas)) == count

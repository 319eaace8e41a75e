"""The service that Envoy calls, over gRPC in this process: what it keeps of a stream, and how it ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
import pytest

from alise_contract.v1 import ext_proc_pb2 as pb
from alise_picker.exchange import Asked
from alise_picker.metrics import Metrics
from alise_picker.picker import HoldLimits, Picker
from alise_picker.replicas import Replicas, Target
from alise_picker.server import SERVICE, Server
from tests.picker.test_exchange import body, headers
from tests.scheduler.pod import until

Stream: TypeAlias = "grpc.aio.StreamStreamCall[Any, Any]"
LIMITS = HoldLimits(10, 60.0)


@pytest.fixture
async def replicas() -> AsyncIterator[Replicas]:
    replicas = Replicas(leave_seconds=0.0)
    yield replicas
    await replicas.close()


@pytest.fixture
def picker(replicas: Replicas) -> Picker:
    return Picker(replicas, Metrics(), LIMITS, settle_seconds=0.0)


@pytest.fixture
async def server(picker: Picker) -> AsyncIterator[Server]:
    server = Server(picker, "127.0.0.1")
    yield server
    await server.stop(0)


@pytest.fixture
async def stream(server: Server) -> AsyncIterator[Stream]:
    """A stream as Envoy opens one for each request."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start(0)}") as channel:
        method = channel.stream_stream(f"/{SERVICE}/Process", pb.ProcessingRequest.SerializeToString, pb.ProcessingResponse.FromString)
        yield method(None)


async def test_a_body_is_not_kept_while_its_answer_streams(server: Server, replicas: Replicas, stream: Stream) -> None:
    replicas.set([Target("127.0.0.1:1", "127.0.0.1:1")])
    await stream.write(headers())
    await stream.write(body(b"{", ends=False))
    await until(lambda: server.room.taken == 1)
    await stream.write(body(b"}", ends=True))
    answer: Any = await stream.read()
    assert answer.HasField("request_headers")
    await until(lambda: server.room.taken == 0)


async def test_a_body_whose_client_goes_away_is_not_kept(server: Server, stream: Stream) -> None:
    await stream.write(headers())
    await stream.write(body(b"begun"))
    await until(lambda: server.room.taken == 5)
    stream.cancel()
    await until(lambda: server.room.taken == 0)


async def test_a_server_that_stops_refuses_what_it_holds_at_once(server: Server, picker: Picker, stream: Stream) -> None:
    await stream.write(headers())
    await stream.write(body(b"{}", ends=True))
    await until(lambda: picker.waiting)
    stopping = asyncio.create_task(server.stop(60.0))
    waits_longer: Any = await stream.read()
    refused: Any = await stream.read()
    assert waits_longer.override_message_timeout.ToSeconds() == LIMITS.seconds + 1
    assert refused.immediate_response.status.code == 503
    assert "retry-after" in {one.header.key for one in refused.immediate_response.headers.set_headers}
    await stream.done_writing()
    await stopping


async def test_a_server_that_stops_lets_an_open_stream_end(server: Server, replicas: Replicas, stream: Stream) -> None:
    replicas.set([Target("127.0.0.1:1", "127.0.0.1:1")])
    await stream.write(headers())
    await stream.write(body(b"begun"))
    await until(lambda: server.room.taken)
    stopping = asyncio.create_task(server.stop(60.0))
    await stream.write(body(b" and ended", ends=True))
    answer: Any = await stream.read()
    assert answer.HasField("request_headers")
    await stream.done_writing()
    await stopping


async def test_a_picker_that_stops_holds_no_further_request(picker: Picker) -> None:
    asked = Asked("POST", "/v1/chat/completions", b"{}")
    assert picker.must_hold(asked)
    picker.stop_holding()
    assert not picker.must_hold(asked)

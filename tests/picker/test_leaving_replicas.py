"""A replica that leaves while it is asked, and what it answers: a real gRPC service in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from alise_contract.v1 import admission_pb2, lengths_pb2
from alise_contract.v1.lengths_pb2_grpc import LengthsServicer, add_LengthsServicer_to_server
from alise_picker.replicas import Replicas, Target
from tests.scheduler.pod import until

QUESTION = admission_pb2.AdmitRequest()


class Lengths(LengthsServicer):
    """Reports once, and answers no question before `answers` is set."""

    def __init__(self) -> None:
        self.asked, self.answers = asyncio.Event(), asyncio.Event()

    async def WatchLoad(self, request: lengths_pb2.WatchLoadRequest, context: Any) -> AsyncIterator[lengths_pb2.LoadReport]:
        yield lengths_pb2.LoadReport(slots=1, connected=True)
        await asyncio.Event().wait()

    async def Predict(self, request: lengths_pb2.PredictRequest, context: Any) -> lengths_pb2.PredictResponse:
        self.asked.set()
        await self.answers.wait()
        return lengths_pb2.PredictResponse(level=3)


@asynccontextmanager
async def asking(leave_seconds: float) -> "AsyncIterator[tuple[Replicas, Lengths, asyncio.Task[Any]]]":
    """A question that its only replica has and has not answered."""
    async with AsyncExitStack() as stack:
        service, server = Lengths(), grpc.aio.server()
        add_LengthsServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        replicas = Replicas(leave_seconds=leave_seconds)
        stack.push_async_callback(replicas.close)
        replicas.set([Target("127.0.0.1:1", f"127.0.0.1:{port}")])
        await until(lambda: replicas.endpoints()[0].load)
        question = asyncio.create_task(replicas.predict(QUESTION, "", 60.0))
        await service.asked.wait()
        yield replicas, service, question


async def test_a_replica_that_leaves_while_it_is_asked_gives_no_prediction() -> None:
    async with asking(leave_seconds=0.0) as (replicas, _, question):
        replicas.set([])
        assert await question is None


async def test_a_replica_that_leaves_may_still_answer() -> None:
    async with asking(leave_seconds=60.0) as (replicas, service, question):
        replicas.set([])
        service.answers.set()
        assert (await question).level == 3


async def test_a_request_that_is_cancelled_ends_its_question() -> None:
    async with asking(leave_seconds=0.0) as (_, _, question):
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question

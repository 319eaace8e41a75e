"""The sidecar's service Lengths: predictions and the load, over a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import grpc
import numpy as np
import pytest

from alise_contract.names import CONTRACT_VERSION
from alise_contract.v1 import admission_pb2
from alise_contract.v1 import lengths_pb2 as pb
from alise_contract.v1.lengths_pb2_grpc import LengthsStub
from alise_scheduler.admissions import Ask
from alise_scheduler.core.admit import Rejected
from alise_scheduler.core.backlog import Backlog
from alise_scheduler.core.estimate import Estimate
from alise_scheduler.core.lengths import Lengths
from alise_scheduler.core.load_report import LevelLoad, LoadReport, load_report
from alise_scheduler.core.reports import Phase
from alise_scheduler.rpc.lengths import MAX_PREDICTIONS, LengthsServer, LengthsService, to_message
from alise_scheduler.state import State
from tests.scheduler.builders import make_ask, make_request, make_state, opened
from tests.scheduler.pod import Encoding, until

SECONDS = 20.0


@dataclass
class Served:
    state: State
    encoding: Encoding
    stub: Any

    async def predict(self, **fields: Any) -> pb.PredictResponse:
        values: dict[str, Any] = {"contract_version": CONTRACT_VERSION, "endpoint": 1, "prompt": "hi", "prompt_chars": 2}
        request = pb.PredictRequest(request=admission_pb2.AdmitRequest(**(values | fields)))
        answer: pb.PredictResponse = await self.stub.Predict(request, timeout=SECONDS)
        return answer


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    state, encoding = opened(make_state()), Encoding()
    service = LengthsService(lambda ask: state.forecast(ask, 0.0), state.load_report, encoding, repeat_seconds=0.05)
    server = LengthsServer(service, "127.0.0.1")
    port = await server.start(0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Served(state, encoding, LengthsStub(channel))
    await server.stop()


async def test_a_prediction_is_what_admission_would_give(served: Served) -> None:
    found = await served.predict(max_tokens=50, n=3)
    lengths, estimate = served.state.forecast(make_ask("a", samples=3), 0.0)
    assert len(found.quantiles) == len(lengths.tokens)
    assert list(found.quantiles) == sorted(found.quantiles)
    assert max(found.quantiles) <= 50
    assert found.work_seconds > 0
    assert isinstance(estimate.level, int)


async def test_a_prediction_without_an_embedding_does_not_wait_for_one(served: Served) -> None:
    question = admission_pb2.AdmitRequest(contract_version=CONTRACT_VERSION, endpoint=admission_pb2.ENDPOINT_CHAT_COMPLETIONS, prompt="hi")
    found = await served.stub.Predict(pb.PredictRequest(request=question, without_embedding=True), timeout=SECONDS)
    assert (served.encoding.asked, len(found.quantiles)) == (0, 10)


async def test_a_prediction_admits_nothing(served: Served) -> None:
    before = served.state.load_report()
    await served.predict()
    assert served.state.load_report() == before
    assert len(served.state.book) == 0


async def test_another_contract_version_is_refused(served: Served) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="use images of one release") as refused:
        await served.predict(contract_version=CONTRACT_VERSION + 1)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_predictions_in_flight_are_bounded(served: Served) -> None:
    served.encoding.hold = asyncio.Event()
    waiting = [asyncio.create_task(served.predict()) for _ in range(MAX_PREDICTIONS)]
    await until(lambda: served.encoding.asked == MAX_PREDICTIONS)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await served.predict()
    served.encoding.hold.set()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(await asyncio.gather(*waiting)) == MAX_PREDICTIONS


class Costly:
    """A forecast that takes this much CPU time on a clock of its own, and a clock that stands."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.worked, self.at, self.looks = seconds, 0.0, 0.0, 0
        self.state = opened(make_state())
        self.service = LengthsService(self.forecast, self.look, clock=lambda: self.at, work_clock=lambda: self.worked)

    def forecast(self, ask: Ask) -> tuple[Lengths, Estimate]:
        self.worked += self.seconds
        return self.state.forecast(ask, 0.0)

    def look(self) -> LoadReport:
        self.looks += 1
        return self.state.load_report()


@contextlib.asynccontextmanager
async def listening(service: LengthsService) -> AsyncIterator[Any]:
    server = LengthsServer(service, "127.0.0.1")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{await server.start(0)}") as channel:
        yield LengthsStub(channel)
    await server.stop()


async def test_predictions_take_a_tenth_of_the_time_and_more_are_refused_until_it_has_passed() -> None:
    costly = Costly(seconds=0.06)
    question = pb.PredictRequest(
        request=admission_pb2.AdmitRequest(contract_version=CONTRACT_VERSION, endpoint=admission_pb2.ENDPOINT_CHAT_COMPLETIONS, prompt="hi")
    )
    async with listening(costly.service) as stub:
        for _ in range(2):
            await stub.Predict(question, timeout=SECONDS)
        with pytest.raises(grpc.aio.AioRpcError, match="more than 10% of the last second; ask another replica") as refused:
            await stub.Predict(question, timeout=SECONDS)
        costly.at += 1.0
        await stub.Predict(question, timeout=SECONDS)
    assert (refused.value.code(), round(costly.worked, 2)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, 0.18)


async def test_all_watches_share_one_look_at_the_load() -> None:
    costly = Costly(seconds=0.0)
    async with listening(costly.service) as stub:
        for _ in range(5):
            await anext(aiter(stub.WatchLoad(pb.WatchLoadRequest(), timeout=SECONDS)))
        looked = costly.looks
        costly.at += 0.1
        await anext(aiter(stub.WatchLoad(pb.WatchLoadRequest(), timeout=SECONDS)))
    assert (looked, costly.looks) == (1, 2)


async def test_the_load_is_sent_at_once_again_when_it_changes_and_again_when_it_does_not(served: Served) -> None:
    reports = aiter(served.stub.WatchLoad(pb.WatchLoadRequest(), timeout=SECONDS))
    first = await anext(reports)
    assert (list(first.levels), first.connected, first.draining) == ([], True, False)
    assert await anext(reports) == first
    served.state.admit(make_ask("a"), 0.0)
    while not (report := await anext(reports)).levels:
        pass
    assert [row.samples for row in report.levels] == [1.0]


def test_a_running_and_a_waiting_request_are_in_the_load() -> None:
    state = opened(make_state(), make_request("a", Phase.RUNNING), make_request("b", Phase.WAITING), max_num_seqs=1)
    state.decide(0.0)
    report = state.load_report()
    assert sum(row.samples for row in report.levels) == 2
    assert report.slots == 1


def test_every_request_that_asks_for_admission_is_counted_once_also_if_it_is_refused() -> None:
    state = opened(make_state())
    for job in ("a", "a"):
        state.admit(make_ask(job), 0.0)
    state.load = replace(state.load, draining=True)
    assert isinstance(state.admit(make_ask("b"), 0.0), Rejected)
    report = state.load_report()
    assert (report.arrivals, to_message(report).arrivals) == (2, 2)


def test_a_withdrawn_request_leaves_no_row() -> None:
    level, one = np.array([3, 3, 5]), np.array([1.0, -1.0, 2.0])
    none = np.zeros(3, dtype=np.int64)
    backlog = Backlog(level, one * 4.0, one, np.ones(3), np.zeros(3), none, none, 2.0)
    assert load_report(backlog, False, True, 0.0).levels == (LevelLoad(5, 2.0, 8.0),)

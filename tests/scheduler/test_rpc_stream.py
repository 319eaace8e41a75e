"""Questions on a connection over a unix socket."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from alise_contract.frames import Frames
from alise_contract.v1 import admission_pb2 as pb
from alise_scheduler.rpc.connection import MAX_IN_FLIGHT, AdmissionConnections
from tests.scheduler.admission_stream import Stream, connected
from tests.scheduler.pod import PATIENCE_SECONDS, Pod, started, until


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    async with started(tmp_path / "sock") as made:
        yield made


@pytest.fixture
async def stream(pod: Pod) -> AsyncIterator[Stream]:
    opened = await connected(pod)
    yield opened
    opened.writer.close()


async def test_on_a_stream_each_request_is_answered_by_its_job_id(pod: Pod, stream: Stream) -> None:
    for number in range(5):
        await stream.ask(f"j{number}")
    answers = {said.job_id: said async for said in _some(stream, 5)}
    assert set(answers) == {f"j{number}" for number in range(5)}
    assert all(said.response.HasField("admitted") for said in answers.values())


async def _some(stream: Stream, count: int) -> AsyncIterator[pb.AdmitAnswer]:
    for _ in range(count):
        yield await stream.answer()


@pytest.mark.parametrize(
    ("traced", "expected"), [pytest.param(True, True, id="a traced request"), pytest.param(False, False, id="one that is not traced")]
)
async def test_the_prediction_is_in_the_answer_to_a_traced_request(stream: Stream, traced: bool, expected: bool) -> None:
    await stream.ask("j", max_tokens=5, traced=traced)
    admitted = (await stream.answer()).response.admitted
    assert (admitted.HasField("prediction"), admitted.prediction.median_tokens > 0) == (expected, expected)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        pytest.param({"contract_version": 999}, grpc.StatusCode.FAILED_PRECONDITION, id="another contract version"),
        pytest.param({"job_id": "x" * 1000}, grpc.StatusCode.INVALID_ARGUMENT, id="an endless job id"),
    ],
)
async def test_a_bad_request_on_a_stream_has_its_code_and_the_stream_goes_on(
    stream: Stream, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    await stream.ask(**({"job_id": "bad"} | fields))
    refused = await stream.answer()
    await stream.ask("good")
    assert refused.failure.code == code.value[0]
    assert (await stream.answer()).response.HasField("admitted")


async def test_on_a_stream_no_request_is_answered_after_its_deadline(pod: Pod, stream: Stream) -> None:
    pod.encoding.hold = asyncio.Event()
    await stream.ask("late", deadline_monotonic_ms=round(1000 * (time.monotonic() + 0.2)))
    await until(lambda: pod.metric("alise_scheduler_admits_total", outcome="gave_up") == 1)
    pod.encoding.hold.set()
    await stream.ask("in time")
    assert (await stream.answer()).job_id == "in time"


async def test_what_is_read_after_its_deadline_is_not_admitted(pod: Pod, stream: Stream) -> None:
    await stream.ask("long ago", deadline_monotonic_ms=1)
    await stream.ask("now")
    assert (await stream.answer()).job_id == "now"
    assert list(pod.state.book.jobs) == ["now"]
    assert pod.metric("alise_scheduler_admits_total", outcome="gave_up") == 1


async def test_an_internal_failure_is_reported_on_the_stream_and_is_not_the_clients(pod: Pod, stream: Stream) -> None:
    pod.encoding.broken = True
    await stream.ask("a")
    assert (await stream.answer()).failure.code == grpc.StatusCode.INTERNAL.value[0]
    assert (_admits(pod, "error"), _admits(pod, "invalid")) == (1, 0)


async def test_an_internal_failure_is_logged_once_with_its_traceback(pod: Pod, stream: Stream, caplog: pytest.LogCaptureFixture) -> None:
    pod.encoding.broken = True
    for number in range(3):
        await stream.ask(f"j{number}")
        await stream.answer()
    (logged,) = [record for record in caplog.records if record.message == "admission failed"]
    assert logged.exc_info is not None
    assert isinstance(logged.exc_info[1], RuntimeError)


def _admits(pod: Pod, outcome: str) -> float:
    return pod.metric("alise_scheduler_admits_total", outcome=outcome)


async def test_a_stream_that_is_stopped_answers_what_was_asked_and_ends(pod: Pod, stream: Stream) -> None:
    pod.encoding.hold = asyncio.Event()
    await stream.ask("a")
    await until(lambda: pod.encoding.asked == 1)
    stopping = asyncio.create_task(pod.server.stop(PATIENCE_SECONDS))
    await asyncio.sleep(0)
    pod.encoding.hold.set()
    assert (await stream.answer()).job_id == "a"
    assert await stream.ended()
    await stopping


async def test_a_caller_that_leaves_gives_up_its_requests(pod: Pod, stream: Stream) -> None:
    pod.encoding.hold = asyncio.Event()
    await stream.ask("a")
    await until(lambda: pod.encoding.asked == 1)
    stream.writer.close()
    gave_up = {"outcome": "gave_up", "class": "default"}
    await until(lambda: pod.metric("alise_scheduler_admits_total", **gave_up) == 1)
    assert len(pod.state.book) == 0


async def test_a_question_that_cannot_be_read_ends_its_connection(pod: Pod, stream: Stream) -> None:
    stream.writer.write(b"\x03\x00\x00\x00\xff\xff\xff")
    assert await stream.ended()


async def test_more_than_may_be_in_flight_is_read_when_there_is_room(pod: Pod, stream: Stream) -> None:
    pod.encoding.hold = asyncio.Event()
    for number in range(MAX_IN_FLIGHT + 10):
        await stream.ask(f"j{number}")
    await until(lambda: pod.encoding.asked == MAX_IN_FLIGHT)
    await asyncio.sleep(0.05)
    assert pod.encoding.asked == MAX_IN_FLIGHT
    pod.encoding.hold.set()
    assert len({(await stream.answer()).job_id for _ in range(MAX_IN_FLIGHT + 10)}) == MAX_IN_FLIGHT + 10


async def test_no_more_requests_are_read_from_a_client_that_reads_no_answers(pod: Pod, stream: Stream) -> None:
    asked = asyncio.create_task(_ask_without_end(stream))
    await until(lambda: pod.encoding.asked > 100)
    before = -1
    while before != pod.encoding.asked:
        before = pod.encoding.asked
        await asyncio.sleep(0.2)
    assert not asked.done()
    asked.cancel()


async def _ask_without_end(stream: Stream) -> None:
    for number in range(1_000_000):
        await stream.ask(f"j{number}", prompt="x" * 1000)


async def test_a_connection_that_has_ended_is_forgotten(tmp_path: Path) -> None:
    class Unasked:
        async def answer_in_time(self, request: pb.AdmitRequest) -> pb.AdmitAnswer | None:
            raise AssertionError("nothing was asked")

        def withdraw(self, request: pb.AdmitRequest) -> bool:
            raise AssertionError("nothing was asked")

    connections = AdmissionConnections(Unasked())
    made: list[weakref.ref[Frames]] = []

    def connect() -> Frames:
        frames = connections.connected()
        made.append(weakref.ref(frames))
        return frames

    def is_forgotten() -> bool:
        gc.collect()
        return made[0]() is None

    server = await asyncio.get_running_loop().create_unix_server(connect, str(tmp_path / "sock"))
    _, writer = await asyncio.open_unix_connection(tmp_path / "sock")
    await until(lambda: bool(made))
    assert not is_forgotten()
    writer.close()
    await until(is_forgotten)
    server.close()

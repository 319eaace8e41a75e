"""AdmitStream over a unix socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from alise_contract.names import CONTRACT_VERSION
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1.admission_pb2_grpc import AdmissionStub
from tests.scheduler.pod import PATIENCE_SECONDS, Pod, started, until


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    async with started(tmp_path / "sock") as made:
        yield made


class Stream:
    """The stream as a caller has it."""

    def __init__(self, pod: Pod) -> None:
        self.call = AdmissionStub(pod.channel).AdmitStream(timeout=PATIENCE_SECONDS)

    async def ask(self, job_id: str, **fields: Any) -> None:
        values: dict[str, Any] = {"contract_version": CONTRACT_VERSION, "job_id": job_id, "prompt": "hi"}
        await self.call.write(pb.AdmitRequest(**(values | fields)))

    async def answer(self) -> pb.AdmitAnswer:
        said = await self.call.read()
        assert isinstance(said, pb.AdmitAnswer)
        return said


async def test_on_a_stream_each_request_is_answered_by_its_job_id(pod: Pod) -> None:
    stream = Stream(pod)
    for number in range(5):
        await stream.ask(f"j{number}")
    answers = {said.job_id: said async for said in _some(stream, 5)}
    assert set(answers) == {f"j{number}" for number in range(5)}
    assert all(said.response.HasField("admitted") for said in answers.values())


async def _some(stream: Stream, count: int) -> AsyncIterator[pb.AdmitAnswer]:
    for _ in range(count):
        yield await stream.answer()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        pytest.param({"contract_version": 999}, grpc.StatusCode.FAILED_PRECONDITION, id="another contract version"),
        pytest.param({"job_id": "x" * 1000}, grpc.StatusCode.INVALID_ARGUMENT, id="an endless job id"),
    ],
)
async def test_a_bad_request_on_a_stream_has_its_code_and_the_stream_goes_on(
    pod: Pod, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    stream = Stream(pod)
    await stream.ask(**({"job_id": "bad"} | fields))
    refused = await stream.answer()
    await stream.ask("good")
    assert refused.failure.code == code.value[0]
    assert (await stream.answer()).response.HasField("admitted")


async def test_on_a_stream_nobody_is_answered_who_does_not_wait_any_more(pod: Pod) -> None:
    pod.encoding.hold = asyncio.Event()
    stream = Stream(pod)
    await stream.ask("late", deadline_monotonic_ms=round(1000 * (time.monotonic() + 0.2)))
    await until(lambda: pod.metric("alise_scheduler_admits_total", outcome="gave_up") == 1)
    pod.encoding.hold.set()
    await stream.ask("in time")
    assert (await stream.answer()).job_id == "in time"


async def test_what_is_read_after_its_deadline_is_not_admitted(pod: Pod) -> None:
    stream = Stream(pod)
    await stream.ask("long ago", deadline_monotonic_ms=1)
    await stream.ask("now")
    assert (await stream.answer()).job_id == "now"
    assert list(pod.state.book.jobs) == ["now"]
    assert pod.metric("alise_scheduler_admits_total", outcome="gave_up") == 1


async def test_a_failure_inside_is_told_on_the_stream_and_logged(pod: Pod, caplog: pytest.LogCaptureFixture) -> None:
    pod.encoding.broken = True
    stream = Stream(pod)
    await stream.ask("a")
    assert (await stream.answer()).failure.code == grpc.StatusCode.INTERNAL.value[0]
    assert "admission failed" in caplog.text


async def test_a_stream_that_is_stopped_answers_what_was_asked_and_ends(pod: Pod) -> None:
    pod.encoding.hold = asyncio.Event()
    stream = Stream(pod)
    await stream.ask("a")
    await until(lambda: pod.encoding.asked == 1)
    stopping = asyncio.create_task(pod.server.stop(PATIENCE_SECONDS))
    await asyncio.sleep(0)
    pod.encoding.hold.set()
    assert (await stream.answer()).job_id == "a"
    assert not isinstance(await stream.call.read(), pb.AdmitAnswer)
    await stopping


async def test_a_caller_that_leaves_ends_its_stream(pod: Pod) -> None:
    stream = Stream(pod)
    await stream.ask("a")
    await stream.answer()
    stream.call.cancel()
    await until(lambda: not pod.service.streams)

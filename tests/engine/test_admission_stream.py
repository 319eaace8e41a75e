"""The stream on which the sidecar is asked, against a real server on a unix socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import uvloop

from alise_contract.v1 import admission_pb2 as pb
from alise_engine.api.admission_stream import AdmissionStream, AskError
from tests.engine.api_fakes import FakeAdmission, admission_server, admit, eventually, fail

PATIENCE_SECONDS = 10.0


@pytest.fixture
async def stream(tmp_path: Path) -> AsyncIterator[AdmissionStream]:
    stream = AdmissionStream(tmp_path / "admission.sock")
    yield stream
    await stream.close()


async def ask(stream: AdmissionStream, job_id: str, seconds: float = PATIENCE_SECONDS) -> int:
    answer = await stream.ask(pb.AdmitRequest(job_id=job_id), seconds)
    return answer.admitted.priority


async def asked_until_answered(stream: AdmissionStream, job_id: str) -> int:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await ask(stream, job_id)
            except AskError:
                await asyncio.sleep(0.05)


class Held:
    """Answers each job with the number at its end, when the test lets it."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}

    def __call__(self, request: pb.AdmitRequest) -> Any:
        gate = self.gates[request.job_id] = asyncio.Event()

        async def answer() -> pb.AdmitResponse:
            await gate.wait()
            return pb.AdmitResponse(admitted=pb.Admitted(priority=int(request.job_id[1:])))

        return answer()


async def held_asks(stream: AdmissionStream, sidecar: FakeAdmission, count: int) -> tuple[Held, list[asyncio.Task[int]]]:
    """`count` questions that the sidecar has and does not answer."""
    held = Held()
    sidecar.answer = held
    asks = [asyncio.create_task(ask(stream, f"j{number}")) for number in range(count)]
    await eventually(lambda: len(held.gates) == count, "the sidecar has them all")
    return held, asks


async def test_each_gets_its_own_answer_whichever_comes_first(stream: AdmissionStream, sidecar: FakeAdmission) -> None:
    held, asks = await held_asks(stream, sidecar, 5)
    for number in (3, 0, 4, 2, 1):
        held.gates[f"j{number}"].set()
        assert await asks[number] == number


async def test_a_question_that_is_too_long_is_not_sent_and_takes_no_other_along(stream: AdmissionStream, sidecar: FakeAdmission) -> None:
    held, asks = await held_asks(stream, sidecar, 1)
    with pytest.raises(AskError) as failure:
        await stream.ask(pb.AdmitRequest(job_id="long", model="x" * 1_100_000), PATIENCE_SECONDS)
    assert failure.value.code is grpc.StatusCode.INVALID_ARGUMENT
    held.gates["j0"].set()
    assert await asks[0] == 0


async def test_all_are_asked_on_one_connection(stream: AdmissionStream, sidecar: FakeAdmission) -> None:
    for number in range(3):
        await ask(stream, f"j{number}")
    assert (sidecar.calls, len(sidecar.requests)) == (1, 3)


def test_it_is_asked_on_the_loop_that_vllm_has(tmp_path: Path) -> None:
    async def asked() -> int:
        stream = AdmissionStream(tmp_path / "admission.sock")
        async with admission_server(tmp_path / "admission.sock") as sidecar:
            sidecar.answer = admit(priority=6)
            answer = await ask(stream, "j1")
            await stream.close()
            return answer

    assert uvloop.run(asked()) == 6


async def test_the_sidecar_is_told_until_when_the_caller_waits(stream: AdmissionStream, sidecar: FakeAdmission) -> None:
    before = time.monotonic()
    await ask(stream, "j1", seconds=7.5)
    assert before + 7.4 < sidecar.requests[0].deadline_monotonic_ms / 1000 < time.monotonic() + 7.6


async def test_who_goes_away_takes_nobody_along(stream: AdmissionStream, sidecar: FakeAdmission) -> None:
    held, asks = await held_asks(stream, sidecar, 2)
    asks[0].cancel()
    held.gates["j1"].set()
    assert await asks[1] == 1
    assert sidecar.calls == 1


async def test_an_answer_that_comes_too_late_is_nobodys(stream: AdmissionStream, sidecar: FakeAdmission) -> None:
    held = Held()
    sidecar.answer = held
    with pytest.raises(AskError) as caught:
        await ask(stream, "j1", seconds=0.05)
    held.gates["j1"].set()
    sidecar.answer = admit(priority=9)
    assert (caught.value.code, await ask(stream, "j2")) == (grpc.StatusCode.DEADLINE_EXCEEDED, 9)


async def test_a_failure_ends_one_question_and_not_the_stream(stream: AdmissionStream, sidecar: FakeAdmission) -> None:
    sidecar.answer = fail(grpc.StatusCode.INTERNAL)
    with pytest.raises(AskError) as caught:
        await ask(stream, "j1")
    sidecar.answer = admit(priority=4)
    assert (caught.value.code, await ask(stream, "j2"), sidecar.calls) == (grpc.StatusCode.INTERNAL, 4, 1)


async def test_a_sidecar_that_goes_away_fails_all_who_wait_at_once(tmp_path: Path, stream: AdmissionStream) -> None:
    async with admission_server(tmp_path / "admission.sock") as sidecar:
        _, asks = await held_asks(stream, sidecar, 3)
        began = time.monotonic()
    errors = await asyncio.gather(*asks, return_exceptions=True)
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    codes = [error.code for error in errors if isinstance(error, AskError)]
    assert len(codes) == 3
    assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


async def test_streams_that_ended_leave_no_tasks(tmp_path: Path, stream: AdmissionStream) -> None:
    before = asyncio.all_tasks()
    for number in range(3):
        async with admission_server(tmp_path / "admission.sock"):
            await asked_until_answered(stream, f"j{number}")
    await stream.close()
    await eventually(lambda: not asyncio.all_tasks() - before, "no task is left")


async def test_after_it_was_closed_nothing_is_asked(stream: AdmissionStream, sidecar: FakeAdmission) -> None:
    await stream.close()
    with pytest.raises(AskError):
        await ask(stream, "j1")
    assert sidecar.calls == 0


async def test_after_a_sidecar_went_away_the_next_one_is_asked(tmp_path: Path, stream: AdmissionStream) -> None:
    async with admission_server(tmp_path / "admission.sock"):
        await ask(stream, "j1")
    async with admission_server(tmp_path / "admission.sock") as sidecar:
        sidecar.answer = admit(priority=5)
        assert await asked_until_answered(stream, "j2") == 5


async def test_where_nobody_listens_the_sidecar_is_unavailable(stream: AdmissionStream) -> None:
    with pytest.raises(AskError, match=r"admission\.sock") as caught:
        await ask(stream, "j1")
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    "answered",
    [pytest.param(b"\x03\x00\x00\x00\xff\xff\xff", id="no message"), pytest.param(b"\xff\xff\xff\xff", id="four gigabytes")],
)
async def test_an_answer_that_cannot_be_read_fails_who_waits_and_the_next_is_asked_anew(
    tmp_path: Path, stream: AdmissionStream, answered: bytes
) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        writer.write(answered)
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(babble, tmp_path / "admission.sock")
    for number in range(2):
        with pytest.raises(AskError) as caught:
            await ask(stream, f"j{number}")
        assert caught.value.code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE)
    server.close()


async def test_to_a_sidecar_that_hangs_nothing_is_piled_up(tmp_path: Path, stream: AdmissionStream) -> None:
    """What its socket does not take is forgotten with the question; when it reads again, what is asked then is answered."""
    async with admission_server(tmp_path / "admission.sock") as sidecar:
        sidecar.answer = admit(priority=5)
        await ask(stream, "first")
        (connection,) = sidecar.connections
        connection.pause()
        for _ in range(4):
            asks = [stream.ask(pb.AdmitRequest(job_id=f"j{number}", prompt="x" * 16_000), 0.2) for number in range(500)]
            assert all(isinstance(error, AskError) for error in await asyncio.gather(*asks, return_exceptions=True))
        connection.resume()
        assert await asked_until_answered(stream, "last") == 5
        assert sum(len(request.prompt) for request in sidecar.requests) < 4_000_000

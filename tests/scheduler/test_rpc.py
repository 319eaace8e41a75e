"""The real client, server and dispatcher over unix sockets, against a small real EngineControl server."""

import asyncio
import logging
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from alise_contract.names import ADMISSION_GRPC_SOCKET, ADMISSION_SOCKET, MAX_HINT_BYTES, unpack_priority
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1 import engine_control_pb2 as engine_pb
from alise_scheduler.core.admit import AdmitLimits
from alise_scheduler.core.plan import Plan
from alise_scheduler.core.rank import Policy
from alise_scheduler.core.reports import EngineUpdate, FinishReason, Phase
from alise_scheduler.engine import convert
from alise_scheduler.engine.client import backoff_seconds
from alise_scheduler.exit_wait import wait_for_engine_exit
from alise_scheduler.rpc.convert import to_ask
from alise_scheduler.rpc.http import HttpServer, make_app
from alise_scheduler.rpc.server import SERVICE
from tests.scheduler.engine_server import EngineServer
from tests.scheduler.pod import PATIENCE_SECONDS, Pod, started, until


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    async with started(tmp_path / "sock") as made:
        yield made


async def test_a_request_is_admitted_ranked_and_its_end_learned(pod: Pod) -> None:
    answer = await pod.admit("a", max_tokens=5)
    assert unpack_priority(answer.admitted.priority)[0] < 0
    assert 0 < len(answer.admitted.hint) <= MAX_HINT_BYTES
    pod.engine.report(request_id="r", job_id="a", phase=engine_pb.PHASE_RUNNING, prompt_tokens=3, hint=answer.admitted.hint)
    await until(lambda: "a" in pod.engine.ranks)
    pod.engine.finish("r", 4)
    await until(lambda: pod.metric("alise_scheduler_requests_ended_total", reason="stop") == 1)
    assert len(pod.state.book) == 0


@pytest.mark.parametrize(
    ("has_encoder", "told"),
    [
        pytest.param(True, engine_pb.ENCODER_STATE_READY, id="an encoder that works"),
        pytest.param(False, engine_pb.ENCODER_STATE_MISSING, id="none that works"),
        pytest.param(None, engine_pb.ENCODER_STATE_UNSPECIFIED, id="not known yet"),
    ],
)
def test_each_plan_reports_whether_there_is_an_encoder(has_encoder: bool | None, told: int) -> None:
    assert convert.to_apply("s", 1, Plan(ranks={}, limits=None), has_encoder).encoder == told


async def test_limits_arrive_with_the_first_plan(pod: Pod) -> None:
    await until(lambda: pod.engine.limits is not None)
    assert pod.engine.limits is not None
    assert pod.engine.limits.preempt_levels == Policy().preemption.levels
    assert pod.engine.limits.host_budget_bytes == 1 << 20


@pytest.mark.parametrize(
    ("fields", "code", "outcome"),
    [
        pytest.param({"contract_version": 999}, grpc.StatusCode.FAILED_PRECONDITION, "version", id="another contract version"),
        pytest.param({"contract_version": 0}, grpc.StatusCode.FAILED_PRECONDITION, "version", id="no contract version"),
        pytest.param({"withdrawn": True}, grpc.StatusCode.INVALID_ARGUMENT, "invalid", id="a withdrawal that is not on a stream"),
        pytest.param({"job_id": ""}, grpc.StatusCode.INVALID_ARGUMENT, "invalid", id="an empty job id"),
        pytest.param({"job_id": "x" * 1000}, grpc.StatusCode.INVALID_ARGUMENT, "invalid", id="an endless job id"),
    ],
)
async def test_bad_requests_have_their_code(pod: Pod, fields: dict[str, Any], code: grpc.StatusCode, outcome: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pod.admit(**fields)
    assert caught.value.code() is code
    assert pod.metric("alise_scheduler_admits_total", outcome=outcome) == 1


async def test_over_grpc_an_internal_failure_has_its_code_and_is_not_the_clients(pod: Pod) -> None:
    pod.encoding.broken = True
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pod.admit()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert pod.metric("alise_scheduler_admits_total", outcome="error") == 1


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"max_tokens": 2**32 - 1, "n": 2**32 - 1, "prompt_chars": 2**64 - 1, "turns": 2**32 - 1}, id="the largest numbers"),
        pytest.param({"prompt": "ü" * 16384, "endpoint": 99, "objective": "nobody knows", "slo_ttft_ms": 1}, id="odd text and classes"),
        pytest.param({"prompt": "", "n": 0}, id="nothing at all"),
    ],
)
async def test_odd_numbers_are_answered(pod: Pod, fields: dict[str, Any]) -> None:
    answer = await pod.admit(**fields)
    assert answer.WhichOneof("decision") == "admitted"


async def test_over_the_wait_limit_the_answer_is_rejected(tmp_path: Path) -> None:
    async with started(tmp_path / "sock", AdmitLimits(max_wait_seconds=0.1)) as pod:
        # Both of the engine's slots are taken.
        await pod.admit("a", endpoint=pb.ENDPOINT_OTHER)
        await pod.admit("b", endpoint=pb.ENDPOINT_OTHER)
        answer = await pod.admit("c", endpoint=pb.ENDPOINT_OTHER)
    assert answer.rejected.reason == pb.Rejected.REASON_WAIT_TOO_LONG
    assert answer.rejected.retry_after_seconds >= 1
    assert "longer than 0.1 s, because 2 requests are ahead of it; send it again in" in answer.rejected.message


@pytest.mark.parametrize("sent", ["a b", "a\nb", "\x1b[2J", "größe", "x" * 129])
def test_an_id_that_the_contract_does_not_allow_is_none(sent: str) -> None:
    assert to_ask(pb.AdmitRequest(job_id="a", endpoint=pb.ENDPOINT_CHAT_COMPLETIONS, request_id=sent)).request_id == ""


async def test_a_refusal_is_logged_with_the_clients_id(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "alise_scheduler.rpc.admission")
    async with started(tmp_path / "sock", AdmitLimits(max_wait_seconds=0.1)) as pod:
        for number in range(5):
            await pod.admit(f"j{number}", request_id=f"req-{number}")
    refused = [vars(record) for record in caplog.records if record.message == "job rejected"]
    assert [(line["job"], line["request_id"]) for line in refused][-1:] == [("j4", "req-4")]
    assert all(line["reason"] == "wait_too_long" for line in refused)


async def test_the_engine_may_restart(pod: Pod) -> None:
    await pod.engine.stop()
    await until(lambda: pod.state.session is None)
    assert (await pod.admit("meanwhile")).HasField("admitted")
    pod.engine = await EngineServer(str(pod.folder / "control.sock"), boot_id="boot-2").start()
    await until(lambda: pod.state.session is not None and pod.state.session.boot_id == "boot-2")
    assert pod.metric("alise_scheduler_watch_reconnects_total") >= 1
    assert len(pod.state.book) == 0


async def test_a_message_that_cannot_be_read_costs_a_snapshot_and_no_end_is_missed(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    pod.engine.report(request_id="r1", job_id="j1", phase=2, generated_tokens=1)
    await until(lambda: pod.state.book.jobs)
    read, seen = convert.from_update, list[engine_pb.Update]()

    def fails_once(message: engine_pb.Update) -> EngineUpdate:
        seen.append(message)
        if len(seen) == 1:
            raise OverflowError("a number that no test has thought of")
        return read(message)

    monkeypatch.setattr(convert, "from_update", fails_once)
    pod.engine.finish("r1", 5)
    await until(lambda: pod.engine.sessions > 1 and pod.state.session is not None and not pod.state.book.jobs)
    assert pod.engine.sessions == 2


async def test_a_refused_session_is_opened_again(pod: Pod) -> None:
    pod.engine.refuse = grpc.StatusCode.FAILED_PRECONDITION
    await until(lambda: pod.engine.sessions >= 2)
    pod.engine.refuse = None
    before = pod.engine.applies
    await until(lambda: pod.engine.applies > before)
    assert pod.metric("alise_scheduler_apply_failures_total", reason="session") >= 1


async def test_health_and_reflection_are_served(pod: Pod) -> None:
    answer = await health_pb2_grpc.HealthStub(pod.channel).Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PATIENCE_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    call = reflection_pb2_grpc.ServerReflectionStub(pod.channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=PATIENCE_SECONDS
    )
    names = {item.name async for message in call for item in message.list_services_response.service}
    assert {SERVICE, "grpc.health.v1.Health"} <= names


@pytest.mark.parametrize("name", [ADMISSION_SOCKET, ADMISSION_GRPC_SOCKET])
async def test_a_socket_is_ours_alone_and_replaces_a_stale_one(tmp_path: Path, name: str) -> None:
    (tmp_path / "sock").mkdir()
    (tmp_path / "sock" / name).write_text("left by a dead process")
    async with started(tmp_path / "sock") as pod:
        mode = (pod.folder / name).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_http_serves_metrics_health_and_status(pod: Pod) -> None:
    await pod.admit("a")
    code, text = await pod.get("/metrics")
    assert code == 200
    assert 'alise_scheduler_admits_total{class="default",outcome="admitted"} 1.0' in text
    assert (await pod.get("/healthz"))[0] == 200
    code, text = await pod.get("/statusz")
    assert code == 200
    assert '"connected": true' in text


async def test_a_dispatcher_that_does_not_turn_is_unhealthy(pod: Pod) -> None:
    pod.dispatcher.turned_at = -1e9
    status = pod.dispatcher.status()
    app = make_app(pod.state.metrics.registry, lambda: status)
    server = HttpServer(app, "127.0.0.1", 0)
    pod.http_port = await server.start()
    code, text = await pod.get("/healthz")
    await server.stop()
    assert code == 503
    assert "not turned" in text


async def test_exit_wait_returns_when_the_engine_is_gone(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    engine = await EngineServer(path).start()
    done = threading.Event()
    result: list[bool] = []

    def wait() -> None:
        result.append(wait_for_engine_exit(path, 60.0, poll_seconds=0.05))
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    await asyncio.sleep(0.5)
    assert not done.is_set()
    await engine.stop()
    await until(done.is_set)
    thread.join()
    assert result == [True]


async def test_exit_wait_gives_up_after_its_timeout(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    engine = await EngineServer(path).start()
    assert await asyncio.to_thread(wait_for_engine_exit, path, 0.3, 0.05) is False
    await engine.stop()


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        pytest.param(1, 0.05, id="the first try comes soon"),
        pytest.param(4, 0.5, id="then it gets longer"),
        pytest.param(1000, 2.0, id="never over two seconds"),
    ],
)
def test_backoff(failures: int, expected: float) -> None:
    assert backoff_seconds(failures) == expected


def test_unknown_enum_values_are_read_as_the_harmless_ones() -> None:
    assert convert.from_request(engine_pb.EngineRequest(request_id="r", phase=99)).phase is Phase.WAITING  # type: ignore[arg-type]
    assert convert.from_finished(engine_pb.Finished(request_id="r", reason=99)).reason is FinishReason.ERROR  # type: ignore[arg-type]


def test_durations_become_seconds() -> None:
    request = convert.from_request(engine_pb.EngineRequest(age_ms=1500, phase_ms=250))
    assert (request.age_seconds, request.phase_seconds) == (1.5, 0.25)

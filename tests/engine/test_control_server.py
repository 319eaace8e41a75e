"""The control server over a real socket, before a fake EngineCore."""

import asyncio
import base64
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from alise_contract.names import CONTRACT_VERSION, PLAN_EXPIRES_SECONDS
from alise_contract.v1 import engine_control_pb2 as pb
from alise_engine.api.control.server import MAX_SOCKET_PATH_BYTES, SERVICE, prepare_socket
from alise_engine.api.status import SidecarTally
from alise_engine.errors import ConfigError
from alise_engine.wire import calls as core
from alise_engine.wire import terms
from tests.engine.api_fakes import SHAPE, FakeCore, eventually, make_finished, make_row
from tests.engine.control_client import TIMEOUT_SECONDS, Engine, refused, running


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    async with running(tmp_path) as engine:
        yield engine


# --- the socket -------------------------------------------------------------------------------------------------------------------


async def test_the_socket_and_its_directory_are_the_owners_alone(tmp_path: Path) -> None:
    async with running(tmp_path / "sock"):
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "sock", tmp_path / "sock" / "control.sock")]
    assert modes == [0o700, 0o600]


async def test_the_socket_vanishes_when_the_engine_stops(tmp_path: Path) -> None:
    async with running(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


async def test_a_killed_predecessors_socket_is_replaced(tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(lambda *_: None, tmp_path / "control.sock")
    server.close()
    async with running(tmp_path) as engine:
        assert (await engine.stub.Status(pb.StatusRequest(), timeout=TIMEOUT_SECONDS)).contract_version == CONTRACT_VERSION


def test_a_file_in_the_sockets_place_is_named_and_kept(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("precious")
    with pytest.raises(ConfigError, match=r"control\.sock exists and is not a socket"):
        prepare_socket(tmp_path / "control.sock")
    assert (tmp_path / "control.sock").read_text() == "precious"


def test_a_path_that_the_kernel_does_not_take_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"the kernel allows {MAX_SOCKET_PATH_BYTES}"):
        prepare_socket(Path("/tmp") / ("x" * MAX_SOCKET_PATH_BYTES) / "control.sock")


async def test_health_says_serving(engine: Engine) -> None:
    health: Any = health_pb2_grpc.HealthStub(engine.channel)
    for service in ("", SERVICE):
        response = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_SECONDS)
        assert response.status == health_pb2.HealthCheckResponse.SERVING


# --- Watch ------------------------------------------------------------------------------------------------------------------------


async def test_a_watch_begins_with_everything_there_is(tmp_path: Path) -> None:
    fake = FakeCore(counters=core.Counters(saves=3))
    fake.put(make_row("r1", phase=terms.PHASE_OFFLOADED, host_bytes=77, hint=base64.b64encode(b"hint").decode(), priority=-5))
    async with running(tmp_path, fake) as engine:
        snapshot = await engine.watch().snapshot()
    [request] = snapshot.requests
    assert (request.request_id, request.phase, request.host_bytes, request.hint) == ("r1", pb.PHASE_OFFLOADED, 77, b"hint")
    assert (request.priority, snapshot.counters.saves, snapshot.engine.host_limit_bytes) == (-5, 3, SHAPE.host_limit_bytes)
    assert snapshot.session_id
    assert snapshot.boot_id
    assert snapshot.draining is False


async def test_many_requests_come_in_several_messages(tmp_path: Path) -> None:
    fake = FakeCore()
    for number in range(2_500):
        fake.put(make_row(f"r{number}"))
    async with running(tmp_path, fake) as engine:
        watching = engine.watch()
        seen = [len((await watching.snapshot()).requests), len((await watching.update()).requests), len((await watching.update()).requests)]
    assert seen == [1000, 1000, 500]


async def test_phases_and_endings_arrive_as_they_happen(engine: Engine) -> None:
    watching = engine.watch()
    await watching.snapshot()
    with engine.api.open():
        engine.core.put(make_row("r1", phase=terms.PHASE_RUNNING))
        engine.core.step(core.StepRow(4000, 10, 2, 300))
        running_update = await watching.update()
        engine.core.end(make_finished("r1", reason=terms.FINISH_ABORT, ttft_ms=12))
        ended = await watching.update()
    assert [(row.request_id, row.phase) for row in running_update.requests] == [("r1", pb.PHASE_RUNNING)]
    assert [(step.duration_us, step.context_tokens) for step in running_update.steps] == [(4000, 300)]
    assert [(end.job_id, end.reason, end.ttft_ms) for end in ended.finished] == [("job-r1", pb.FINISH_REASON_ABORT, 12)]


async def test_messages_are_numbered_from_one(engine: Engine) -> None:
    watching = engine.watch()
    sequences = [(await watching.call.read()).sequence]
    with engine.api.open():
        for number in range(2):
            engine.core.put(make_row(f"r{number}"))
            sequences.append((await watching.call.read()).sequence)
    assert sequences == [1, 2, 3]


async def test_an_older_watch_ends_when_a_newer_one_opens(engine: Engine) -> None:
    older = engine.watch()
    await older.snapshot()
    newer = engine.watch()
    await newer.snapshot()
    assert await older.status() == grpc.StatusCode.ABORTED
    assert engine.metric("sidecar_connected") == 1


async def test_a_watcher_that_goes_away_is_no_longer_connected(engine: Engine) -> None:
    watching = engine.watch()
    await watching.snapshot()
    before = engine.api.report().sidecar.connected
    watching.call.cancel()
    await eventually(lambda: not engine.api.report().sidecar.connected, "the session ended")
    assert before is True


async def test_a_watch_ends_when_the_engine_goes(engine: Engine) -> None:
    watching = engine.watch()
    await watching.snapshot()
    engine.core.down = True
    with engine.api.open():
        assert await watching.status() == grpc.StatusCode.UNAVAILABLE


async def test_an_idle_engine_is_left_alone_and_a_busy_one_is_polled(engine: Engine) -> None:
    await asyncio.sleep(0.1)
    idle = engine.core.count(core.PollCall)
    with engine.api.open():
        await eventually(lambda: engine.core.count(core.PollCall) > 5, "polls while a request is open")
    assert idle == 0


async def test_polling_stops_when_everything_has_ended(engine: Engine) -> None:
    with engine.api.open():
        engine.core.put(make_row("r1"))
        await eventually(lambda: engine.metric("requests", phase=terms.PHASE_WAITING) == 1, "the request was seen")
    engine.core.end(make_finished("r1"))
    await eventually(lambda: engine.metric("requests", phase=terms.PHASE_WAITING) == 0, "the ending was seen")
    await asyncio.sleep(0.5)
    polls = engine.core.count(core.PollCall)
    await asyncio.sleep(0.2)
    assert engine.core.count(core.PollCall) == polls


# --- Apply ------------------------------------------------------------------------------------------------------------------------


async def test_ranks_and_limits_reach_the_engine_and_unknown_jobs_are_named(engine: Engine) -> None:
    engine.core.put(make_row("r1"))
    session = (await engine.watch().snapshot()).session_id
    limits = pb.Limits(preempt_levels=2, min_quantum_steps=8, int8_ewt_ms=500, int8_host_fraction=0.25, host_budget_bytes=9)
    ranks = [pb.Rank(job_id="job-r1", level=-3, order=5, ewt_ms=70), pb.Rank(job_id="gone", level=1)]
    response = await engine.apply(session, 1, *ranks, limits=limits)
    assert (response.sequence, list(response.unknown_jobs)) == (1, ["gone"])
    assert engine.core.calls[-1] == core.ApplyCall(
        (core.RankRow("job-r1", -3, 5, 70), core.RankRow("gone", 1, 0, 0)),
        core.LimitsRow(preempt_levels=2, min_quantum_steps=8, int8_ewt_ms=500, int8_host_fraction=0.25, host_budget_bytes=9),
    )


async def test_absent_limits_are_left_as_they_are(engine: Engine) -> None:
    session = (await engine.watch().snapshot()).session_id
    await engine.apply(session, 1)
    assert engine.core.calls[-1] == core.ApplyCall()


async def test_a_plan_is_fresh_after_an_apply(engine: Engine) -> None:
    before = engine.api.report().sidecar
    session = (await engine.watch().snapshot()).session_id
    await engine.apply(session, 1)
    after = engine.api.report().sidecar
    assert (before.plan_fresh, before.HasField("last_apply_age_seconds")) == (False, False)
    assert (after.plan_fresh, after.HasField("last_apply_age_seconds")) == (True, True)
    assert engine.metric("applies_total", outcome="applied") == 1


@pytest.mark.parametrize(
    "state",
    [
        pytest.param(pb.ENCODER_STATE_READY, id="an encoder that works"),
        pytest.param(pb.ENCODER_STATE_MISSING, id="none"),
        pytest.param(pb.ENCODER_STATE_UNSPECIFIED, id="an older sidecar that does not say"),
    ],
)
async def test_the_report_says_of_the_encoder_what_the_last_apply_said(engine: Engine, state: pb.EncoderState) -> None:
    session = (await engine.watch().snapshot()).session_id
    await engine.apply(session, 1, encoder=state)
    assert engine.api.report().sidecar.encoder == state


async def test_the_report_has_the_predicted_work_of_the_last_apply(engine: Engine) -> None:
    session = (await engine.watch().snapshot()).session_id
    await engine.apply(session, 1, work=pb.PredictedWork(backlog_seconds=12.5, offered_load=0.5))
    assert engine.api.report().work == pb.PredictedWork(backlog_seconds=12.5, offered_load=0.5)


def test_the_predicted_work_is_not_reported_once_the_plan_is_old() -> None:
    now = 100.0
    tally = SidecarTally(clock=lambda: now)
    tally.work, tally.last_apply_seconds = pb.PredictedWork(backlog_seconds=1.0), now
    assert tally.fresh_work() is not None
    now += PLAN_EXPIRES_SECONDS
    assert tally.fresh_work() is None


async def test_a_sidecar_that_reports_no_work_leaves_none(engine: Engine) -> None:
    session = (await engine.watch().snapshot()).session_id
    await engine.apply(session, 1, work=pb.PredictedWork(backlog_seconds=12.5))
    await engine.apply(session, 2)
    assert not engine.api.report().HasField("work")


async def test_only_the_newest_session_may_apply(engine: Engine) -> None:
    older = (await engine.watch().snapshot()).session_id
    newer = (await engine.watch().snapshot()).session_id
    assert await refused(engine.apply(older, 1)) == grpc.StatusCode.FAILED_PRECONDITION
    assert (await engine.apply(newer, 1)).sequence == 1
    assert engine.metric("applies_total", outcome="stale_session") == 1


async def test_nobody_applies_before_a_watch(engine: Engine) -> None:
    assert await refused(engine.apply("", 1)) == grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize("sequence", [pytest.param(5, id="the same again"), pytest.param(4, id="one that was overtaken")])
async def test_a_stale_sequence_is_refused_and_changes_nothing(engine: Engine, sequence: int) -> None:
    session = (await engine.watch().snapshot()).session_id
    await engine.apply(session, 5)
    assert await refused(engine.apply(session, sequence)) == grpc.StatusCode.ABORTED
    assert (engine.core.count(core.ApplyCall), engine.metric("applies_total", outcome="stale_sequence")) == (1, 1)


async def test_sequences_start_anew_with_a_session(engine: Engine) -> None:
    await engine.apply((await engine.watch().snapshot()).session_id, 5)
    newer = (await engine.watch().snapshot()).session_id
    assert (await engine.apply(newer, 1)).sequence == 1


async def test_an_apply_that_the_engine_did_not_take_may_be_sent_again(engine: Engine) -> None:
    session = (await engine.watch().snapshot()).session_id
    engine.core.down = True
    assert await refused(engine.apply(session, 1)) == grpc.StatusCode.UNAVAILABLE
    engine.core.down = False
    assert (await engine.apply(session, 1)).sequence == 1


INVALID = [
    pytest.param({"ranks": [pb.Rank(job_id="a", level=128)]}, id="a level above the range"),
    pytest.param({"ranks": [pb.Rank(job_id="a", level=-129)]}, id="a level below the range"),
    pytest.param({"ranks": [pb.Rank(level=1)]}, id="a rank without a job"),
    pytest.param({"limits": pb.Limits(int8_host_fraction=1.5)}, id="a fraction above one"),
    pytest.param({"limits": pb.Limits(int8_host_fraction=-0.5)}, id="a negative fraction"),
    pytest.param({"limits": pb.Limits(int8_host_fraction=float("nan"))}, id="a fraction that is no number"),
]


@pytest.mark.parametrize("fields", INVALID)
async def test_a_plan_outside_the_contract_is_refused_whole(engine: Engine, fields: dict[str, Any]) -> None:
    session = (await engine.watch().snapshot()).session_id
    request = pb.ApplyRequest(contract_version=CONTRACT_VERSION, session_id=session, sequence=1, **fields)
    assert await refused(engine.stub.Apply(request, timeout=TIMEOUT_SECONDS)) == grpc.StatusCode.INVALID_ARGUMENT
    assert (engine.core.count(core.ApplyCall), engine.metric("applies_total", outcome="invalid")) == (0, 1)


# --- versions ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [pytest.param(0, id="none"), pytest.param(CONTRACT_VERSION + 1, id="a newer one")])
async def test_another_contract_version_is_refused_everywhere(engine: Engine, version: int) -> None:
    calls = [
        engine.stub.Apply(pb.ApplyRequest(contract_version=version), timeout=TIMEOUT_SECONDS),
        engine.stub.Drain(pb.DrainRequest(contract_version=version), timeout=TIMEOUT_SECONDS),
    ]
    codes = [await refused(call) for call in calls] + [await engine.watch(version).status()]
    assert set(codes) == {grpc.StatusCode.FAILED_PRECONDITION}
    assert engine.api.draining is False


@pytest.mark.parametrize("version", [pytest.param(7, id="another release"), pytest.param(0, id="one that names no version")])
async def test_the_refused_version_is_in_the_status_until_one_is_understood(engine: Engine, version: int) -> None:
    await engine.watch(version).status()
    refused = engine.api.report().sidecar
    await engine.watch().snapshot()
    now = engine.api.report().sidecar
    assert (refused.contract_refused, refused.refused_contract_version) == (True, version)
    assert (now.contract_refused, now.refused_contract_version) == (False, 0)


# --- what it shows ----------------------------------------------------------------------------------------------------------------


async def test_the_engines_counters_are_metrics_and_in_the_status(engine: Engine) -> None:
    with engine.api.open():
        engine.core.counters = core.Counters(
            preemptions_rank=2,
            saves=3,
            restores=3,
            exact_resumes=3,
            host_int8_bytes=50,
            save_us=1_500_000,
            restore_us=250_000,
            recompute_us=4_000_000,
            host_eviction_us=3,
            kv_full_us=2_000_000,
            computed_tokens=700,
            free_device_blocks=65,
        )
        engine.core.put(make_row("a", phase=terms.PHASE_RUNNING))
        engine.core.put(make_row("b", phase=terms.PHASE_OFFLOADED))
        engine.core.put(make_row("c", phase=terms.PHASE_PREEMPTED))
        await eventually(lambda: engine.metric("exact_resumes_total") == 3, "a poll brought the counters")
    assert engine.metric("preemptions_total", cause="rank") == 2
    assert engine.metric("host_bytes", codec="int8") == 50
    seconds = {what: engine.metric(f"{what}_seconds_total") for what in ("save", "restore", "recompute", "host_eviction")}
    assert seconds == {"save": 1.5, "restore": 0.25, "recompute": 4.0, "host_eviction": 3e-6}
    assert engine.metric("host_limit_bytes") == SHAPE.host_limit_bytes
    assert (engine.metric("kv_full_seconds_total"), engine.metric("computed_tokens_total")) == (2.0, 700)
    assert (engine.metric("kv_limit_tokens"), engine.metric("kv_used_tokens")) == (95 * 32, 30 * 32)
    report = await engine.stub.Status(pb.StatusRequest(), timeout=TIMEOUT_SECONDS)
    assert (report.requests_running, report.requests_waiting, report.requests_offloaded) == (1, 1, 1)
    assert (report.host_memory.limit_bytes, report.host_memory.used_bytes) == (SHAPE.host_limit_bytes, 50)
    assert (report.counters.saves, report.vllm_version) == (3, "0.32.0")
    assert (report.kv.limit_tokens, report.kv.used_tokens, report.kv.bits) == (95 * 32, 30 * 32, 16)

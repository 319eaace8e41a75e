"""The API-server process' half of alise, put together: one `EngineApi` per server.

Made by the endpoint plugin before the application is built (the middleware and the status route hold it), connected to the engine once
there is one, stopped with the application.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from alise_contract.names import ADMISSION_SOCKET, CONTROL_SOCKET
from alise_contract.v1 import engine_control_pb2 as pb

from .admission import Admission, Decision, FailedOpen, FailOpenReason, Rejected
from .control.core import Core
from .control.drain import Drain
from .control.progress import Progress
from .control.server import ControlServer, ControlServicer
from .core_protocol import PHASES
from .describe import Description
from .errors import CoreUnavailable
from .metrics import Metrics
from .open_requests import OpenRequests
from .status import AdmissionTally, Observed, SidecarTally, report

logger = logging.getLogger("vllm.alise.api")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    socket_dir: Path
    admit_deadline_seconds: float
    vllm_version: str


@dataclass(slots=True)
class _Connected:
    """What exists once there is an engine."""

    progress: Progress
    drain: Drain
    server: ControlServer
    poll: asyncio.Task[None]
    serves: Callable[[str], bool]


class EngineApi:
    def __init__(self, settings: ApiSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._boot_id = uuid.uuid4().hex
        self._open = OpenRequests()
        self._tally = AdmissionTally()
        self._sidecar = SidecarTally()
        self._admission = Admission(settings.socket_dir / ADMISSION_SOCKET, settings.admit_deadline_seconds)
        self._connected: _Connected | None = None
        metrics.open_requests.set_function(lambda: self._open.count)
        metrics.draining.set_function(lambda: self.draining)
        metrics.plan_fresh.set_function(self._sidecar.plan_fresh)
        metrics.sidecar_connected.set_function(lambda: self._connected is not None and self._connected.progress.watched)
        metrics.set_breaker(self._admission.breaker_phase)

    async def connect(self, core: Core, serves: Callable[[str], bool]) -> None:
        """Starts the control server. Raises CoreUnavailable when the engine runs without our scheduler, ConfigError for a bad socket."""
        progress = Progress(core, self._open, self._metrics.core)
        shape = await progress.learn()
        drain = Drain(self._open, lambda: _live(progress), lambda: progress.set_draining(True))
        servicer = ControlServicer(core, progress, drain, self._sidecar, self._metrics, self.report, self._boot_id)
        server = ControlServer(servicer, self._settings.socket_dir / CONTROL_SOCKET)
        await server.start()
        poll = asyncio.create_task(progress.run(), name="alise-poll")
        poll.add_done_callback(_tell_death)
        self._connected = _Connected(progress, drain, server, poll, serves)
        logger.info("engine boot=%s model=%s host_limit_bytes=%d", self._boot_id, shape.model, shape.host_limit_bytes)

    async def stop(self) -> None:
        connected, self._connected = self._connected, None
        if connected is not None:
            connected.poll.cancel()
            await asyncio.gather(connected.poll, return_exceptions=True)
            connected.progress.close()
            await connected.server.stop()
        await self._admission.close()

    # --- what the middleware asks ---------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        return self._connected is not None and self._connected.drain.draining

    @property
    def refusing(self) -> bool:
        return self._connected is not None and self._connected.drain.refusing

    def open(self) -> AbstractContextManager[None]:
        return self._open.entered()

    def serves(self, model: str) -> bool:
        return self._connected is None or self._connected.serves(model)

    async def decide(self, job_id: str, description: Description) -> Decision:
        started = time.monotonic()
        decision = await self._admission.admit(job_id, description)
        now = time.monotonic()
        self._tally.recent.add(now)
        match decision:
            case FailedOpen(reason):
                self._tally.failed_open_by_reason[reason.value] += 1
                self._tally.recent_failed_open.add(now)
                self._metrics.failed_open.labels(reason.value).inc()
                self._metrics.admissions.labels("failed_open").inc()
                if reason is FailOpenReason.VERSION:
                    self._sidecar.refused_us()
            case Rejected():
                self._tally.rejected += 1
                self._metrics.admissions.labels("rejected").inc()
            case _:
                self._tally.admitted += 1
                self._metrics.admissions.labels("admitted").inc()
                self._sidecar.understood()
        if decision != FailedOpen(FailOpenReason.BREAKER_OPEN):
            self._metrics.admit_seconds.observe(now - started)
        self._metrics.set_breaker(self._admission.breaker_phase)
        return decision

    def passed_through(self, reason: str) -> None:
        self._metrics.passed_through.labels(reason).inc()

    def rejected(self, rejected: Rejected) -> None:
        self._metrics.refused.labels(rejected.reason.value).inc()

    # --- what the operator asks -----------------------------------------------------------------------------------------------

    def report(self) -> pb.StatusReport:
        progress = self._connected.progress if self._connected is not None else None
        core = self._metrics.core
        return report(
            Observed(
                boot_id=self._boot_id,
                draining=self.draining,
                sidecar_connected=progress is not None and progress.watched,
                plan_fresh=self._sidecar.plan_fresh(),
                last_apply_age_seconds=self._sidecar.apply_age_seconds(),
                breaker=self._admission.breaker_phase,
                refused_contract_version=self._sidecar.refused_contract_version,
                contract_refused=self._sidecar.contract_refused,
                encoder=self._sidecar.encoder,
                admission=self._tally,
                now_seconds=time.monotonic(),
                host_limit_bytes=core.host_limit_bytes,
                counters=core.counters,
                requests_by_phase={phase: core.requests_by_phase.get(phase, 0) for phase in PHASES},
                open_requests=self._open.count,
                vllm_version=self._settings.vllm_version,
            )
        )


def _tell_death(poll: asyncio.Task[None]) -> None:
    if not poll.cancelled() and (error := poll.exception()) is not None:
        logger.error("the poll of EngineCore died: no metrics, no Watch; restart the engine", exc_info=error)


async def _live(progress: Progress) -> int:
    """Engine requests alive, asked for now. An engine that does not answer has none left to wait for."""
    try:
        await progress.refresh()
    except CoreUnavailable as error:
        logger.warning("drain waits for HTTP requests only: %s", error)
        return 0
    return progress.live_count

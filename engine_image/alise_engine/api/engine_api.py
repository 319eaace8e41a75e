"""Puts the API-server process' half of alise together: one `EngineApi` per server.

The endpoint plugin (`endpoint.py`) creates it before the application is built, because the middleware and the status route need it. It is
connected to the engine once there is one, and stopped with the application. Through its parts it serves control.sock, asks the sidecar on
admission.sock, and reads the folders of API keys and adapters; it reads the monotonic clock itself.
"""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from opentelemetry.trace import Tracer

from alise_contract.describe import Endpoint
from alise_contract.names import ADMISSION_SOCKET, CONTROL_SOCKET, DEFAULT_MAX_PENDING, owner_of
from alise_contract.pod_key import derived
from alise_contract.v1 import engine_control_pb2 as pb

from ..errors import CoreUnavailable
from ..wire.calls import RequestRow, TraceRow
from ..wire.stamp import stamp_key
from ..wire.terms import PHASE_WAITING, PHASES
from . import adapter_files
from .adapter_loader import AdapterLoader, Server
from .admission import Admission, Admitted, Ask, Decision, FailedOpen, FailOpenReason, Rejected, RejectReason
from .body import BODIES_AT_ONCE, SMALL_TEXT_BYTES, TEXTS_AT_ONCE, BodyLimits, Uploads, max_json_bytes, max_text_bytes
from .control.core import Core
from .control.drain import Drain
from .control.progress import Progress
from .control.server import ControlServer, ControlServicer
from .identity import Caller, Headers, Keyring, Rules, caller
from .keys import KeyFolder
from .metrics import Metrics
from .open_requests import OpenRequests
from .parsing import Parsed, Parser
from .pending import Pending
from .recent import WINDOW_SECONDS, RecentCount
from .stamping import AddRequest, Ticket, stamping
from .status import AdmissionTally, Observed, SidecarTally, report
from .traces.record import Trace
from .traces.tracer import Traces

logger = logging.getLogger("vllm.alise.api")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    socket_dir: Path
    admit_deadline_seconds: float
    vllm_version: str
    pod_key: bytes
    max_pending: int = DEFAULT_MAX_PENDING
    limits: BodyLimits = field(default_factory=BodyLimits)
    rules: Rules = field(default_factory=Rules)
    # None: no API keys of ours.
    auth_dir: Path | None = None
    # None: no adapters of ours.
    adapters_dir: Path | None = None
    guards_metrics: bool = False
    isolates_prefix_cache: bool = False
    # Share of the requests that are traced, where traces are on.
    traces_ratio: float = 1.0


@dataclass(slots=True)
class _Connected:
    """The parts that exist once the engine runs."""

    progress: Progress
    drain: Drain
    server: ControlServer
    poll: asyncio.Task[None]
    max_model_len: int
    text_only: bool
    # The model's name in answers, and every name that clients may use for it.
    model: str
    names: frozenset[str]


class EngineApi:
    def __init__(self, settings: ApiSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._boot_id = uuid.uuid4().hex
        self._open = OpenRequests()
        self._tally = AdmissionTally()
        self._sidecar = SidecarTally()
        self._admission = Admission(settings.socket_dir / ADMISSION_SOCKET, settings.admit_deadline_seconds)
        self._pending = Pending(settings.max_pending)
        self._begun = RecentCount()
        self._parser = Parser()
        # Known once the engine has reported the length of its context.
        self._text_work = Uploads(0, SMALL_TEXT_BYTES)
        self._uploads = Uploads(BODIES_AT_ONCE * settings.limits.max_bytes)
        self._keys = KeyFolder(settings.auth_dir) if settings.auth_dir is not None else None
        self._adapters: AdapterLoader | None = None
        self._adapters_task: asyncio.Task[None] | None = None
        # Of vLLM's own --api-key.
        self._flag_keys: Keyring | None = None
        self._connected: _Connected | None = None
        # None: traces are off.
        self._traces: Traces | None = None
        metrics.set_classes(settings.rules.classes)
        metrics.open_requests.set_function(lambda: self._open.count)
        metrics.pending_requests.set_function(lambda: self._pending.count)
        metrics.draining.set_function(lambda: self.draining)
        metrics.plan_fresh.set_function(self._sidecar.plan_fresh)
        metrics.sidecar_connected.set_function(lambda: self._connected is not None and self._connected.progress.watched)
        metrics.set_breaker(self._admission.breaker_phase)

    async def connect(self, core: Core, text_only: bool = False, names: Iterable[str] = (), tracer: Tracer | None = None) -> None:
        """Starts the control server. `text_only`: the model takes neither pictures nor sounds. `names`: what clients may call it.

        Without a `tracer`, no request is traced. Raises CoreUnavailable when the engine runs without our scheduler, and ConfigError for a
        bad socket.
        """
        failed, urgent = self._metrics.poll_failures.inc, self._queue_is_half_full
        progress = Progress(core, self._open, self._metrics.core, self._heard, failed, urgent, self._told)
        shape = await progress.learn()
        drain = Drain(self._open, lambda: _live(progress), lambda: progress.set_draining(True))
        servicer = ControlServicer(core, progress, drain, self._sidecar, self._metrics, self.report, self._boot_id)
        server = ControlServer(servicer, self._settings.socket_dir / CONTROL_SOCKET)
        await server.start()
        poll = asyncio.create_task(progress.run(), name="alise-poll")
        self._connected = _Connected(progress, drain, server, poll, shape.max_model_len, text_only, shape.model, frozenset(names))
        self._text_work = Uploads(TEXTS_AT_ONCE * max_text_bytes(shape.max_model_len), SMALL_TEXT_BYTES)
        if tracer is not None:
            served, later = self._connected.names | {shape.model}, asyncio.get_running_loop().call_later
            self._traces = Traces(tracer, self._settings.traces_ratio, shape.model, served, progress.has, later)
        logger.info("engine boot=%s model=%s host_limit_bytes=%d", self._boot_id, shape.model, shape.host_limit_bytes)

    async def serve_adapters(self, server: Server) -> None:
        """Loads the adapters that the operator lists, and follows the list from now on."""
        if self._settings.adapters_dir is not None:
            self._adapters = AdapterLoader(self._settings.adapters_dir, server, adapter_files.find)
            await self._adapters.first()
            self._adapters_task = asyncio.create_task(self._adapters.run(), name="alise-adapters")

    async def stop(self) -> None:
        if self._adapters_task is not None:
            self._adapters_task.cancel()
            await asyncio.gather(self._adapters_task, return_exceptions=True)
        connected, self._connected = self._connected, None
        if connected is not None:
            connected.poll.cancel()
            await asyncio.gather(connected.poll, return_exceptions=True)
            connected.progress.close()
            await connected.server.stop()
        if self._traces is not None:
            self._traces.close()
        await self._admission.close()
        self._parser.close()

    # --- what the middleware asks ---------------------------------------------------------------------------------------------

    @property
    def draining(self) -> bool:
        return self._connected is not None and self._connected.drain.draining

    @property
    def refusing(self) -> bool:
        return self._connected is not None and self._connected.drain.refusing

    @property
    def limits(self) -> BodyLimits:
        return self._settings.limits

    @property
    def max_model_len(self) -> int:
        return self._connected.max_model_len if self._connected is not None else 0

    @property
    def max_json_bytes(self) -> int:
        """The limit of JSON beside the limit of every body."""
        connected = self._connected
        return max_json_bytes(connected.max_model_len) if connected is not None and connected.text_only else self._settings.limits.max_bytes

    def text_work(self, caller: Caller) -> AbstractContextManager[Callable[[int], bool]]:
        return self._text_work.upload(owner_of(caller.tenant))

    def upload(self, caller: Caller) -> AbstractContextManager[Callable[[int], bool]]:
        return self._uploads.upload(owner_of(caller.tenant))

    @property
    def guards_metrics(self) -> bool:
        return self._settings.guards_metrics

    def caller(self, headers: Headers) -> Caller | None:
        return caller(headers, self._keys.keyring() if self._keys is not None else self._flag_keys, self._settings.rules)

    def cache_salt(self, caller: Caller) -> str:
        """Returns what keeps this caller's prefixes apart from others'; empty where the cache is shared."""
        if not self._settings.isolates_prefix_cache:
            return ""
        return derived(self._settings.pod_key, f"prefix cache {caller.tenant}").hex()[:32]

    def open(self) -> AbstractContextManager[None]:
        return self._open.entered()

    async def parse(self, endpoint: Endpoint, data: bytes) -> Parsed:
        return await self._parser.parse(endpoint, data)

    def full(self, caller: Caller) -> Rejected | None:
        if not self._pending.is_full(owner_of(caller.tenant)):
            return None
        waiting, limit = self._pending.count, self._settings.max_pending
        message = f"{waiting} requests wait for their first token and the limit is {limit}"
        return self._rejected(Rejected(RejectReason.OVERLOADED, message, self._until_one_begins()))

    def _by_its_first_name(self, ask: Ask) -> Ask:
        """Replaces any served name of the model by the first one, so that the history of lengths is shared."""
        connected = self._connected
        if connected is None or ask.description.model not in connected.names or ask.description.model == connected.model:
            return ask
        return replace(ask, description=replace(ask.description, model=connected.model))

    async def decide(self, ask: Ask) -> Decision:
        """Counts the request as waiting, and asks the sidecar. The limit on waiting requests is enforced without the sidecar, too."""
        if (full := self.full(ask.caller)) is not None:
            return full
        self._pending.enter(ask.job_id, owner_of(ask.caller.tenant))
        started = time.monotonic()
        try:
            decision = await self._admission.admit(self._by_its_first_name(ask))
        except BaseException:
            self._pending.leave(ask.job_id)
            raise
        now = time.monotonic()
        match decision:
            case FailedOpen(reason):
                self._tally.recent.add(now)
                self._tally.failed_open_by_reason[reason.value] += 1
                self._tally.recent_failed_open.add(now)
                self._metrics.failed_open.labels(reason.value).inc()
                self._metrics.admissions.labels("failed_open").inc()
                if reason is FailOpenReason.VERSION:
                    self._sidecar.refused_us()
            case Rejected():
                self._pending.leave(ask.job_id)
                decision = self._rejected(decision)
            case Admitted():
                self._tally.recent.add(now)
                self._tally.admitted += 1
                self._metrics.admissions.labels("admitted").inc()
                self._sidecar.understood()
        if self._traces is not None:
            self._traces.decided(ask, started, now, decision)
        if decision != FailedOpen(FailOpenReason.BREAKER_OPEN):
            self._metrics.admit_seconds.observe(now - started)
        self._metrics.set_breaker(self._admission.breaker_phase)
        return decision

    def _rejected(self, rejected: Rejected) -> Rejected:
        self._tally.recent.add(time.monotonic())
        self._tally.rejected += 1
        self._metrics.admissions.labels("rejected").inc()
        return rejected

    def answered(self, ticket: Ticket) -> None:
        if self._pending.leave(ticket.stamp.job_id) and not ticket.engine_requests:
            # vLLM refused it, or its client went away before it reached the engine: the scheduler must stop counting it. A body that is no
            # JSON is not pending here, because the scheduler was never asked about it.
            self._admission.withdraw(ticket.stamp.job_id)

    def seen(self, klass: str, outcome: str) -> None:
        self._metrics.seen(klass, outcome)

    def begin_trace(self, job_id: str, client_id: str, path: str, headers: dict[str, str], caller: Caller) -> Trace | None:
        return self._traces.begin(job_id, client_id, path, headers, caller) if self._traces is not None else None

    def end_trace(self, trace: Trace, outcome: str, status: int) -> None:
        if self._traces is not None:
            self._traces.answered(trace.job_id, outcome, status)

    def passed_through(self, reason: str) -> None:
        self._metrics.passed_through.labels(reason).inc()

    # --- to and from the engine -----------------------------------------------------------------------------------------------

    def stamping(self, add_request: AddRequest) -> AddRequest:
        """Returns the engine client's `add_request` with the stamp of the current request on what it adds."""
        return stamping(add_request, stamp_key(self._settings.pod_key), self._entered)

    def use_flag_keys(self, keys: Keyring) -> None:
        """vLLM has API keys of its own (`--api-key`): what it leaves open is guarded with them, too."""
        self._flag_keys = keys

    def _entered(self, ticket: Ticket) -> None:
        # This may be after the HTTP answer, because a background response continues.
        self._pending.accepted(ticket.stamp.job_id, owner_of(ticket.tenant), ticket.engine_requests)
        if self._traces is not None:
            self._traces.entered(ticket.stamp.job_id, ticket.engine_requests, ticket.adapter)

    def _queue_is_half_full(self) -> bool:
        """Returns whether the queue is at least half full. Then a request that runs unnoticed could cost another request its place."""
        return 0 < self._settings.max_pending <= 2 * self._pending.count

    def _until_one_begins(self) -> int:
        """Returns the expected seconds until a place is free, from the requests that began in the last minute; at least 1."""
        begun = self._begun.total(time.monotonic())
        return min(WINDOW_SECONDS, max(1, math.ceil(WINDOW_SECONDS / begun))) if begun else 1

    def _heard(self, changed: Sequence[RequestRow], ended_jobs: Sequence[str]) -> None:
        for row in changed:
            begun = row.job_id and (row.phase != PHASE_WAITING or row.generated_tokens)
            if begun and self._pending.leave(row.job_id):
                self._begun.add(time.monotonic())
        for job_id in ended_jobs:
            self._pending.leave(job_id)
        if self._traces is not None and ended_jobs:
            self._traces.ended(ended_jobs)

    def _told(self, stories: Sequence[TraceRow]) -> None:
        if self._traces is not None:
            self._traces.told(stories)

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
                lacks_api_keys=self._keys is not None and not self._keys.keyring().tenants,
                kv=core.kv,
                work=self._sidecar.fresh_work(),
                adapters=self._adapters.rows() if self._adapters is not None else (),
            )
        )


async def _live(progress: Progress) -> int:
    """Returns the number of active engine requests, asked for now; 0 when the engine does not answer."""
    try:
        await progress.refresh()
    except CoreUnavailable as error:
        logger.warning("the drain waits for HTTP requests only, because EngineCore does not answer: %s", error)
        return 0
    return progress.live_count

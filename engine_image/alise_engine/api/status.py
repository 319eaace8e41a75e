"""Builds the StatusReport, which the operator reads over HTTP and `alise-engine status` prints.

`control/server.py` and `endpoint.py` call it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from alise_contract.names import CONTRACT_VERSION, PLAN_EXPIRES_SECONDS
from alise_contract.v1 import engine_control_pb2 as pb

from ..wire.calls import Counters
from ..wire.terms import PHASE_OFFLOADED, PHASE_PREEMPTED, PHASE_RESTORING, PHASE_RUNNING, PHASE_WAITING
from .adapters import Row as AdapterRow
from .adapters import State as AdapterState
from .admission import FailOpenReason
from .breaker import Phase as BreakerPhase
from .control.convert import counters_message
from .kv_room import KvRoom
from .recent import RecentCount

_ADAPTER_STATES: Final = {
    AdapterState.LOADING: pb.ADAPTER_STATE_LOADING,
    AdapterState.LOADED: pb.ADAPTER_STATE_LOADED,
    AdapterState.FAILED: pb.ADAPTER_STATE_FAILED,
}


@dataclass(slots=True)
class AdmissionTally:
    """What the middleware decided since boot and over the last minute."""

    admitted: int = 0
    rejected: int = 0
    failed_open_by_reason: dict[str, int] = field(default_factory=lambda: {reason.value: 0 for reason in FailOpenReason})
    recent: RecentCount = field(default_factory=RecentCount)
    recent_failed_open: RecentCount = field(default_factory=RecentCount)

    @property
    def failed_open(self) -> int:
        return sum(self.failed_open_by_reason.values())

    @property
    def requests(self) -> int:
        return self.admitted + self.rejected + self.failed_open


@dataclass(slots=True)
class SidecarTally:
    """The last calls of the sidecar."""

    # Monotonic; None: never.
    last_apply_seconds: float | None = None
    # The sidecar's, where we refused it (when it refused us it is not known). Both are undone once the two understand each other.
    refused_contract_version: int = 0
    contract_refused: bool = False
    # As its last Apply had it.
    encoder: pb.EncoderState = pb.ENCODER_STATE_UNSPECIFIED
    work: pb.PredictedWork | None = None
    clock: Callable[[], float] = time.monotonic

    def refused(self, sidecars_version: int) -> None:
        """We refused a call of the sidecar's."""
        self.contract_refused, self.refused_contract_version = True, sidecars_version

    def refused_us(self) -> None:
        """The sidecar refused a call of ours."""
        self.contract_refused = True

    def understood(self) -> None:
        self.contract_refused, self.refused_contract_version = False, 0

    def apply_age_seconds(self) -> float | None:
        return None if self.last_apply_seconds is None else max(0.0, self.clock() - self.last_apply_seconds)

    def plan_fresh(self) -> bool:
        age = self.apply_age_seconds()
        return age is not None and age < PLAN_EXPIRES_SECONDS

    def fresh_work(self) -> pb.PredictedWork | None:
        """Returns the pod's predicted work; None if it is out of date, because a figure that no longer moves would mislead autoscalers."""
        return self.work if self.plan_fresh() else None


@dataclass(frozen=True, slots=True)
class Observed:
    """The values of which a report is built."""

    boot_id: str
    draining: bool
    sidecar_connected: bool
    plan_fresh: bool
    last_apply_age_seconds: float | None
    breaker: BreakerPhase
    refused_contract_version: int
    contract_refused: bool
    encoder: pb.EncoderState
    admission: AdmissionTally
    now_seconds: float
    host_limit_bytes: int
    counters: Counters
    requests_by_phase: dict[str, int]
    open_requests: int
    vllm_version: str
    lacks_api_keys: bool = False
    # None: not known yet.
    kv: KvRoom | None = None
    # None: not known.
    work: pb.PredictedWork | None = None
    adapters: Sequence[AdapterRow] = ()


def report(seen: Observed) -> pb.StatusReport:
    phases = seen.requests_by_phase
    tally = seen.admission
    return pb.StatusReport(
        contract_version=CONTRACT_VERSION,
        boot_id=seen.boot_id,
        draining=seen.draining,
        sidecar=pb.SidecarStatus(
            connected=seen.sidecar_connected,
            plan_fresh=seen.plan_fresh,
            last_apply_age_seconds=seen.last_apply_age_seconds,
            breaker=seen.breaker.value,
            refused_contract_version=seen.refused_contract_version,
            contract_refused=seen.contract_refused,
            encoder=seen.encoder,
        ),
        admission=pb.AdmissionStatus(
            requests=tally.requests,
            admitted=tally.admitted,
            rejected=tally.rejected,
            failed_open=tally.failed_open,
            failed_open_by_reason=tally.failed_open_by_reason,
            recent_requests=tally.recent.total(seen.now_seconds),
            recent_failed_open=tally.recent_failed_open.total(seen.now_seconds),
        ),
        host_memory=pb.HostMemoryStatus(
            limit_bytes=seen.host_limit_bytes, used_bytes=seen.counters.host_raw_bytes + seen.counters.host_int8_bytes
        ),
        counters=counters_message(seen.counters),
        requests_running=phases.get(PHASE_RUNNING, 0),
        # Preempted without a host copy is waiting: it starts over.
        requests_waiting=phases.get(PHASE_WAITING, 0) + phases.get(PHASE_PREEMPTED, 0),
        requests_offloaded=phases.get(PHASE_OFFLOADED, 0) + phases.get(PHASE_RESTORING, 0),
        open_requests=seen.open_requests,
        vllm_version=seen.vllm_version,
        lacks_api_keys=seen.lacks_api_keys,
        kv=None if seen.kv is None else pb.KvStatus(limit_tokens=seen.kv.limit_tokens, used_tokens=seen.kv.used_tokens, bits=seen.kv.bits),
        work=seen.work,
        adapters=[
            pb.AdapterStatus(name=row.adapter.name, source=row.adapter.source, state=_ADAPTER_STATES[row.state], message=row.message)
            for row in seen.adapters
        ],
    )


def as_json(message: pb.StatusReport) -> dict[str, Any]:
    """The protobuf JSON mapping with the field names of the .proto file, zeros included (64-bit numbers are strings there)."""
    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)

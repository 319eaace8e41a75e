"""Translate the messages of `EngineControl` to frozen data and back. Protobuf messages stop here, and all their values are bounded here.

A request's ids and hint come from clients in the end. No value may raise an error further in, because Watch would then fail for as long as
the request is active. So numbers are clipped, an overlong hint or job id reads as none, and an overlong request id as its hash. `client.py`
calls it.
"""

import hashlib
from dataclasses import asdict
from typing import Final

from alise_contract.names import CONTRACT_VERSION, MAX_HINT_BYTES, MAX_JOB_ID_CHARS
from alise_contract.v1 import engine_control_pb2 as pb

from ..core import reports
from ..core.plan import Limits, Plan, PredictedWork

# Larger than any engine's values, and small enough for sums and products to fit float64 and int64.
MAX_COUNT: Final = 1 << 30
MAX_BYTES: Final = 1 << 50
MAX_SECONDS: Final = 1e7
_MAX_REQUEST_ID_CHARS: Final = 256
_PRIORITY_REACH: Final = 1 << 62
_PHASES: Final = {
    pb.PHASE_WAITING: reports.Phase.WAITING,
    pb.PHASE_RUNNING: reports.Phase.RUNNING,
    pb.PHASE_OFFLOADED: reports.Phase.OFFLOADED,
    pb.PHASE_PREEMPTED: reports.Phase.PREEMPTED,
    pb.PHASE_RESTORING: reports.Phase.RESTORING,
}
_REASONS: Final = {
    pb.FINISH_REASON_STOP: reports.FinishReason.STOP,
    pb.FINISH_REASON_LENGTH: reports.FinishReason.LENGTH,
    pb.FINISH_REASON_ABORT: reports.FinishReason.ABORT,
    pb.FINISH_REASON_ERROR: reports.FinishReason.ERROR,
}
_ENCODER: Final = {None: pb.ENCODER_STATE_UNSPECIFIED, True: pb.ENCODER_STATE_READY, False: pb.ENCODER_STATE_MISSING}


def from_response(message: pb.WatchResponse) -> reports.EngineSnapshot | reports.EngineUpdate | None:
    """The event in a Watch message. None if this version does not know the event."""
    match message.WhichOneof("event"):
        case "snapshot":
            return from_snapshot(message.snapshot)
        case "update":
            return from_update(message.update)
        case _:
            return None


def from_snapshot(message: pb.Snapshot) -> reports.EngineSnapshot:
    shape = message.engine
    return reports.EngineSnapshot(
        boot_id=message.boot_id,
        session_id=message.session_id,
        shape=reports.EngineShape(
            max_num_seqs=max(1, _count(shape.max_num_seqs)),
            max_num_batched_tokens=_count(shape.max_num_batched_tokens),
            max_model_len=max(1, _count(shape.max_model_len)),
            block_size=max(1, _count(shape.block_size)),
            num_device_blocks=_count(shape.num_device_blocks),
            block_bytes=_bytes(shape.block_bytes),
            host_limit_bytes=_bytes(shape.host_limit_bytes),
            model=shape.model,
        ),
        requests=tuple(from_request(request) for request in message.requests),
        counters=from_counters(message.counters),
        draining=message.draining,
    )


def from_update(message: pb.Update) -> reports.EngineUpdate:
    return reports.EngineUpdate(
        requests=tuple(from_request(request) for request in message.requests),
        finished=tuple(from_finished(item) for item in message.finished),
        steps=tuple(
            reports.Step(step.duration_us / 1e6, _count(step.prefill_tokens), _count(step.decode_requests), _count(step.context_tokens))
            for step in message.steps
        ),
        counters=from_counters(message.counters) if message.HasField("counters") else None,
        draining=message.draining,
    )


def from_request(message: pb.EngineRequest) -> reports.EngineRequest:
    """An unspecified phase reads as WAITING: the engine has the request, and nothing says that it has run."""
    return reports.EngineRequest(
        request_id=_request_id(message.request_id),
        job_id=_job_id(message.job_id),
        phase=_PHASES.get(message.phase, reports.Phase.WAITING),
        prompt_tokens=_count(message.prompt_tokens),
        generated_tokens=_count(message.generated_tokens),
        device_tokens=_count(message.device_tokens),
        host_tokens=_count(message.host_tokens),
        host_bytes=_bytes(message.host_bytes),
        max_tokens=_count(message.max_tokens),
        preemptions=_count(message.preemptions),
        priority=min(max(message.priority, -_PRIORITY_REACH), _PRIORITY_REACH),
        age_seconds=_seconds(message.age_ms),
        phase_seconds=_seconds(message.phase_ms),
        hint=message.hint if len(message.hint) <= MAX_HINT_BYTES else b"",
    )


def from_finished(message: pb.Finished) -> reports.Finished:
    """An unspecified reason reads as ERROR, which teaches the predictor nothing."""
    return reports.Finished(
        request_id=_request_id(message.request_id),
        job_id=_job_id(message.job_id),
        reason=_REASONS.get(message.reason, reports.FinishReason.ERROR),
        generated_tokens=_count(message.generated_tokens),
        ttft_seconds=_seconds(message.ttft_ms),
        prompt_tokens=_count(message.prompt_tokens),
        preemptions=_count(message.preemptions),
        age_seconds=_seconds(message.age_ms),
        waited_seconds=_seconds(message.waited_ms),
        preempted_seconds=_seconds(message.preempted_ms),
    )


def from_counters(message: pb.Counters) -> reports.Counters:
    return reports.Counters(host_bytes=_bytes(message.host_raw_bytes) + _bytes(message.host_int8_bytes))


def _count(value: int) -> int:
    return min(value, MAX_COUNT)


def _bytes(value: int) -> int:
    return min(value, MAX_BYTES)


def _seconds(milliseconds: int) -> float:
    return min(milliseconds / 1000, MAX_SECONDS)


def _job_id(value: str) -> str:
    """The job id, or an empty one if it is longer than any that the middleware gives out."""
    return value if len(value) <= MAX_JOB_ID_CHARS else ""


def _request_id(value: str) -> str:
    """The request id, or its hash if it is too long. A client may choose it (X-Request-Id)."""
    return value if len(value) <= _MAX_REQUEST_ID_CHARS else hashlib.blake2b(value.encode(), digest_size=16).hexdigest()


def to_apply(session_id: str, sequence: int, plan: Plan, has_encoder: bool | None = None) -> pb.ApplyRequest:
    """The message for a plan. `has_encoder` is None if that is not known yet, or no encoder is configured."""
    return pb.ApplyRequest(
        contract_version=CONTRACT_VERSION,
        session_id=session_id,
        sequence=sequence,
        ranks=[pb.Rank(job_id=job, level=rank.level, order=rank.order, ewt_ms=rank.ewt_ms) for job, rank in plan.ranks.items()],
        limits=to_limits(plan.limits) if plan.limits is not None else None,
        encoder=_ENCODER[has_encoder],
        work=to_work(plan.work) if plan.work is not None else None,
    )


def to_work(work: PredictedWork) -> pb.PredictedWork:
    return pb.PredictedWork(**asdict(work))


def to_limits(limits: Limits) -> pb.Limits:
    return pb.Limits(**asdict(limits))

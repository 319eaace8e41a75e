"""Asks the sidecar whether and how a request goes in. Always answers, within the deadline: what goes wrong becomes `FailedOpen`.

Alone in the middleware's part of the engine to know gRPC and protobuf.
"""

import asyncio
import base64
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

import grpc

from alise_contract.names import CONTRACT_VERSION, MAX_HINT_BYTES, MAX_LEVEL, MIN_LEVEL, unpack_priority
from alise_contract.v1 import admission_pb2

from . import breaker
from .admission_stream import AdmissionStream, AskError
from .describe import Description, Endpoint

logger = logging.getLogger("vllm.alise.admission")

_ENDPOINTS: Final = {
    Endpoint.CHAT_COMPLETIONS: admission_pb2.ENDPOINT_CHAT_COMPLETIONS,
    Endpoint.COMPLETIONS: admission_pb2.ENDPOINT_COMPLETIONS,
    Endpoint.RESPONSES: admission_pb2.ENDPOINT_RESPONSES,
}


class FailOpenReason(Enum):
    DEADLINE = "deadline"
    UNAVAILABLE = "unavailable"
    BREAKER_OPEN = "breaker_open"
    VERSION = "version"
    ERROR = "error"


class RejectReason(Enum):
    OVERLOADED = "overloaded"
    WAIT_TOO_LONG = "wait_too_long"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Admitted:
    priority: int
    # Base64, as it is stamped; empty when the sidecar sent none.
    hint: str


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: RejectReason
    message: str
    retry_after_seconds: int


@dataclass(frozen=True, slots=True)
class FailedOpen:
    reason: FailOpenReason


Decision = Admitted | Rejected | FailedOpen

_REJECTIONS: Final = {
    admission_pb2.Rejected.REASON_OVERLOADED: RejectReason.OVERLOADED,
    admission_pb2.Rejected.REASON_WAIT_TOO_LONG: RejectReason.WAIT_TOO_LONG,
    admission_pb2.Rejected.REASON_DRAINING: RejectReason.DRAINING,
}
_FAILURES: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: FailOpenReason.DEADLINE,
    grpc.StatusCode.UNAVAILABLE: FailOpenReason.UNAVAILABLE,
    # It stops, and the stream with it.
    grpc.StatusCode.CANCELLED: FailOpenReason.UNAVAILABLE,
    grpc.StatusCode.FAILED_PRECONDITION: FailOpenReason.VERSION,
    # A sidecar that does not know the method is older than the contract.
    grpc.StatusCode.UNIMPLEMENTED: FailOpenReason.VERSION,
}


class Admission:
    """One stream to the sidecar, one breaker before it."""

    def __init__(self, socket: Path, deadline_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = AdmissionStream(socket)
        self._deadline_seconds = deadline_seconds
        self._clock = clock
        self._breaker = breaker.Breaker()

    @property
    def breaker_phase(self) -> breaker.Phase:
        return self._breaker.phase

    async def close(self) -> None:
        await self._stream.close()

    async def admit(self, job_id: str, description: Description) -> Decision:
        self._breaker, may_ask = breaker.asked(self._breaker, self._clock())
        if not may_ask:
            return FailedOpen(FailOpenReason.BREAKER_OPEN)
        try:
            decision = await self._ask(job_id, description)
        except asyncio.CancelledError:
            # The probe must not stay open for ever because the server went down around it.
            self._breaker = breaker.failed(self._breaker, self._clock())
            raise
        if isinstance(decision, FailedOpen):
            self._breaker = breaker.failed(self._breaker, self._clock())
        else:
            self._breaker = breaker.answered(self._breaker)
        return decision

    async def _ask(self, job_id: str, description: Description) -> Decision:
        try:
            return _decision(await self._stream.ask(_request(job_id, description), self._deadline_seconds))
        except AskError as error:
            reason = _FAILURES.get(error.code, FailOpenReason.ERROR)
            logger.debug("admit job=%s failed open reason=%s detail=%s", job_id, reason.value, error)
            return FailedOpen(reason)
        except Exception:
            # Whatever is wrong between us and the sidecar costs order, never a request.
            logger.exception("admit job=%s failed open reason=error", job_id)
            return FailedOpen(FailOpenReason.ERROR)


def _request(job_id: str, description: Description) -> admission_pb2.AdmitRequest:
    return admission_pb2.AdmitRequest(
        contract_version=CONTRACT_VERSION,
        job_id=job_id,
        endpoint=_ENDPOINTS[description.endpoint],
        model=description.model,
        prompt=description.prompt,
        prompt_chars=description.prompt_chars,
        turns=description.turns,
        max_tokens=description.max_tokens,
        n=description.n,
        streaming=description.streaming,
        structured=description.structured,
        tenant=description.tenant,
        objective=description.objective,
        slo_ttft_ms=description.slo_ttft_ms,
        conversation=description.conversation,
        conversation_now=description.conversation_now,
        conversation_previous=description.conversation_previous,
        temperature=description.temperature,
    )


def _decision(response: admission_pb2.AdmitResponse) -> Decision:
    """Raises ValueError when the answer is outside the contract."""
    match response.WhichOneof("decision"):
        case "admitted":
            priority, hint = response.admitted.priority, response.admitted.hint
            level, _ = unpack_priority(priority)
            if not MIN_LEVEL <= level <= MAX_LEVEL:
                raise ValueError(f"the sidecar's priority {priority} is level {level}, outside [{MIN_LEVEL}, {MAX_LEVEL}]")
            if len(hint) > MAX_HINT_BYTES:
                raise ValueError(f"the sidecar's hint takes {len(hint)} bytes; at most {MAX_HINT_BYTES} are stamped")
            return Admitted(priority, base64.b64encode(hint).decode("ascii"))
        case "rejected":
            rejected = response.rejected
            reason = _REJECTIONS.get(rejected.reason, RejectReason.OVERLOADED)
            return Rejected(reason, rejected.message, max(1, rejected.retry_after_seconds))
        case other:
            raise ValueError(f"the sidecar's answer holds no decision ({other})")

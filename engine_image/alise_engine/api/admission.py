"""Asks the sidecar whether a request may enter the engine, and with which priority.

Always answers within the deadline: a failure becomes `FailedOpen`. `engine_api.py` creates it, and `middleware.py` acts on its answers.

This module and the connection are the only ones of the middleware's modules that use gRPC's status codes and protobuf.
"""

import asyncio
import base64
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final

import grpc

from alise_contract.describe import Description, Endpoint
from alise_contract.names import CONTRACT_VERSION, MAX_HINT_BYTES, MAX_LEVEL, MIN_LEVEL, unpack_priority
from alise_contract.v1 import admission_pb2

from . import breaker
from .admission_stream import AdmissionStream, AskError
from .identity import Caller

logger = logging.getLogger("vllm.alise.admission")

_ENDPOINTS: Final = {
    Endpoint.CHAT_COMPLETIONS: admission_pb2.ENDPOINT_CHAT_COMPLETIONS,
    Endpoint.COMPLETIONS: admission_pb2.ENDPOINT_COMPLETIONS,
    Endpoint.RESPONSES: admission_pb2.ENDPOINT_RESPONSES,
    Endpoint.MESSAGES: admission_pb2.ENDPOINT_MESSAGES,
    Endpoint.OTHER: admission_pb2.ENDPOINT_OTHER,
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
class Prediction:
    """What the sidecar predicted, and how long that took."""

    # Median of the lengths of one answer.
    median_tokens: float
    encode_seconds: float
    decide_seconds: float


@dataclass(frozen=True, slots=True)
class Admitted:
    priority: int
    # Base64, as it is stamped; empty when the sidecar sent none.
    hint: str
    # Of a traced request; None also from a sidecar that does not know traces.
    prediction: Prediction | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    reason: RejectReason
    message: str
    retry_after_seconds: int


@dataclass(frozen=True, slots=True)
class FailedOpen:
    reason: FailOpenReason


Decision = Admitted | Rejected | FailedOpen


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that asks for admission."""

    job_id: str
    description: Description
    caller: Caller = field(default_factory=Caller)
    # 0: none.
    slo_ttft_ms: int = 0
    # That the client gave it; empty: none.
    request_id: str = ""
    traced: bool = False


REJECTIONS: Final = {
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
}
# The sidecar works; it refused a malformed message of ours.
_OUR_FAULTS: Final = frozenset({grpc.StatusCode.INVALID_ARGUMENT})


class Admission:
    """Owns one connection to the sidecar and the circuit breaker before it."""

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

    async def admit(self, ask: Ask) -> Decision:
        """Returns the sidecar's decision, or that it has none."""
        try:
            question = request_message(ask)
        except Exception:
            # Ours, not the sidecar's: its breaker must not hear of it.
            logger.exception("admit job=%s failed open: the request cannot be encoded", ask.job_id)
            return FailedOpen(FailOpenReason.ERROR)
        self._breaker, may_ask = breaker.asked(self._breaker, self._clock())
        if not may_ask:
            return FailedOpen(FailOpenReason.BREAKER_OPEN)
        try:
            decision, fault = await self._ask(question)
        except asyncio.CancelledError:
            # The client has gone, which is no failure of the sidecar. A probe must not stay open for ever because of it.
            self._breaker = breaker.abandoned(self._breaker)
            raise
        self._breaker = breaker.failed(self._breaker, self._clock()) if fault else breaker.answered(self._breaker)
        return decision

    def withdraw(self, job_id: str) -> None:
        """Tells the sidecar that an admitted job ended before it reached the engine. If the message is lost, the job expires."""
        self._stream.tell(admission_pb2.AdmitRequest(contract_version=CONTRACT_VERSION, job_id=job_id, withdrawn=True))

    async def _ask(self, question: admission_pb2.AdmitRequest) -> tuple[Decision, bool]:
        """Returns the decision, and whether a missing decision is the sidecar's fault."""
        try:
            return _decision(await self._stream.ask(question, self._deadline_seconds)), False
        except AskError as error:
            reason = _FAILURES.get(error.code, FailOpenReason.ERROR)
            logger.debug("admit job=%s failed open reason=%s detail=%s", question.job_id, reason.value, error)
            return FailedOpen(reason), error.code not in _OUR_FAULTS
        except ValueError as error:
            logger.error("admit job=%s failed open: %s", question.job_id, error)
            return FailedOpen(FailOpenReason.ERROR), True
        except Exception:
            # Whatever is wrong between us and the sidecar costs order, never a request.
            logger.exception("admit job=%s failed open reason=error", question.job_id)
            return FailedOpen(FailOpenReason.ERROR), False


def request_message(ask: Ask) -> admission_pb2.AdmitRequest:
    """Returns the question to the sidecar."""
    description = ask.description
    return admission_pb2.AdmitRequest(
        contract_version=CONTRACT_VERSION,
        job_id=ask.job_id,
        endpoint=_ENDPOINTS[description.endpoint],
        model=description.model,
        prompt=description.prompt,
        prompt_chars=description.prompt_chars,
        turns=description.turns,
        max_tokens=description.max_tokens,
        min_tokens=description.min_tokens,
        n=description.n,
        structured=description.structured,
        tenant=_sendable(ask.caller.tenant),
        objective=_sendable(ask.caller.klass),
        slo_ttft_ms=ask.slo_ttft_ms,
        conversation=description.conversation,
        conversation_now=description.conversation_now,
        conversation_previous=description.conversation_previous,
        temperature=description.temperature,
        request_id=ask.request_id,
        traced=ask.traced,
    )


def _sendable(text: str) -> str:
    # Headers and file names may carry what protobuf's strings may not.
    return text.encode("utf-8", "replace").decode("utf-8")


def _prediction(message: admission_pb2.Prediction) -> Prediction | None:
    """Returns the prediction in a message; None if its length is no length."""
    if not 0 <= message.median_tokens < math.inf:
        return None
    return Prediction(message.median_tokens, message.encode_us / 1e6, message.decide_us / 1e6)


def _decision(response: admission_pb2.AdmitResponse) -> Decision:
    """Raises ValueError when the answer is outside the contract."""
    match response.WhichOneof("decision"):
        case "admitted":
            priority, hint = response.admitted.priority, response.admitted.hint
            level, _ = unpack_priority(priority)
            if not MIN_LEVEL <= level <= MAX_LEVEL:
                raise ValueError(f"the sidecar's priority {priority} is level {level}, outside [{MIN_LEVEL}, {MAX_LEVEL}]")
            if len(hint) > MAX_HINT_BYTES:
                raise ValueError(f"the sidecar's hint has {len(hint)} bytes; the limit is {MAX_HINT_BYTES}")
            prediction = _prediction(response.admitted.prediction) if response.admitted.HasField("prediction") else None
            return Admitted(priority, base64.b64encode(hint).decode("ascii"), prediction)
        case "rejected":
            rejected = response.rejected
            reason = REJECTIONS.get(rejected.reason, RejectReason.OVERLOADED)
            return Rejected(reason, rejected.message, max(1, rejected.retry_after_seconds))
        case other:
            raise ValueError(f"the sidecar's answer has no decision ({other})")

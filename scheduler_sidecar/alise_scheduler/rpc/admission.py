"""`Admission` on the pod's sockets, with gRPC health and reflection. Translates messages and errors; decides nothing."""

import asyncio
import hashlib
import logging
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health import aio as health  # type: ignore[attr-defined]
from grpc_reflection.v1alpha import reflection
from numpy.typing import NDArray

from alise_contract.names import (
    ADMISSION_GRPC_SOCKET,
    ADMISSION_SOCKET,
    CONTRACT_VERSION,
    LOCAL_RPC_OPTIONS,
    MAX_JOB_ID_CHARS,
    MAX_PROMPT_BYTES,
)
from alise_contract.v1 import admission_pb2 as pb
from alise_contract.v1.admission_pb2_grpc import AdmissionServicer, add_AdmissionServicer_to_server

from ..core.admit import Reason, Rejected
from ..errors import ContractError, InboxFullError, InvalidRequestError
from ..metrics import Metrics
from ..predictor.features import Question
from ..predictor.hint import MAX_TEXT_BYTES
from ..state import Admitted, Ask
from .connection import Questions

log = logging.getLogger(__name__)

_MAX_SAMPLES: Final = 1024
# Names are hashes and names of classes, tenants and models. A longer one is replaced by its own hash.
_MAX_NAME_BYTES: Final = MAX_TEXT_BYTES
# The number that features have for an endpoint. Messages are chats in another format, and a head learned what chat is.
_ENDPOINTS: Final[Mapping[int, int]] = {
    pb.ENDPOINT_UNSPECIFIED: pb.ENDPOINT_UNSPECIFIED,
    pb.ENDPOINT_CHAT_COMPLETIONS: pb.ENDPOINT_CHAT_COMPLETIONS,
    pb.ENDPOINT_COMPLETIONS: pb.ENDPOINT_COMPLETIONS,
    pb.ENDPOINT_RESPONSES: pb.ENDPOINT_RESPONSES,
    pb.ENDPOINT_MESSAGES: pb.ENDPOINT_CHAT_COMPLETIONS,
}
_REASONS: Final = {
    Reason.WAIT_TOO_LONG: pb.Rejected.REASON_WAIT_TOO_LONG,
    Reason.OBJECTIVE: pb.Rejected.REASON_WAIT_TOO_LONG,
    Reason.DRAINING: pb.Rejected.REASON_DRAINING,
}
_CODES: Final[Mapping[type[Exception], grpc.StatusCode]] = {
    ContractError: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    InboxFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
SERVICE: Final = pb.DESCRIPTOR.services_by_name["Admission"].full_name

Admit = Callable[[Ask], Awaitable[Admitted | Rejected]]
Withdraw = Callable[[str], None]
Encode = Callable[[str], Awaitable[NDArray[np.float32] | None]]


async def no_encoder(text: str) -> NDArray[np.float32] | None:
    """Nothing is known of what a prompt means."""
    return None


def check(message: pb.AdmitRequest) -> None:
    """Raises ContractError or InvalidRequestError."""
    if message.contract_version != CONTRACT_VERSION:
        raise ContractError(f"contract version {message.contract_version} is not spoken here; this sidecar speaks {CONTRACT_VERSION}")
    if not 0 < len(message.job_id) <= MAX_JOB_ID_CHARS:
        raise InvalidRequestError(f"job_id must have 1..{MAX_JOB_ID_CHARS} characters, got {len(message.job_id)}")
    if message.withdrawn:
        raise InvalidRequestError("a job is withdrawn on a connection for questions only")


def prompt_of(message: pb.AdmitRequest) -> str:
    """What is looked at of its prompt."""
    return message.prompt[:MAX_PROMPT_BYTES]


def to_ask(message: pb.AdmitRequest, embedding: NDArray[np.float32] | None = None) -> Ask:
    """Returns the question in a message, whatever its values; `embedding` is its prompt's.

    An endpoint that this version does not know is like one whose text is not known: neutral.
    """
    return Ask(
        job_id=message.job_id,
        question=Question(
            endpoint=_ENDPOINTS.get(message.endpoint, pb.ENDPOINT_UNSPECIFIED),
            prompt=prompt_of(message),
            prompt_chars=message.prompt_chars,
            turns=message.turns,
            max_tokens=message.max_tokens,
            structured=message.structured,
            tenant=_name(message.tenant),
            conversation=_name(message.conversation),
            model=_name(message.model),
            objective=_name(message.objective),
            temperature=message.temperature if message.HasField("temperature") else math.nan,
            conversation_now=_name(message.conversation_now),
            conversation_previous=_name(message.conversation_previous),
            embedding=embedding,
        ),
        samples=min(max(message.n, 1), _MAX_SAMPLES),
        objective=_name(message.objective),
        slo_ttft_ms=message.slo_ttft_ms,
        neutral=message.endpoint not in _ENDPOINTS,
    )


def _name(text: str) -> str:
    """A name as it is, or the hash of one that would not fit into a hint: cut, two tenants could become one."""
    if len(text) <= _MAX_NAME_BYTES // 4:
        return text
    data = text.encode("utf-8", "replace")
    return text if len(data) <= _MAX_NAME_BYTES else "hash:" + hashlib.blake2b(data, digest_size=16).hexdigest()


def to_response(answer: Admitted | Rejected) -> pb.AdmitResponse:
    """The answer as a message."""
    if isinstance(answer, Admitted):
        return pb.AdmitResponse(admitted=pb.Admitted(priority=answer.priority, hint=answer.hint))
    return pb.AdmitResponse(
        rejected=pb.Rejected(reason=_REASONS[answer.reason], message=answer.message, retry_after_seconds=answer.retry_after_seconds)
    )


def _failure(job_id: str, code: grpc.StatusCode, message: str) -> pb.AdmitAnswer:
    return pb.AdmitAnswer(job_id=job_id, failure=pb.Failure(code=code.value[0], message=message))


class AdmissionService(AdmissionServicer):
    """Answers Admit and the questions of `connection.py` out of the dispatcher."""

    def __init__(self, admit: Admit, metrics: Metrics, encode: Encode = no_encoder, withdraw: Withdraw = lambda job_id: None) -> None:
        self._admit = admit
        self._withdraw = withdraw
        self._encode = encode
        self._metrics = metrics

    async def Admit(self, request: pb.AdmitRequest, context: "grpc.aio.ServicerContext[Any, Any]") -> pb.AdmitResponse:
        began = time.perf_counter()
        try:
            return await self._answer(request)
        except (ContractError, InvalidRequestError, InboxFullError) as error:
            await self._abort(context, error)
        finally:
            self._metrics.admit_seconds.observe(time.perf_counter() - began)

    def taken_back(self, request: pb.AdmitRequest) -> bool:
        """Stops counting a job that will not reach the engine; whether the request says of which."""
        if request.contract_version != CONTRACT_VERSION or not 0 < len(request.job_id) <= MAX_JOB_ID_CHARS:
            return False
        self._withdraw(request.job_id)
        return True

    async def answer_in_time(self, request: pb.AdmitRequest) -> pb.AdmitAnswer | None:
        """None when the caller does not wait any more."""
        began = time.perf_counter()
        deadline = request.deadline_monotonic_ms / 1000 or math.inf
        if deadline <= time.monotonic():
            self._metrics.count_admit("gave_up", request.objective)
            return None
        try:
            async with asyncio.timeout_at(deadline if deadline < math.inf else None):
                return pb.AdmitAnswer(job_id=request.job_id, response=await self._answer(request))
        except TimeoutError:
            return None
        except (ContractError, InvalidRequestError, InboxFullError) as error:
            return _failure(request.job_id, _CODES[type(error)], str(error))
        except Exception:
            log.exception("admission failed", extra={"job": request.job_id})
            return _failure(request.job_id, grpc.StatusCode.INTERNAL, "the sidecar failed; its log says why")
        finally:
            self._metrics.admit_seconds.observe(time.perf_counter() - began)

    async def _answer(self, request: pb.AdmitRequest) -> pb.AdmitResponse:
        outcome = "invalid"
        try:
            check(request)
            embedding = await self._encode(prompt_of(request))
            answer = await self._admit(to_ask(request, embedding))
            outcome = "admitted" if isinstance(answer, Admitted) else answer.reason.value
        except ContractError:
            outcome = "version"
            raise
        except asyncio.CancelledError:
            outcome = "gave_up"
            raise
        except InboxFullError:
            outcome = "inbox_full"
            raise
        finally:
            self._metrics.count_admit(outcome, request.objective)
        if isinstance(answer, Admitted):
            fields = {"job": request.job_id, "job_level": answer.level, "predicted_tokens": round(answer.predicted_tokens)}
            log.debug("job admitted", extra=fields)
        else:
            log.info(
                "job rejected",
                extra={"job": request.job_id, "reason": answer.reason.value, "retry_after_seconds": answer.retry_after_seconds},
            )
        return to_response(answer)

    async def _abort(self, context: "grpc.aio.ServicerContext[Any, Any]", error: Exception) -> NoReturn:
        await context.abort(_CODES[type(error)], str(error))


def _make_room(path: str) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    if os.path.lexists(path):
        os.unlink(path)


class AdmissionServer:
    """Admission on two unix sockets of a folder: the middleware's questions, and gRPC with health and reflection."""

    def __init__(self, service: AdmissionService, folder: str) -> None:
        self._path = os.path.join(folder, ADMISSION_SOCKET)
        self._grpc_path = os.path.join(folder, ADMISSION_GRPC_SOCKET)
        self._questions = Questions(service)
        self._listening: asyncio.Server | None = None
        self._server = grpc.aio.server(options=(*LOCAL_RPC_OPTIONS, ("grpc.max_receive_message_length", 64 << 20)))
        self._health = health.HealthServicer()
        add_AdmissionServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names: Sequence[str] = (SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)

    async def start(self) -> None:
        """Makes the 0700 folder where there is none, replaces sockets that a dead process left, listens."""
        _make_room(self._path)
        _make_room(self._grpc_path)
        mask = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self._grpc_path}")
            await self._server.start()
            self._listening = await asyncio.get_running_loop().create_unix_server(self._questions.connected, self._path)
        finally:
            os.umask(mask)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        log.info("admission listens", extra={"socket": self._path})

    @property
    def connections(self) -> int:
        """How many ask."""
        return self._questions.connections

    async def serve(self) -> None:
        """Returns when the server has ended, which only `stop` should cause."""
        await self._server.wait_for_termination()

    async def stop(self, grace_seconds: float = 1.0) -> None:
        """Ends calls within the grace."""
        await self._health.enter_graceful_shutdown()
        if self._listening is not None:
            self._listening.close()
        await self._questions.end(grace_seconds)
        await self._server.stop(grace_seconds)

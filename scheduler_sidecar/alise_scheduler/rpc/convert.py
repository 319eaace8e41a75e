"""Translate the messages of `Admission` to plain values and back. Protobuf messages stop here. Texts and the number of samples are bounded
here; the other numbers are as large as their types allow.

`admission.py` calls it for every request, and `lengths.py` for every prediction. It decides nothing, reads no clock and touches nothing.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Final

import grpc
import numpy as np
from numpy.typing import NDArray

from alise_contract.names import CONTRACT_VERSION, MAX_JOB_ID_CHARS, MAX_PROMPT_BYTES, MAX_REQUEST_ID_CHARS
from alise_contract.v1 import admission_pb2 as pb

from ..admissions import Admitted, Ask
from ..core.admit import Reason, Rejected
from ..errors import ContractError, InboxFullError, InvalidRequestError
from ..predictor.features.request import Question
from ..predictor.hint import MAX_TEXT_BYTES

_MAX_SAMPLES: Final = 1024
# The names of classes, tenants and models, and hashes. A longer name is replaced by its hash.
_MAX_NAME_BYTES: Final = MAX_TEXT_BYTES
# The endpoint as the predictor's features know it. Messages are chat completions in another format, on which heads were trained.
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
CODES: Final[Mapping[type[Exception], grpc.StatusCode]] = {
    ContractError: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    InboxFullError: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


def check(message: pb.AdmitRequest) -> None:
    """Raises ContractError or InvalidRequestError if the request cannot be answered."""
    if message.contract_version != CONTRACT_VERSION:
        given = message.contract_version
        raise ContractError(f"contract version {given} is not supported, {CONTRACT_VERSION} is; use images of one release")
    if not 0 < len(message.job_id) <= MAX_JOB_ID_CHARS:
        raise InvalidRequestError(f"job_id must have 1 to {MAX_JOB_ID_CHARS} characters; it has {len(message.job_id)}")
    if message.withdrawn:
        raise InvalidRequestError("withdrawn can be set only on admission.sock, not over gRPC")


def prompt_of(message: pb.AdmitRequest) -> str:
    """The part of the prompt that is used."""
    return message.prompt[:MAX_PROMPT_BYTES]


def to_ask(message: pb.AdmitRequest, embedding: NDArray[np.float32] | None = None) -> Ask:
    """The question in a message, for any values of its fields. `embedding` is that of its prompt.

    An endpoint unknown to this version is treated as one whose text is unknown: the request is neutral.
    """
    return Ask(
        job_id=message.job_id,
        question=Question(
            endpoint=_ENDPOINTS.get(message.endpoint, pb.ENDPOINT_UNSPECIFIED),
            prompt=prompt_of(message),
            prompt_chars=message.prompt_chars,
            turns=message.turns,
            max_tokens=message.max_tokens,
            min_tokens=message.min_tokens,
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
        request_id=_client_id(message.request_id),
    )


def _client_id(text: str) -> str:
    """The client's id of its request, which is logged as it is; empty if it has too many or other characters than the contract allows."""
    return text if len(text) <= MAX_REQUEST_ID_CHARS and text.isascii() and text.isprintable() and " " not in text else ""


def _name(text: str) -> str:
    """The name, or its hash if it would not fit into a hint. A cut name could make two tenants one."""
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


def to_prediction(answer: Admitted, encode_seconds: float, decide_seconds: float) -> pb.Prediction:
    """What the trace of a request says about its admission."""
    return pb.Prediction(
        median_tokens=answer.predicted_tokens, encode_us=round(encode_seconds * 1e6), decide_us=round(decide_seconds * 1e6)
    )


def to_failure(job_id: str, code: grpc.StatusCode, message: str) -> pb.AdmitAnswer:
    """The answer that says why a request failed."""
    return pb.AdmitAnswer(job_id=job_id, failure=pb.Failure(code=code.value[0], message=message))

from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Endpoint(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENDPOINT_UNSPECIFIED: _ClassVar[Endpoint]
    ENDPOINT_CHAT_COMPLETIONS: _ClassVar[Endpoint]
    ENDPOINT_COMPLETIONS: _ClassVar[Endpoint]
    ENDPOINT_RESPONSES: _ClassVar[Endpoint]
    ENDPOINT_MESSAGES: _ClassVar[Endpoint]
    ENDPOINT_OTHER: _ClassVar[Endpoint]
ENDPOINT_UNSPECIFIED: Endpoint
ENDPOINT_CHAT_COMPLETIONS: Endpoint
ENDPOINT_COMPLETIONS: Endpoint
ENDPOINT_RESPONSES: Endpoint
ENDPOINT_MESSAGES: Endpoint
ENDPOINT_OTHER: Endpoint

class AdmitRequest(_message.Message):
    __slots__ = ("contract_version", "job_id", "endpoint", "model", "prompt", "prompt_chars", "turns", "max_tokens", "n", "structured", "tenant", "objective", "slo_ttft_ms", "conversation", "conversation_now", "conversation_previous", "temperature", "deadline_monotonic_ms", "withdrawn", "request_id", "traced", "min_tokens")
    CONTRACT_VERSION_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_CHARS_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    STRUCTURED_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    SLO_TTFT_MS_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_NOW_FIELD_NUMBER: _ClassVar[int]
    CONVERSATION_PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MONOTONIC_MS_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TRACED_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    contract_version: int
    job_id: str
    endpoint: Endpoint
    model: str
    prompt: str
    prompt_chars: int
    turns: int
    max_tokens: int
    n: int
    structured: bool
    tenant: str
    objective: str
    slo_ttft_ms: int
    conversation: str
    conversation_now: str
    conversation_previous: str
    temperature: float
    deadline_monotonic_ms: int
    withdrawn: bool
    request_id: str
    traced: bool
    min_tokens: int
    def __init__(self, contract_version: _Optional[int] = ..., job_id: _Optional[str] = ..., endpoint: _Optional[_Union[Endpoint, str]] = ..., model: _Optional[str] = ..., prompt: _Optional[str] = ..., prompt_chars: _Optional[int] = ..., turns: _Optional[int] = ..., max_tokens: _Optional[int] = ..., n: _Optional[int] = ..., structured: bool = ..., tenant: _Optional[str] = ..., objective: _Optional[str] = ..., slo_ttft_ms: _Optional[int] = ..., conversation: _Optional[str] = ..., conversation_now: _Optional[str] = ..., conversation_previous: _Optional[str] = ..., temperature: _Optional[float] = ..., deadline_monotonic_ms: _Optional[int] = ..., withdrawn: bool = ..., request_id: _Optional[str] = ..., traced: bool = ..., min_tokens: _Optional[int] = ...) -> None: ...

class AdmitResponse(_message.Message):
    __slots__ = ("admitted", "rejected")
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    admitted: Admitted
    rejected: Rejected
    def __init__(self, admitted: _Optional[_Union[Admitted, _Mapping]] = ..., rejected: _Optional[_Union[Rejected, _Mapping]] = ...) -> None: ...

class AdmitAnswer(_message.Message):
    __slots__ = ("job_id", "response", "failure")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    response: AdmitResponse
    failure: Failure
    def __init__(self, job_id: _Optional[str] = ..., response: _Optional[_Union[AdmitResponse, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: int
    message: str
    def __init__(self, code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Admitted(_message.Message):
    __slots__ = ("priority", "hint", "prediction")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    priority: int
    hint: bytes
    prediction: Prediction
    def __init__(self, priority: _Optional[int] = ..., hint: _Optional[bytes] = ..., prediction: _Optional[_Union[Prediction, _Mapping]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("median_tokens", "encode_us", "decide_us")
    MEDIAN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_US_FIELD_NUMBER: _ClassVar[int]
    DECIDE_US_FIELD_NUMBER: _ClassVar[int]
    median_tokens: float
    encode_us: int
    decide_us: int
    def __init__(self, median_tokens: _Optional[float] = ..., encode_us: _Optional[int] = ..., decide_us: _Optional[int] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("reason", "message", "retry_after_seconds")
    class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        REASON_UNSPECIFIED: _ClassVar[Rejected.Reason]
        REASON_OVERLOADED: _ClassVar[Rejected.Reason]
        REASON_WAIT_TOO_LONG: _ClassVar[Rejected.Reason]
        REASON_DRAINING: _ClassVar[Rejected.Reason]
    REASON_UNSPECIFIED: Rejected.Reason
    REASON_OVERLOADED: Rejected.Reason
    REASON_WAIT_TOO_LONG: Rejected.Reason
    REASON_DRAINING: Rejected.Reason
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    reason: Rejected.Reason
    message: str
    retry_after_seconds: int
    def __init__(self, reason: _Optional[_Union[Rejected.Reason, str]] = ..., message: _Optional[str] = ..., retry_after_seconds: _Optional[int] = ...) -> None: ...

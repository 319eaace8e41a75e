from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_WAITING: _ClassVar[Phase]
    PHASE_RUNNING: _ClassVar[Phase]
    PHASE_OFFLOADED: _ClassVar[Phase]
    PHASE_PREEMPTED: _ClassVar[Phase]
    PHASE_RESTORING: _ClassVar[Phase]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_STOP: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_ABORT: _ClassVar[FinishReason]
    FINISH_REASON_ERROR: _ClassVar[FinishReason]

class EncoderState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENCODER_STATE_UNSPECIFIED: _ClassVar[EncoderState]
    ENCODER_STATE_READY: _ClassVar[EncoderState]
    ENCODER_STATE_MISSING: _ClassVar[EncoderState]

class AdapterState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADAPTER_STATE_UNSPECIFIED: _ClassVar[AdapterState]
    ADAPTER_STATE_LOADING: _ClassVar[AdapterState]
    ADAPTER_STATE_LOADED: _ClassVar[AdapterState]
    ADAPTER_STATE_FAILED: _ClassVar[AdapterState]
PHASE_UNSPECIFIED: Phase
PHASE_WAITING: Phase
PHASE_RUNNING: Phase
PHASE_OFFLOADED: Phase
PHASE_PREEMPTED: Phase
PHASE_RESTORING: Phase
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_STOP: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_ABORT: FinishReason
FINISH_REASON_ERROR: FinishReason
ENCODER_STATE_UNSPECIFIED: EncoderState
ENCODER_STATE_READY: EncoderState
ENCODER_STATE_MISSING: EncoderState
ADAPTER_STATE_UNSPECIFIED: AdapterState
ADAPTER_STATE_LOADING: AdapterState
ADAPTER_STATE_LOADED: AdapterState
ADAPTER_STATE_FAILED: AdapterState

class WatchRequest(_message.Message):
    __slots__ = ("contract_version", "client")
    CONTRACT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    contract_version: int
    client: str
    def __init__(self, contract_version: _Optional[int] = ..., client: _Optional[str] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ("sequence", "snapshot", "update")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    snapshot: Snapshot
    update: Update
    def __init__(self, sequence: _Optional[int] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("boot_id", "session_id", "engine", "requests", "counters", "draining")
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    boot_id: str
    session_id: str
    engine: EngineShape
    requests: _containers.RepeatedCompositeFieldContainer[EngineRequest]
    counters: Counters
    draining: bool
    def __init__(self, boot_id: _Optional[str] = ..., session_id: _Optional[str] = ..., engine: _Optional[_Union[EngineShape, _Mapping]] = ..., requests: _Optional[_Iterable[_Union[EngineRequest, _Mapping]]] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., draining: bool = ...) -> None: ...

class EngineShape(_message.Message):
    __slots__ = ("max_num_seqs", "max_num_batched_tokens", "max_model_len", "block_size", "num_device_blocks", "block_bytes", "host_limit_bytes", "model", "kv_bits")
    MAX_NUM_SEQS_FIELD_NUMBER: _ClassVar[int]
    MAX_NUM_BATCHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    NUM_DEVICE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BLOCK_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    KV_BITS_FIELD_NUMBER: _ClassVar[int]
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    block_size: int
    num_device_blocks: int
    block_bytes: int
    host_limit_bytes: int
    model: str
    kv_bits: int
    def __init__(self, max_num_seqs: _Optional[int] = ..., max_num_batched_tokens: _Optional[int] = ..., max_model_len: _Optional[int] = ..., block_size: _Optional[int] = ..., num_device_blocks: _Optional[int] = ..., block_bytes: _Optional[int] = ..., host_limit_bytes: _Optional[int] = ..., model: _Optional[str] = ..., kv_bits: _Optional[int] = ...) -> None: ...

class EngineRequest(_message.Message):
    __slots__ = ("request_id", "job_id", "phase", "prompt_tokens", "generated_tokens", "device_tokens", "host_tokens", "host_bytes", "max_tokens", "preemptions", "priority", "age_ms", "phase_ms", "hint")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    HOST_TOKENS_FIELD_NUMBER: _ClassVar[int]
    HOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    PHASE_MS_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    job_id: str
    phase: Phase
    prompt_tokens: int
    generated_tokens: int
    device_tokens: int
    host_tokens: int
    host_bytes: int
    max_tokens: int
    preemptions: int
    priority: int
    age_ms: int
    phase_ms: int
    hint: bytes
    def __init__(self, request_id: _Optional[str] = ..., job_id: _Optional[str] = ..., phase: _Optional[_Union[Phase, str]] = ..., prompt_tokens: _Optional[int] = ..., generated_tokens: _Optional[int] = ..., device_tokens: _Optional[int] = ..., host_tokens: _Optional[int] = ..., host_bytes: _Optional[int] = ..., max_tokens: _Optional[int] = ..., preemptions: _Optional[int] = ..., priority: _Optional[int] = ..., age_ms: _Optional[int] = ..., phase_ms: _Optional[int] = ..., hint: _Optional[bytes] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("request_id", "job_id", "reason", "prompt_tokens", "generated_tokens", "preemptions", "age_ms", "ttft_ms", "waited_ms", "preempted_ms")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    GENERATED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    TTFT_MS_FIELD_NUMBER: _ClassVar[int]
    WAITED_MS_FIELD_NUMBER: _ClassVar[int]
    PREEMPTED_MS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    job_id: str
    reason: FinishReason
    prompt_tokens: int
    generated_tokens: int
    preemptions: int
    age_ms: int
    ttft_ms: int
    waited_ms: int
    preempted_ms: int
    def __init__(self, request_id: _Optional[str] = ..., job_id: _Optional[str] = ..., reason: _Optional[_Union[FinishReason, str]] = ..., prompt_tokens: _Optional[int] = ..., generated_tokens: _Optional[int] = ..., preemptions: _Optional[int] = ..., age_ms: _Optional[int] = ..., ttft_ms: _Optional[int] = ..., waited_ms: _Optional[int] = ..., preempted_ms: _Optional[int] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("duration_us", "prefill_tokens", "decode_requests", "context_tokens")
    DURATION_US_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DECODE_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    duration_us: int
    prefill_tokens: int
    decode_requests: int
    context_tokens: int
    def __init__(self, duration_us: _Optional[int] = ..., prefill_tokens: _Optional[int] = ..., decode_requests: _Optional[int] = ..., context_tokens: _Optional[int] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("requests", "finished", "steps", "counters", "draining")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[EngineRequest]
    finished: _containers.RepeatedCompositeFieldContainer[Finished]
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    counters: Counters
    draining: bool
    def __init__(self, requests: _Optional[_Iterable[_Union[EngineRequest, _Mapping]]] = ..., finished: _Optional[_Iterable[_Union[Finished, _Mapping]]] = ..., steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., draining: bool = ...) -> None: ...

class Counters(_message.Message):
    __slots__ = ("preemptions_rank", "preemptions_memory", "saves", "saved_bytes", "restores", "restored_tokens", "recomputes", "recomputed_tokens", "host_evictions", "host_raw_bytes", "host_int8_bytes", "free_device_blocks", "steps", "exact_resumes", "prefetches", "prefetches_revoked", "save_us", "restore_us", "recompute_us", "host_eviction_us", "kv_full_us", "computed_tokens")
    PREEMPTIONS_RANK_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_MEMORY_FIELD_NUMBER: _ClassVar[int]
    SAVES_FIELD_NUMBER: _ClassVar[int]
    SAVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESTORES_FIELD_NUMBER: _ClassVar[int]
    RESTORED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTES_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    HOST_EVICTIONS_FIELD_NUMBER: _ClassVar[int]
    HOST_RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    HOST_INT8_BYTES_FIELD_NUMBER: _ClassVar[int]
    FREE_DEVICE_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    EXACT_RESUMES_FIELD_NUMBER: _ClassVar[int]
    PREFETCHES_FIELD_NUMBER: _ClassVar[int]
    PREFETCHES_REVOKED_FIELD_NUMBER: _ClassVar[int]
    SAVE_US_FIELD_NUMBER: _ClassVar[int]
    RESTORE_US_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    HOST_EVICTION_US_FIELD_NUMBER: _ClassVar[int]
    KV_FULL_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    preemptions_rank: int
    preemptions_memory: int
    saves: int
    saved_bytes: int
    restores: int
    restored_tokens: int
    recomputes: int
    recomputed_tokens: int
    host_evictions: int
    host_raw_bytes: int
    host_int8_bytes: int
    free_device_blocks: int
    steps: int
    exact_resumes: int
    prefetches: int
    prefetches_revoked: int
    save_us: int
    restore_us: int
    recompute_us: int
    host_eviction_us: int
    kv_full_us: int
    computed_tokens: int
    def __init__(self, preemptions_rank: _Optional[int] = ..., preemptions_memory: _Optional[int] = ..., saves: _Optional[int] = ..., saved_bytes: _Optional[int] = ..., restores: _Optional[int] = ..., restored_tokens: _Optional[int] = ..., recomputes: _Optional[int] = ..., recomputed_tokens: _Optional[int] = ..., host_evictions: _Optional[int] = ..., host_raw_bytes: _Optional[int] = ..., host_int8_bytes: _Optional[int] = ..., free_device_blocks: _Optional[int] = ..., steps: _Optional[int] = ..., exact_resumes: _Optional[int] = ..., prefetches: _Optional[int] = ..., prefetches_revoked: _Optional[int] = ..., save_us: _Optional[int] = ..., restore_us: _Optional[int] = ..., recompute_us: _Optional[int] = ..., host_eviction_us: _Optional[int] = ..., kv_full_us: _Optional[int] = ..., computed_tokens: _Optional[int] = ...) -> None: ...

class ApplyRequest(_message.Message):
    __slots__ = ("contract_version", "session_id", "sequence", "ranks", "limits", "encoder", "work")
    CONTRACT_VERSION_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    contract_version: int
    session_id: str
    sequence: int
    ranks: _containers.RepeatedCompositeFieldContainer[Rank]
    limits: Limits
    encoder: EncoderState
    work: PredictedWork
    def __init__(self, contract_version: _Optional[int] = ..., session_id: _Optional[str] = ..., sequence: _Optional[int] = ..., ranks: _Optional[_Iterable[_Union[Rank, _Mapping]]] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., encoder: _Optional[_Union[EncoderState, str]] = ..., work: _Optional[_Union[PredictedWork, _Mapping]] = ...) -> None: ...

class PredictedWork(_message.Message):
    __slots__ = ("backlog_seconds", "offered_load")
    BACKLOG_SECONDS_FIELD_NUMBER: _ClassVar[int]
    OFFERED_LOAD_FIELD_NUMBER: _ClassVar[int]
    backlog_seconds: float
    offered_load: float
    def __init__(self, backlog_seconds: _Optional[float] = ..., offered_load: _Optional[float] = ...) -> None: ...

class Rank(_message.Message):
    __slots__ = ("job_id", "level", "order", "ewt_ms")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    EWT_MS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    level: int
    order: int
    ewt_ms: int
    def __init__(self, job_id: _Optional[str] = ..., level: _Optional[int] = ..., order: _Optional[int] = ..., ewt_ms: _Optional[int] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("preempt_levels", "min_quantum_steps", "int8_ewt_ms", "int8_host_fraction", "host_budget_bytes", "spared_levels")
    PREEMPT_LEVELS_FIELD_NUMBER: _ClassVar[int]
    MIN_QUANTUM_STEPS_FIELD_NUMBER: _ClassVar[int]
    INT8_EWT_MS_FIELD_NUMBER: _ClassVar[int]
    INT8_HOST_FRACTION_FIELD_NUMBER: _ClassVar[int]
    HOST_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    SPARED_LEVELS_FIELD_NUMBER: _ClassVar[int]
    preempt_levels: int
    min_quantum_steps: int
    int8_ewt_ms: int
    int8_host_fraction: float
    host_budget_bytes: int
    spared_levels: int
    def __init__(self, preempt_levels: _Optional[int] = ..., min_quantum_steps: _Optional[int] = ..., int8_ewt_ms: _Optional[int] = ..., int8_host_fraction: _Optional[float] = ..., host_budget_bytes: _Optional[int] = ..., spared_levels: _Optional[int] = ...) -> None: ...

class ApplyResponse(_message.Message):
    __slots__ = ("sequence", "unknown_jobs")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_JOBS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    unknown_jobs: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sequence: _Optional[int] = ..., unknown_jobs: _Optional[_Iterable[str]] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ("contract_version", "accept_seconds", "timeout_seconds")
    CONTRACT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    contract_version: int
    accept_seconds: float
    timeout_seconds: float
    def __init__(self, contract_version: _Optional[int] = ..., accept_seconds: _Optional[float] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = ("finished", "open_requests", "waited_seconds")
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    WAITED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    finished: bool
    open_requests: int
    waited_seconds: float
    def __init__(self, finished: bool = ..., open_requests: _Optional[int] = ..., waited_seconds: _Optional[float] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReport(_message.Message):
    __slots__ = ("contract_version", "boot_id", "draining", "sidecar", "admission", "host_memory", "counters", "requests_running", "requests_waiting", "requests_offloaded", "open_requests", "vllm_version", "lacks_api_keys", "kv", "work", "adapters")
    CONTRACT_VERSION_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    SIDECAR_FIELD_NUMBER: _ClassVar[int]
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    HOST_MEMORY_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_WAITING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_OFFLOADED_FIELD_NUMBER: _ClassVar[int]
    OPEN_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    VLLM_VERSION_FIELD_NUMBER: _ClassVar[int]
    LACKS_API_KEYS_FIELD_NUMBER: _ClassVar[int]
    KV_FIELD_NUMBER: _ClassVar[int]
    WORK_FIELD_NUMBER: _ClassVar[int]
    ADAPTERS_FIELD_NUMBER: _ClassVar[int]
    contract_version: int
    boot_id: str
    draining: bool
    sidecar: SidecarStatus
    admission: AdmissionStatus
    host_memory: HostMemoryStatus
    counters: Counters
    requests_running: int
    requests_waiting: int
    requests_offloaded: int
    open_requests: int
    vllm_version: str
    lacks_api_keys: bool
    kv: KvStatus
    work: PredictedWork
    adapters: _containers.RepeatedCompositeFieldContainer[AdapterStatus]
    def __init__(self, contract_version: _Optional[int] = ..., boot_id: _Optional[str] = ..., draining: bool = ..., sidecar: _Optional[_Union[SidecarStatus, _Mapping]] = ..., admission: _Optional[_Union[AdmissionStatus, _Mapping]] = ..., host_memory: _Optional[_Union[HostMemoryStatus, _Mapping]] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., requests_running: _Optional[int] = ..., requests_waiting: _Optional[int] = ..., requests_offloaded: _Optional[int] = ..., open_requests: _Optional[int] = ..., vllm_version: _Optional[str] = ..., lacks_api_keys: bool = ..., kv: _Optional[_Union[KvStatus, _Mapping]] = ..., work: _Optional[_Union[PredictedWork, _Mapping]] = ..., adapters: _Optional[_Iterable[_Union[AdapterStatus, _Mapping]]] = ...) -> None: ...

class AdapterStatus(_message.Message):
    __slots__ = ("name", "source", "state", "message")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    name: str
    source: str
    state: AdapterState
    message: str
    def __init__(self, name: _Optional[str] = ..., source: _Optional[str] = ..., state: _Optional[_Union[AdapterState, str]] = ..., message: _Optional[str] = ...) -> None: ...

class SidecarStatus(_message.Message):
    __slots__ = ("connected", "plan_fresh", "last_apply_age_seconds", "breaker", "refused_contract_version", "contract_refused", "encoder")
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    PLAN_FRESH_FIELD_NUMBER: _ClassVar[int]
    LAST_APPLY_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BREAKER_FIELD_NUMBER: _ClassVar[int]
    REFUSED_CONTRACT_VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTRACT_REFUSED_FIELD_NUMBER: _ClassVar[int]
    ENCODER_FIELD_NUMBER: _ClassVar[int]
    connected: bool
    plan_fresh: bool
    last_apply_age_seconds: float
    breaker: str
    refused_contract_version: int
    contract_refused: bool
    encoder: EncoderState
    def __init__(self, connected: bool = ..., plan_fresh: bool = ..., last_apply_age_seconds: _Optional[float] = ..., breaker: _Optional[str] = ..., refused_contract_version: _Optional[int] = ..., contract_refused: bool = ..., encoder: _Optional[_Union[EncoderState, str]] = ...) -> None: ...

class AdmissionStatus(_message.Message):
    __slots__ = ("requests", "admitted", "rejected", "failed_open", "failed_open_by_reason", "recent_requests", "recent_failed_open")
    class FailedOpenByReasonEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    FAILED_OPEN_FIELD_NUMBER: _ClassVar[int]
    FAILED_OPEN_BY_REASON_FIELD_NUMBER: _ClassVar[int]
    RECENT_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    RECENT_FAILED_OPEN_FIELD_NUMBER: _ClassVar[int]
    requests: int
    admitted: int
    rejected: int
    failed_open: int
    failed_open_by_reason: _containers.ScalarMap[str, int]
    recent_requests: int
    recent_failed_open: int
    def __init__(self, requests: _Optional[int] = ..., admitted: _Optional[int] = ..., rejected: _Optional[int] = ..., failed_open: _Optional[int] = ..., failed_open_by_reason: _Optional[_Mapping[str, int]] = ..., recent_requests: _Optional[int] = ..., recent_failed_open: _Optional[int] = ...) -> None: ...

class KvStatus(_message.Message):
    __slots__ = ("limit_tokens", "used_tokens", "bits")
    LIMIT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    USED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    limit_tokens: int
    used_tokens: int
    bits: int
    def __init__(self, limit_tokens: _Optional[int] = ..., used_tokens: _Optional[int] = ..., bits: _Optional[int] = ...) -> None: ...

class HostMemoryStatus(_message.Message):
    __slots__ = ("limit_bytes", "used_bytes")
    LIMIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    limit_bytes: int
    used_bytes: int
    def __init__(self, limit_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ...) -> None: ...

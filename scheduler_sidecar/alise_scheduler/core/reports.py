"""The engine's reports as frozen data, with durations in seconds.

`engine/convert.py` makes them from the contract's messages; `book.py` and `state.py` take them in.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum


class Phase(IntEnum):
    """The phase of a job. The engine reports all but ADMITTED."""

    # Admitted, but not reported by the engine yet: it is being tokenized, or the client has gone away.
    ADMITTED = 0
    WAITING = 1
    RUNNING = 2
    OFFLOADED = 3
    PREEMPTED = 4
    RESTORING = 5


class FinishReason(Enum):
    STOP = "stop"
    LENGTH = "length"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class EngineShape:
    max_num_seqs: int = 1
    max_num_batched_tokens: int = 2048
    max_model_len: int = 2048
    block_size: int = 32
    num_device_blocks: int = 1024
    block_bytes: int = 0
    host_limit_bytes: int = 0
    model: str = ""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One engine request. A job has one or more of them."""

    request_id: str
    job_id: str
    phase: Phase
    prompt_tokens: int = 0
    generated_tokens: int = 0
    device_tokens: int = 0
    host_tokens: int = 0
    host_bytes: int = 0
    max_tokens: int = 0
    preemptions: int = 0
    priority: int = 0
    age_seconds: float = 0.0
    phase_seconds: float = 0.0
    hint: bytes = b""


@dataclass(frozen=True, slots=True)
class Finished:
    request_id: str
    job_id: str
    reason: FinishReason
    generated_tokens: int = 0
    ttft_seconds: float = 0.0
    prompt_tokens: int = 0
    preemptions: int = 0
    # Since it reached the engine. Of these: before its first step, and between its preemptions and its returns.
    age_seconds: float = 0.0
    waited_seconds: float = 0.0
    preempted_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Step:
    """One engine step."""

    duration_seconds: float
    prefill_tokens: int
    decode_requests: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Counters:
    """The engine's counters that the sidecar publishes."""

    # Bytes of KV in the host store, raw and INT8 together.
    host_bytes: int = 0


@dataclass(frozen=True, slots=True)
class EngineSnapshot:
    boot_id: str
    session_id: str
    shape: EngineShape
    requests: tuple[EngineRequest, ...] = ()
    counters: Counters = field(default_factory=Counters)
    draining: bool = False


@dataclass(frozen=True, slots=True)
class EngineUpdate:
    requests: tuple[EngineRequest, ...] = ()
    finished: tuple[Finished, ...] = ()
    steps: tuple[Step, ...] = ()
    counters: Counters | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class EngineLost:
    """The session has ended. The engine itself may still be running."""

    detail: str


EngineEvent = EngineSnapshot | EngineUpdate | EngineLost

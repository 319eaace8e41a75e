"""The calls of the API-server process to EngineCore, and their answers: `call_utility_async("scheduler", bytes) -> bytes`.

    SnapshotCall -> SnapshotAnswer    every request; starts the changes that `poll` reports afresh
    PollCall     -> PollAnswer        what changed since the last poll or snapshot
    ApplyCall    -> ApplyAnswer       sets ranks and limits, and makes the plan fresh again; names the jobs that the engine does not have

Values are msgspec structs. They travel as msgpack arrays and are validated when they are decoded. A row has the fields of the message that
it becomes in `alise_contract/v1/engine_control.proto`, under the same names, so that `api/control/convert.py` copies them without a list
of its own. Durations are in milliseconds; phases, endings and codecs are the words of `terms.py`.

To add a field to a row that the engine reports: add it to the message in the .proto file, to the struct here, and where
`enginecore/tracker.py` makes the row. To add one to `RankRow` or `LimitsRow`, which the scheduler sends: to the message, to the struct
here, and to `Rank` or `Limits` of the sidecar's `core/plan.py`; `tests/contract/test_plans.py` follows all fields from there to here.
"""

from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from alise_contract.names import MAX_LEVEL, MIN_LEVEL

from ..errors import PayloadError

MAX_STEPS_PER_POLL: Final = 64

Level = Annotated[int, Meta(ge=MIN_LEVEL, le=MAX_LEVEL)]
Order = Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)]
Count = Annotated[int, Meta(ge=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(min_length=1)]


class RequestRow(Struct, frozen=True, array_like=True, gc=False):
    request_id: str
    # Empty for a request that bypassed the middleware.
    job_id: str
    phase: str
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
    # Base64 as it was stamped; empty after the first poll that named the request.
    hint: str


class FinishedRow(Struct, frozen=True, array_like=True, gc=False):
    request_id: str
    job_id: str
    reason: str
    prompt_tokens: int
    generated_tokens: int
    preemptions: int
    age_ms: int
    # 0: there was no token.
    ttft_ms: int
    waited_ms: int
    preempted_ms: int


class Mark(Struct, frozen=True, array_like=True, gc=False):
    """Something that happened to a traced request."""

    # The phase that began, MARK_FIRST_TOKEN or MARK_ENDED.
    what: str
    # CLOCK_MONOTONIC, which both processes share.
    at_us: int
    # Of a preemption: the tokens that the request had. Of a return: those whose KV came back from the host.
    tokens: Count = 0
    # Of a preemption: by rank, for memory, or because the KV was lost. Of a return: "lost" if KV is computed again and none came back.
    cause: str = ""


class TraceRow(Struct, frozen=True, array_like=True, gc=False):
    """The story of a traced request that has ended."""

    ending: FinishedRow
    marks: tuple[Mark, ...]
    # Marks that found no room, besides these.
    dropped: Count = 0


class StepRow(Struct, frozen=True, array_like=True, gc=False):
    duration_us: int
    prefill_tokens: int
    decode_requests: int
    context_tokens: int


class Counters(Struct, frozen=True, array_like=True, gc=False):
    """Since boot, except `host_raw_bytes`, `host_int8_bytes` and `free_device_blocks`, which are current values."""

    preemptions_rank: int = 0
    preemptions_memory: int = 0
    saves: int = 0
    saved_bytes: int = 0
    restores: int = 0
    restored_tokens: int = 0
    recomputes: int = 0
    recomputed_tokens: int = 0
    host_evictions: int = 0
    host_raw_bytes: int = 0
    host_int8_bytes: int = 0
    free_device_blocks: int = 0
    steps: int = 0
    exact_resumes: int = 0
    prefetches: int = 0
    prefetches_revoked: int = 0
    save_us: int = 0
    restore_us: int = 0
    recompute_us: int = 0
    host_eviction_us: int = 0
    kv_full_us: int = 0
    computed_tokens: int = 0


class EngineShape(Struct, frozen=True, array_like=True, gc=False):
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    block_size: int
    num_device_blocks: int
    # Over all layers, keys and values, all tensor-parallel workers.
    block_bytes: int
    # 0: no host store.
    host_limit_bytes: int
    model: str
    # Of one number of the KV cache on the device; 0: unknown.
    kv_bits: int = 0


class RankRow(Struct, frozen=True, array_like=True, gc=False):
    """The place of a job. A lower (level, order) runs first."""

    job_id: Name
    level: Level
    order: Order
    # Expected wait until its turn.
    ewt_ms: Count


class LimitsRow(Struct, frozen=True, array_like=True, gc=False):
    """How the engine carries ranks out."""

    # 0: never preempt by rank.
    preempt_levels: Count = 1
    min_quantum_steps: Count = 4
    int8_ewt_ms: Count = 2_000
    int8_host_fraction: Fraction = 0.5
    # 0: unchanged, and at first the whole store.
    host_budget_bytes: Count = 0
    # Running requests of this many of the best levels keep their slot and KV memory; they still give up the place of a LoRA adapter.
    spared_levels: Count = 0


class SnapshotCall(Struct, frozen=True, array_like=True, tag="snapshot"):
    """Asks for every request."""


class PollCall(Struct, frozen=True, array_like=True, tag="poll"):
    """Asks for what changed."""


class ApplyCall(Struct, frozen=True, array_like=True, tag="apply"):
    """Sets what changed in the plan."""

    ranks: tuple[RankRow, ...] = ()
    # None: unchanged.
    limits: LimitsRow | None = None


Call = SnapshotCall | PollCall | ApplyCall


class SnapshotAnswer(Struct, frozen=True, array_like=True):
    shape: EngineShape
    requests: tuple[RequestRow, ...]
    counters: Counters


class PollAnswer(Struct, frozen=True, array_like=True):
    requests: tuple[RequestRow, ...]
    finished: tuple[FinishedRow, ...]
    # At most MAX_STEPS_PER_POLL, oldest first.
    steps: tuple[StepRow, ...]
    counters: Counters
    # The traced requests in `finished`, and earlier ones that no poll has reported.
    traces: tuple[TraceRow, ...] = ()


class ApplyAnswer(Struct, frozen=True, array_like=True):
    # Jobs that the engine does not have.
    unknown: tuple[str, ...]


Answer = TypeVar("Answer", SnapshotAnswer, PollAnswer, ApplyAnswer)
_ENCODER: Final = msgspec.msgpack.Encoder()
_CALLS: Final[msgspec.msgpack.Decoder[Call]] = msgspec.msgpack.Decoder(Call)
_ANSWERS: Final[dict[type, msgspec.msgpack.Decoder[Any]]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (SnapshotAnswer, PollAnswer, ApplyAnswer)
}


def encode(value: Call | SnapshotAnswer | PollAnswer | ApplyAnswer) -> bytes:
    return _ENCODER.encode(value)


# Bytes that cannot be decoded raise msgspec.DecodeError or UnicodeDecodeError; both are ValueErrors.


def decode_call(payload: Any) -> Call:
    """Returns the call in these bytes. Raises PayloadError, which says what was expected where."""
    try:
        return _CALLS.decode(payload)
    except (ValueError, TypeError) as error:
        raise PayloadError(f"the call to the scheduler cannot be decoded: {error}") from error


def decode_answer(kind: type[Answer], payload: Any) -> Answer:
    """Returns the answer in these bytes. Raises PayloadError, which says what was expected where."""
    try:
        answer: Answer = _ANSWERS[kind].decode(payload)
    except (ValueError, TypeError) as error:
        raise PayloadError(f"{kind.__name__} cannot be decoded: {error}") from error
    return answer

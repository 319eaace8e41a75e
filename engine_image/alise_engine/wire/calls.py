"""The utility calls between the API-server process and EngineCore: `call_utility_async("scheduler", payload) -> answer`.

Payloads and answers are dicts, lists, str, int, float, bool and None, because msgpack carries them. A row is a list in the order of
its dataclass' fields. Fields mirror the messages of the same name in `alise_contract/v1/engine_control.proto`; durations are milliseconds
as ints, phases, reasons and codecs are the strings below. `from_wire` validates and raises PayloadError.

    op          answer
    snapshot    SnapshotAnswer    all requests; starts the deltas of `poll` afresh
    poll        PollAnswer        what changed since the last poll or snapshot
    apply       ApplyAnswer       jobs that the engine does not have; the others' ranks were set and the plan is fresh again
"""

from dataclasses import dataclass, fields
from typing import Any, Final, Self, TypeVar

from alise_contract.names import MAX_LEVEL, MIN_LEVEL

from ..errors import PayloadError

OP_SNAPSHOT: Final = "snapshot"
OP_POLL: Final = "poll"
OP_APPLY: Final = "apply"

PHASE_WAITING: Final = "waiting"
PHASE_RUNNING: Final = "running"
PHASE_OFFLOADED: Final = "offloaded"
PHASE_PREEMPTED: Final = "preempted"
PHASE_RESTORING: Final = "restoring"
PHASES: Final = (PHASE_WAITING, PHASE_RUNNING, PHASE_OFFLOADED, PHASE_PREEMPTED, PHASE_RESTORING)

FINISH_STOP: Final = "stop"
FINISH_LENGTH: Final = "length"
FINISH_ABORT: Final = "abort"
FINISH_ERROR: Final = "error"

CODEC_RAW: Final = "raw"
CODEC_INT8: Final = "int8"
CODEC_AUTO: Final = "auto"

MAX_STEPS_PER_POLL: Final = 64

Wire = Any
R = TypeVar("R", bound="Row")


@dataclass(frozen=True, slots=True)
class Row:
    """A frozen value that travels as a list of its fields, in order."""

    def to_wire(self) -> list[Wire]:
        # Not by `fields`: a poll writes a thousand rows.
        names: tuple[str, ...] = self.__match_args__
        return [getattr(self, name) for name in names]

    @classmethod
    def from_wire(cls, row: Wire) -> Self:
        """Raises PayloadError when the row has another length or a field another type than declared."""
        # A poll reads hundreds of rows a second, and nearly all of them are what they should be.
        if isinstance(row, list) and tuple(map(type, row)) == _types(cls):
            return cls(*row)
        declared = fields(cls)
        if not isinstance(row, (list, tuple)) or len(row) != len(declared):
            raise PayloadError(f"{cls.__name__}: expected a list of {len(declared)} ({', '.join(f.name for f in declared)}), got {row!r}")
        for field, value in zip(declared, row, strict=True):
            if not _is(field.type, value):
                raise PayloadError(f"{cls.__name__}.{field.name}: expected {_type_name(field.type)}, got {value!r}")
        return cls(*row)


_types_of: dict[Any, tuple[type, ...]] = {}


def _types(row: "type[Row]") -> tuple[type, ...]:
    """The types of a row's fields, in order."""
    known = _types_of.get(row)
    if known is None:
        known = _types_of[row] = tuple(_TYPES[_type_name(field.type)] for field in fields(row))
    return known


_TYPES: Final[dict[str, type]] = {"int": int, "float": float, "bool": bool, "str": str}


def _type_name(declared: Any) -> str:
    return declared if isinstance(declared, str) else str(declared.__name__)


def _is(declared: Any, value: Wire) -> bool:
    match _type_name(declared):
        case "int":
            return isinstance(value, int) and not isinstance(value, bool)
        case "float":
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case "bool":
            return isinstance(value, bool)
        case _:
            return isinstance(value, str)


@dataclass(frozen=True, slots=True)
class RequestRow(Row):
    request_id: str
    # Empty for a request that came around the middleware.
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


@dataclass(frozen=True, slots=True)
class FinishedRow(Row):
    request_id: str
    job_id: str
    reason: str
    prompt_tokens: int
    generated_tokens: int
    preemptions: int
    age_ms: int
    # 0: there was no token.
    ttft_ms: int


@dataclass(frozen=True, slots=True)
class StepRow(Row):
    duration_us: int
    prefill_tokens: int
    decode_requests: int
    context_tokens: int


@dataclass(frozen=True, slots=True)
class Counters(Row):
    """Since boot, except `host_raw_bytes`, `host_int8_bytes` and `free_device_blocks`, which are now. Travels as a dict."""

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


@dataclass(frozen=True, slots=True)
class EngineShape(Row):
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


@dataclass(frozen=True, slots=True)
class RankRow(Row):
    """Where a job stands. Raises PayloadError from `from_wire` when a number is outside the contract."""

    job_id: str
    level: int
    order: int
    ewt_ms: int

    @classmethod
    def from_wire(cls, row: Wire) -> Self:
        rank = super(RankRow, cls).from_wire(row)
        if not MIN_LEVEL <= rank.level <= MAX_LEVEL:
            raise PayloadError(f"rank of job {rank.job_id!r}: level {rank.level} is outside [{MIN_LEVEL}, {MAX_LEVEL}]")
        if not -(1 << 31) <= rank.order < 1 << 31:
            raise PayloadError(f"rank of job {rank.job_id!r}: order {rank.order} is outside [-2^31, 2^31)")
        if rank.ewt_ms < 0:
            raise PayloadError(f"rank of job {rank.job_id!r}: ewt_ms {rank.ewt_ms} is negative")
        if not rank.job_id:
            raise PayloadError("a rank without a job id ranks nothing")
        return rank


@dataclass(frozen=True, slots=True)
class LimitsRow(Row):
    """How the engine carries ranks out. Travels as a dict."""

    # 0: never preempt by rank.
    preempt_levels: int = 1
    min_quantum_steps: int = 4
    int8_ewt_ms: int = 2_000
    # In [0, 1].
    int8_host_fraction: float = 0.5
    # 0: unchanged, and at first the whole store.
    host_budget_bytes: int = 0


def as_dict(row: Row) -> dict[str, Wire]:
    names: tuple[str, ...] = row.__match_args__
    return {name: getattr(row, name) for name in names}


def _from_dict(kind: type[R], value: Wire) -> R:
    names: tuple[str, ...] = kind.__match_args__
    if not isinstance(value, dict) or value.keys() != set(names):
        raise PayloadError(f"{kind.__name__}: expected a dict of {', '.join(names)}, got {value!r}")
    return kind.from_wire([value[name] for name in names])


def _limits(value: Wire) -> LimitsRow:
    limits = _from_dict(LimitsRow, value)
    for name, number in as_dict(limits).items():
        if number < 0:
            raise PayloadError(f"limits: {name} {number} is negative")
    if not 0 <= limits.int8_host_fraction <= 1:
        raise PayloadError(f"limits: int8_host_fraction {limits.int8_host_fraction} is outside [0, 1]")
    return limits


def _rows(value: Wire, key: str) -> list[Wire]:
    rows = value.get(key) if isinstance(value, dict) else None
    if not isinstance(rows, list):
        raise PayloadError(f"expected a dict with a list under {key!r}, got {value!r}")
    return rows


@dataclass(frozen=True, slots=True)
class SnapshotAnswer:
    shape: EngineShape
    requests: tuple[RequestRow, ...]
    counters: Counters

    def to_wire(self) -> dict[str, Wire]:
        return {"shape": as_dict(self.shape), "requests": [row.to_wire() for row in self.requests], "counters": as_dict(self.counters)}

    @classmethod
    def from_wire(cls, value: Wire) -> Self:
        requests = tuple(RequestRow.from_wire(row) for row in _rows(value, "requests"))
        return cls(_from_dict(EngineShape, value.get("shape")), requests, _from_dict(Counters, value.get("counters")))


@dataclass(frozen=True, slots=True)
class PollAnswer:
    requests: tuple[RequestRow, ...]
    finished: tuple[FinishedRow, ...]
    # At most MAX_STEPS_PER_POLL, oldest first.
    steps: tuple[StepRow, ...]
    counters: Counters

    def to_wire(self) -> dict[str, Wire]:
        return {
            "requests": [row.to_wire() for row in self.requests],
            "finished": [row.to_wire() for row in self.finished],
            "steps": [row.to_wire() for row in self.steps],
            "counters": as_dict(self.counters),
        }

    @classmethod
    def from_wire(cls, value: Wire) -> Self:
        return cls(
            tuple(RequestRow.from_wire(row) for row in _rows(value, "requests")),
            tuple(FinishedRow.from_wire(row) for row in _rows(value, "finished")),
            tuple(StepRow.from_wire(row) for row in _rows(value, "steps")),
            _from_dict(Counters, value.get("counters")),
        )


@dataclass(frozen=True, slots=True)
class ApplyCall:
    ranks: tuple[RankRow, ...] = ()
    # None: unchanged.
    limits: LimitsRow | None = None

    def to_wire(self) -> dict[str, Wire]:
        limits = None if self.limits is None else as_dict(self.limits)
        return {"op": OP_APPLY, "ranks": [rank.to_wire() for rank in self.ranks], "limits": limits}

    @classmethod
    def from_wire(cls, value: Wire) -> Self:
        ranks = tuple(RankRow.from_wire(row) for row in _rows(value, "ranks"))
        limits = value.get("limits")
        return cls(ranks, None if limits is None else _limits(limits))


@dataclass(frozen=True, slots=True)
class ApplyAnswer:
    unknown: tuple[str, ...]

    def to_wire(self) -> dict[str, Wire]:
        return {"unknown": list(self.unknown)}

    @classmethod
    def from_wire(cls, value: Wire) -> Self:
        return cls(tuple(_rows(value, "unknown")))


@dataclass(frozen=True, slots=True)
class SnapshotCall:
    def to_wire(self) -> dict[str, Wire]:
        return {"op": OP_SNAPSHOT}


@dataclass(frozen=True, slots=True)
class PollCall:
    def to_wire(self) -> dict[str, Wire]:
        return {"op": OP_POLL}


Call = SnapshotCall | PollCall | ApplyCall


def call_from_wire(payload: Wire) -> Call:
    """What a utility call asks for; raises PayloadError when it asks for nothing known."""
    op = payload.get("op") if isinstance(payload, dict) else None
    match op:
        case "snapshot":
            return SnapshotCall()
        case "poll":
            return PollCall()
        case "apply":
            return ApplyCall.from_wire(payload)
        case _:
            raise PayloadError(f"unknown op {op!r}; known: {OP_SNAPSHOT}, {OP_POLL}, {OP_APPLY}")

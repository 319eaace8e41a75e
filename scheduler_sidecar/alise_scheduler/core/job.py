"""A job, the table of its phases, and the columns that `decide()` works on.

A job is one HTTP request, which is one or more engine requests. `book.py` keeps the active jobs and `state.py` turns them into a Snapshot.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alise_contract.names import PART_SEPARATOR, owner_of

from ..errors import IllegalMoveError
from .exec_time import CostModel
from .lengths import QUANTILES, Floats, Lengths
from .plan import Rank, sent_columns
from .reports import EngineRequest, EngineShape, Phase

Ints = NDArray[np.int64]

# The phases that may be reported after each phase of an engine request. Reports are merged for slow watchers, so one report may cover
# several steps. A request can never become WAITING (it has not run) or ADMITTED (the engine has not seen it) again.
_RAN: Final = frozenset({Phase.RUNNING, Phase.OFFLOADED, Phase.PREEMPTED, Phase.RESTORING})
MOVES: Final[Mapping[Phase, frozenset[Phase]]] = {
    Phase.ADMITTED: frozenset({Phase.WAITING}) | _RAN,
    Phase.WAITING: frozenset({Phase.WAITING}) | _RAN,
    Phase.RUNNING: _RAN,
    Phase.OFFLOADED: _RAN,
    Phase.PREEMPTED: _RAN,
    Phase.RESTORING: _RAN,
}


def move(before: Phase, after: Phase, request_id: str) -> Phase:
    """The phase after a report. Raises IllegalMoveError if the table does not allow the move."""
    if after not in MOVES[before]:
        raise IllegalMoveError(f"request {request_id} was reported as {after.name} after {before.name}, which is not a possible move")
    return after


# The phase of a job with several requests is the first of these that any of them has.
_PRECEDENCE: Final = (Phase.RUNNING, Phase.RESTORING, Phase.OFFLOADED, Phase.PREEMPTED, Phase.WAITING)


@dataclass(frozen=True, slots=True)
class Job:
    """One job. Its times are readings of the dispatcher's clock and never leave the process."""

    id: str
    # Number of its arrival, which breaks ties within a level.
    order: int
    lengths: Lengths
    weight: float = 1.0
    # Tenants share the slots. "" is a tenant like any other.
    tenant: str = ""
    max_tokens: int = 0
    samples: int = 1
    # An estimate until the engine has tokenized the prompt.
    prompt_tokens: int = 1
    # False if it bypassed the middleware and has no job id. No Apply can name it, so it counts as load but is not ranked.
    rankable: bool = True
    phase: Phase = Phase.ADMITTED
    requests: Mapping[str, EngineRequest] = field(default_factory=dict)
    arrived_at: float = 0.0
    # Time spent not running before `phase_at`, which is when the present phase began.
    waited_seconds: float = 0.0
    phase_at: float = 0.0
    # When it first ran, as far as it was reported; None: it has not run.
    started_at: float | None = None

    def waiting_seconds(self, at: float) -> float:
        """Time spent not running so far. Never decreases."""
        return self.waited_seconds + (0.0 if self.phase is Phase.RUNNING else max(0.0, at - self.phase_at))

    def age_seconds(self, at: float) -> float:
        """Time since arrival, at least the time it has waited."""
        return max(at - self.arrived_at, self.waiting_seconds(at))

    def with_request(self, request: EngineRequest, at: float) -> "Job":
        """The job after a report about one of its requests. Raises IllegalMoveError."""
        known = self.requests.get(request.request_id)
        move(known.phase if known else Phase.ADMITTED, request.phase, request.request_id)
        return self._folded({**self.requests, request.request_id: request}, at, request.phase_seconds)

    def without_request(self, request_id: str, at: float) -> "Job | None":
        """The job after one of its requests has finished; None if that was the last one."""
        rest = {key: value for key, value in self.requests.items() if key != request_id}
        return self._folded(rest, at, 0.0) if rest else None

    def _folded(self, requests: Mapping[str, EngineRequest], at: float, phase_seconds: float) -> "Job":
        phases = {request.phase for request in requests.values()}
        phase = next(phase for phase in _PRECEDENCE if phase in phases)
        prompt = max(request.prompt_tokens for request in requests.values()) or self.prompt_tokens
        limit = max(request.max_tokens for request in requests.values()) or self.max_tokens
        if phase is self.phase:
            return replace(self, requests=requests, prompt_tokens=prompt, max_tokens=limit)
        since = min(at, max(self.phase_at, at - max(0.0, phase_seconds)))
        waited = self.waiting_seconds(since)
        started = since if self.started_at is None and phase is not Phase.WAITING else self.started_at
        return replace(
            self, requests=requests, prompt_tokens=prompt, max_tokens=limit, phase=phase, waited_seconds=waited, phase_at=since,
            started_at=started,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All active jobs at one moment, as columns of J rows in arrival order. With the policy it is the whole input of `decide()`."""

    jobs: tuple[str, ...]
    rankable: NDArray[np.bool_]
    phase: Ints
    order: Ints
    weight: Floats
    # Number of the job's tenant, counted from 0 without gaps.
    tenant: Ints
    # [J, QUANTILES] tokens.
    lengths: Floats
    # The client's or the context's cap on output tokens; inf if there is none.
    limit_tokens: Floats
    samples: Floats
    prompt_tokens: Floats
    generated_tokens: Floats
    device_tokens: Floats
    host_tokens: Floats
    host_bytes: Floats
    waiting_seconds: Floats
    # Time since arrival.
    age_seconds: Floats
    engine: EngineShape
    cost: CostModel
    # Work of the typical job, whose level is 0.
    neutral_seconds: float
    # The ranks last sent to the engine, [3, J]; see `plan.sent_columns`.
    sent: Ints
    # Number of the part of the job's tenant; None if no tenant has parts.
    part: Ints | None = None
    # Time since a job of the engine last ended; inf if none has.
    ended_seconds: float = math.inf

    def __len__(self) -> int:
        return len(self.jobs)


def columns(
    jobs: tuple[Job, ...], at: float, engine: EngineShape, cost: CostModel, neutral_seconds: float, sent: Mapping[str, Rank],
    ended_at: float = -math.inf,
) -> Snapshot:  # fmt: skip
    """Jobs as columns. If a job has several requests, lengths are the longest and memory is the sum."""

    def column(values: list[float]) -> Floats:
        return np.array(values, dtype=np.float64)

    def whole(values: list[int]) -> Ints:
        return np.array(values, dtype=np.int64)

    progress = np.array([_progress(job) for job in jobs], dtype=np.float64).reshape(len(jobs), 4)
    limits = [limit_tokens(job, engine) for job in jobs]
    names = tuple(job.id for job in jobs)
    owners: dict[str, int] = {}
    tenants: dict[str, int] = {}
    return Snapshot(
        jobs=names,
        rankable=np.array([job.rankable for job in jobs], dtype=np.bool_),
        phase=whole([job.phase for job in jobs]),
        order=whole([job.order for job in jobs]),
        weight=column([job.weight for job in jobs]),
        tenant=whole([owners.setdefault(owner_of(job.tenant), len(owners)) for job in jobs]),
        lengths=np.array([job.lengths.tokens for job in jobs], dtype=np.float64).reshape(len(jobs), QUANTILES),
        limit_tokens=column(limits),
        samples=column([len(job.requests) or job.samples for job in jobs]),
        prompt_tokens=column([job.prompt_tokens for job in jobs]),
        generated_tokens=progress[:, 0],
        device_tokens=progress[:, 1],
        host_tokens=progress[:, 2],
        host_bytes=progress[:, 3],
        waiting_seconds=column([job.waiting_seconds(at) for job in jobs]),
        age_seconds=column([job.age_seconds(at) for job in jobs]),
        engine=engine,
        cost=cost,
        neutral_seconds=neutral_seconds,
        sent=sent_columns(names, sent),
        part=whole([tenants.setdefault(job.tenant, len(tenants)) for job in jobs]) if any(map(_has_part, jobs)) else None,
        ended_seconds=at - ended_at,
    )


def _has_part(job: Job) -> bool:
    return PART_SEPARATOR in job.tenant


def _progress(job: Job) -> tuple[int, int, int, int]:
    """Tokens generated, tokens on the device, tokens on the host, and bytes on the host."""
    if len(job.requests) == 1:
        (only,) = job.requests.values()
        return only.generated_tokens, only.device_tokens, only.host_tokens, only.host_bytes
    requests = job.requests.values()
    return (
        max((r.generated_tokens for r in requests), default=0),
        sum(r.device_tokens for r in requests),
        sum(r.host_tokens for r in requests),
        sum(r.host_bytes for r in requests),
    )


def limit_tokens(job: Job, engine: EngineShape) -> float:
    """The largest number of tokens that an answer can have: the client's cap, or the room in the context if that is less."""
    room = max(1, engine.max_model_len - job.prompt_tokens)
    return float(min(job.max_tokens, room) if job.max_tokens else room)

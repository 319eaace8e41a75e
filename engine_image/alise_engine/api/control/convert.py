"""Converts protobuf messages to the values of `wire.calls` and back; no other module of `api/control` reads messages' fields.

`server.py` and `api/status.py` call it.
"""

import base64
import math
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from msgspec.structs import asdict

from alise_contract.names import MAX_LEVEL, MIN_LEVEL
from alise_contract.v1 import engine_control_pb2 as pb

from ...errors import InvalidCall
from ...wire import calls as core
from ...wire import terms
from .mailbox import Changes
from .progress import Opening

# A message stays far under gRPC's default limit of 4 MiB even when every request carries a hint of 1 KiB.
REQUESTS_PER_MESSAGE: Final = 1_000

_PHASES: Final = {
    terms.PHASE_WAITING: pb.PHASE_WAITING,
    terms.PHASE_RUNNING: pb.PHASE_RUNNING,
    terms.PHASE_OFFLOADED: pb.PHASE_OFFLOADED,
    terms.PHASE_PREEMPTED: pb.PHASE_PREEMPTED,
    terms.PHASE_RESTORING: pb.PHASE_RESTORING,
}
_REASONS: Final = {
    terms.FINISH_STOP: pb.FINISH_REASON_STOP,
    terms.FINISH_LENGTH: pb.FINISH_REASON_LENGTH,
    terms.FINISH_ABORT: pb.FINISH_REASON_ABORT,
    terms.FINISH_ERROR: pb.FINISH_REASON_ERROR,
}

# The fields of a message that a row has, in the row's order.
_RANK_FIELDS: Final = attrgetter(*core.RankRow.__struct_fields__)
_LIMITS_FIELDS: Final = attrgetter(*core.LimitsRow.__struct_fields__)


def opening_messages(opening: Opening, boot_id: str) -> Iterator[pb.WatchResponse]:
    """Yields one snapshot, and updates with the requests that do not fit into it."""
    rows = [_request(row) for row in opening.answer.requests]
    counters = counters_message(opening.answer.counters)
    yield pb.WatchResponse(
        snapshot=pb.Snapshot(
            boot_id=boot_id,
            session_id=opening.session_id,
            engine=pb.EngineShape(**asdict(opening.answer.shape)),
            requests=rows[:REQUESTS_PER_MESSAGE],
            counters=counters,
            draining=opening.draining,
        )
    )
    for start in range(REQUESTS_PER_MESSAGE, len(rows), REQUESTS_PER_MESSAGE):
        part = rows[start : start + REQUESTS_PER_MESSAGE]
        yield pb.WatchResponse(update=pb.Update(requests=part, counters=counters, draining=opening.draining))


def update_messages(changes: Changes) -> Iterator[pb.WatchResponse]:
    rows = [_request(row) for row in changes.requests]
    finished = [_finished(row) for row in changes.finished]
    counters = counters_message(changes.counters)
    for start in range(0, max(len(rows), len(finished), 1), REQUESTS_PER_MESSAGE):
        end = start + REQUESTS_PER_MESSAGE
        yield pb.WatchResponse(
            update=pb.Update(
                requests=rows[start:end],
                finished=finished[start:end],
                steps=[pb.Step(**asdict(step)) for step in changes.steps] if start == 0 else [],
                counters=counters,
                draining=changes.draining,
            )
        )


def counters_message(counters: core.Counters) -> pb.Counters:
    return pb.Counters(**asdict(counters))


def apply_call(request: pb.ApplyRequest) -> core.ApplyCall:
    """Raises InvalidCall, naming the field and the value."""
    ranks = tuple(_rank(rank) for rank in request.ranks)
    return core.ApplyCall(ranks, _limits(request.limits) if request.HasField("limits") else None)


def _rank(rank: pb.Rank) -> core.RankRow:
    if not rank.job_id:
        raise InvalidCall("ranks: a rank has no job_id; set it to the id from admission")
    if not MIN_LEVEL <= rank.level <= MAX_LEVEL:
        raise InvalidCall(f"rank of job {rank.job_id!r}: level {rank.level} is outside [{MIN_LEVEL}, {MAX_LEVEL}]")
    # order is a sint32: the wire cannot carry one outside [-2^31, 2^31).
    return core.RankRow(*_RANK_FIELDS(rank))


def _limits(limits: pb.Limits) -> core.LimitsRow:
    fraction = limits.int8_host_fraction
    if math.isnan(fraction) or not 0 <= fraction <= 1:
        raise InvalidCall(f"limits: int8_host_fraction {fraction} is outside [0, 1]")
    return core.LimitsRow(*_LIMITS_FIELDS(limits))


def _request(row: core.RequestRow) -> pb.EngineRequest:
    values = asdict(row)
    values["phase"] = _PHASES[row.phase]
    values["hint"] = _decoded(row.hint)
    return pb.EngineRequest(**values)


def _finished(row: core.FinishedRow) -> pb.Finished:
    values = asdict(row)
    values["reason"] = _REASONS[row.reason]
    return pb.Finished(**values)


def _decoded(hint: str) -> bytes:
    # Stamped by the middleware; a client of an endpoint that is not admitted may have sent anything.
    try:
        return base64.b64decode(hint, validate=True)
    except ValueError:
        return b""

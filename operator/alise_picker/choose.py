"""Choose the replica for one request: the one in which it would wait least; pure, time and turn are arguments. `picker.py` calls it.

A replica reports its active sequences by level (`alise_contract/v1/lengths.proto`). A request waits for the work at its own level and
better ones, on the replica's slots, as in the sidecar's own admission. What was sent to a replica and is not in its report yet is added,
or a burst would go to one replica as a whole. A report says how many requests have arrived, so each request counts once: as sent, or in
the report.

    1. replicas that drain take none, and those whose figures are old count only if there are no others
    2. the least wait of this request, and among equal ones the least work in all
    3. the replica of the conversation's last turn, unless its wait is longer by more than HOME_SECONDS
    4. if every replica would refuse the request for its wait, it is refused here
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from alise_contract.names import MAX_LEVEL

# How much longer than elsewhere a request may wait where its conversation's KV cache is. Computing a long prompt again takes about as long.
HOME_SECONDS: Final = 1.0
# Figures that are older count as unknown. Replicas send them at least every second.
STALE_SECONDS: Final = 3.0
# A request that has not arrived this long after it was sent was refused before it reached the sidecar, for its key for example.
LOST_SECONDS: Final = 1.0
# A sidecar of an older release does not count arrivals: a request that was sent this long before its report arrived is in the report.
IN_TRANSIT_SECONDS: Final = 0.15
# Waits that differ by less are equal: the prediction is no better.
EQUAL_SECONDS: Final = 0.02
MAX_RETRY_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class LevelLoad:
    """Active sequences of one level, and the seconds of one slot that they still need."""

    level: int
    samples: float
    work_seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """What a replica reported, and when it arrived."""

    at: float
    levels: tuple[LevelLoad, ...] = ()
    slots: float = 1.0
    draining: bool = False
    # The replica's scheduler is connected with its engine.
    connected: bool = True
    # 0: it refuses no request for its wait.
    max_wait_seconds: float = 0.0
    # Requests that had reached its sidecar since that started.
    arrivals: int = 0


@dataclass(frozen=True, slots=True)
class Sent:
    """A request that was sent to a replica."""

    at: float
    level: int
    samples: float
    work_seconds: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A ready replica. `load` is None before its first report."""

    address: str
    load: Load | None = None
    # What was sent there and is not in `load` yet.
    sent: tuple[Sent, ...] = ()
    # When it became ready.
    since: float = -math.inf


@dataclass(frozen=True, slots=True)
class Request:
    """A request that needs a replica. Without a prediction it has the level and the work of an average one."""

    level: int = 0
    samples: float = 1.0
    # The replica that answered the conversation's last turn; empty: none is known.
    home: str = ""


class Reason(Enum):
    LEAST_WAIT = "least_wait"
    HOME = "home"
    # No replica has fresh figures.
    ROUND_ROBIN = "round_robin"


@dataclass(frozen=True, slots=True)
class Chosen:
    address: str
    reason: Reason
    wait_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Shed:
    """Every replica would refuse the request for its wait."""

    wait_seconds: float
    retry_after_seconds: int


@dataclass(frozen=True, slots=True)
class NoEndpoint:
    """No replica can take a request."""


Decision = Chosen | Shed | NoEndpoint


def is_fresh(endpoint: Endpoint, at: float) -> bool:
    """Returns whether the replica's figures can be used."""
    load = endpoint.load
    return load is not None and load.connected and at - load.at <= STALE_SECONDS


def usable(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Returns the replicas that take requests: those that do not drain."""
    return [one for one in endpoints if one.load is None or not one.load.draining]


def needs_length(endpoints: Sequence[Endpoint], request: Request, at: float) -> bool:
    """Returns whether the request's own length matters: not where a request of any length would start at once."""
    waits = {one.address: turn_seconds(one, MAX_LEVEL, request.samples) for one in usable(endpoints) if is_fresh(one, at)}
    if len(waits) < 2:
        return False
    return min(waits.values()) > 0.0 or waits.get(request.home, 0.0) > HOME_SECONDS


def free_slots(endpoint: Endpoint) -> float:
    """Returns the slots that no sequence takes or waits for."""
    return max(0.0, _slots(endpoint) - _ahead(endpoint, MAX_LEVEL)[0])


def choose(endpoints: Sequence[Endpoint], request: Request, at: float, turn: int) -> Decision:
    """Returns the decision. `turn` is any number that grows with each request: it decides between equals."""
    # 1. Which replicas may it be?
    candidates = usable(endpoints)
    if not candidates:
        return NoEndpoint()
    fresh = [one for one in candidates if is_fresh(one, at)]
    if not fresh:
        return Chosen(candidates[turn % len(candidates)].address, Reason.ROUND_ROBIN)
    # 2. Where does it wait least?
    waits = {one.address: turn_seconds(one, request.level, request.samples) for one in fresh}
    shortest = min(waits.values())
    equal = [one for one in fresh if waits[one.address] <= shortest + EQUAL_SECONDS]
    first = turn % len(equal)
    best = min((*equal[first:], *equal[:first]), key=total_seconds)
    # 3. Is its conversation's replica as good?
    if request.home in waits and waits[request.home] <= shortest + HOME_SECONDS:
        return Chosen(request.home, Reason.HOME, waits[request.home])
    # 4. Would all refuse it? One whose figures are unknown may not.
    if len(fresh) == len(candidates) and all(_refuses(one, waits[one.address]) for one in fresh):
        sooner = min(waits[one.address] - one.load.max_wait_seconds for one in fresh if one.load is not None)
        # Bounded first: there is no whole number of infinitely many seconds.
        return Shed(shortest, math.ceil(min(max(1.0, sooner), MAX_RETRY_SECONDS)))
    return Chosen(best.address, Reason.LEAST_WAIT, waits[best.address])


def turn_seconds(endpoint: Endpoint, level: int, samples: float) -> float:
    """Returns the seconds until a request of this level gets its slots. The last sequences that fill the slots need not end for it."""
    ahead, work = _ahead(endpoint, level)
    slots = _slots(endpoint)
    waiting = ahead + samples - slots
    return 0.0 if waiting <= 0.0 or work <= 0.0 else work * min(1.0, waiting / ahead) / slots


def total_seconds(endpoint: Endpoint) -> float:
    """Returns the seconds until all of the replica's work is done."""
    return _ahead(endpoint, MAX_LEVEL)[1] / _slots(endpoint)


def unreported(sent: Sequence[Sent], before: Load | None, load: Load) -> tuple[Sent, ...]:
    """Returns what is not in the report `load`, of what was sent to the replica and was not in the report `before` it.

    Requests arrive in about the order in which they were sent. If the sidecar has restarted meanwhile, it counts from 0 again, and only the
    time says which requests have not arrived.
    """
    arrived = max(0, load.arrivals - before.arrivals) if before is not None else 0
    counts = load.arrivals > 0 or not load.levels
    return tuple(one for one in sent[arrived:] if one.at > load.at - (LOST_SECONDS if counts else IN_TRANSIT_SECONDS))


def _ahead(endpoint: Endpoint, level: int) -> tuple[float, float]:
    """Returns sequences and seconds of work at this level and better ones."""
    rows: list[LevelLoad | Sent] = [*(endpoint.load.levels if endpoint.load is not None else ()), *endpoint.sent]
    ahead = [row for row in rows if row.level <= level]
    return sum(row.samples for row in ahead), sum(row.work_seconds for row in ahead)


def _slots(endpoint: Endpoint) -> float:
    return max(1.0, endpoint.load.slots) if endpoint.load is not None else 1.0


def _refuses(endpoint: Endpoint, wait_seconds: float) -> bool:
    return endpoint.load is not None and 0.0 < endpoint.load.max_wait_seconds < wait_seconds

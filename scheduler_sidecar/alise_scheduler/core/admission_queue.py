"""The queue that an arriving request meets: the jobs of the last decision, those admitted since, and the rate at which work arrives.

`state.py` owns it and the simulator has one of its own. It is mutable, and time is an argument. Tenants are noted by name and numbered only
when a wait is predicted or the load is reported to an endpoint picker; without either it costs nearly nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from alise_contract.names import MAX_LEVEL, owner_of

from .admission_wait import Inflow, Wait, predicted_wait
from .backlog import EMPTY, Backlog, Row, queue_for, with_rows
from .estimate import Estimate
from .rank import Policy

# A bound for the time without an engine, when no decision is made. Admitted jobs expire within seconds then.
_MOST_SINCE: Final = 4096
# What arrives together right after a start, such as requests that were held, says little about the next minute. It counts as the work of
# at least this time.
_LEAST_COUNTED_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ArrivingRequest:
    """An arriving request: its estimate, and whose slots it asks for."""

    estimate: Estimate
    samples: int
    weight: float
    # Including the part, if it has one.
    tenant: str
    # Whether its rank depends on the length of its answer.
    by_length: bool = True


class AdmissionQueue:
    """Predicts how long an arriving request would wait."""

    def __init__(self) -> None:
        # The jobs of the last decision, with those that were admitted or withdrawn between it and the last prediction.
        self._backlog: Backlog = EMPTY
        self._make: Callable[[], Backlog] = lambda: EMPTY
        # None once the backlog and the numbers by name are those of the last decision.
        self._names: Callable[[], Sequence[str]] | None = None
        self._tenants: dict[str, int] = {}
        self._parts: dict[str, int] = {}
        self._since: list[tuple[ArrivingRequest, int]] = []
        self._inflow = Inflow()
        self._offered = Inflow()
        self._at = 0.0

    def planned(self, backlog: Callable[[], Backlog], names: Callable[[], Sequence[str]]) -> None:
        """Takes in a decision. `names` gives the jobs' tenants in the backlog's order. Both callables are called only when needed."""
        self._make, self._names = backlog, names
        self._since.clear()

    def admitted(self, at: float, arrival: ArrivingRequest) -> None:
        """Counts an admitted request from now on."""
        self._at = at
        self._note(arrival, 1)

    def withdrawn(self, arrival: ArrivingRequest) -> None:
        """Stops counting a request, as if its work had never arrived."""
        self._note(arrival, -1)

    def wait(self, at: float, arrival: ArrivingRequest, policy: Policy) -> Wait:
        """The predicted wait of a request if it were admitted now."""
        self.backlog()
        row = self._row(arrival, 1)
        queue = queue_for(self._backlog, row.samples, row.weight, row.tenant, row.part)
        owner = None if queue is None or queue.shared else owner_of(arrival.tenant)
        part = arrival.tenant if queue is not None and queue.of_part else None
        wait = predicted_wait(arrival.estimate, queue, lambda level: self._inflow.per_second(at, level, owner=owner, part=part), policy)
        return wait if arrival.by_length else replace(wait, by_length=False)

    def backlog(self) -> Backlog:
        """The jobs of the last decision and those admitted since."""
        if self._names is not None:
            names, self._backlog = self._names(), self._make()
            self._tenants = {owner_of(name): number for name, number in zip(names, self._backlog.tenant.tolist(), strict=True)}
            self._parts = dict(zip(names, self._backlog.part.tolist(), strict=True))
            self._names = None
        if self._since:
            self._backlog = with_rows(self._backlog, [self._row(one, sign) for one, sign in self._since])
            self._since.clear()
        return self._backlog

    def offered_load(self, at: float, began_at: float) -> float:
        """Seconds of a full pod for what was admitted per second of the last minute, or since the start (core/predicted_work.py)."""
        return self._offered.per_second(at, MAX_LEVEL + 1, counted_seconds=max(at - began_at, _LEAST_COUNTED_SECONDS))

    def _note(self, arrival: ArrivingRequest, sign: int) -> None:
        self._inflow.add(self._at, arrival.estimate.level, sign * arrival.estimate.work_seconds * arrival.samples, arrival.tenant)
        self._offered.add(self._at, arrival.estimate.level, sign * arrival.estimate.pod_seconds * arrival.samples, arrival.tenant)
        if len(self._since) < _MOST_SINCE:
            self._since.append((arrival, sign))

    def _row(self, arrival: ArrivingRequest, sign: int) -> Row:
        tenant = self._tenants.setdefault(owner_of(arrival.tenant), len(self._tenants))
        part = self._parts.setdefault(arrival.tenant, len(self._parts))
        samples = sign * arrival.samples
        return Row(arrival.estimate.level, arrival.estimate.work_seconds * samples, samples, arrival.weight, tenant, part)

"""What newcomers meet: the jobs of the last decision, those that were admitted since, and how fast they come in. Mutable, as the book is.

Jobs are noted by name, and a name becomes a number only when a wait has to be predicted: without a limit nothing here costs anything.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from alise_contract.names import owner_of

from .admission_wait import Inflow, Wait, predicted_wait
from .backlog import EMPTY, Backlog, Row, queue_for, with_rows
from .estimate import Estimate
from .rank import Policy

# Without an engine no decision comes, and what is admitted expires within seconds.
_MOST_SINCE: Final = 4096


@dataclass(frozen=True, slots=True)
class ArrivingRequest:
    """A newcomer, and what its rank alone does not say."""

    estimate: Estimate
    samples: int
    weight: float
    # With its part, where it has one.
    tenant: str
    # Its rank depends on how long its answer may be.
    by_length: bool = True


class AdmissionQueue:
    """Predicts how long a newcomer would wait."""

    def __init__(self) -> None:
        # Jobs of the last decision, and those that were admitted or taken back since and before the last question.
        self._backlog: Backlog = EMPTY
        self._make: Callable[[], Backlog] = lambda: EMPTY
        # None: the backlog and the numbers by name are those of the last decision.
        self._names: Callable[[], Sequence[str]] | None = None
        self._tenants: dict[str, int] = {}
        self._parts: dict[str, int] = {}
        self._since: list[tuple[ArrivingRequest, int]] = []
        self._inflow = Inflow()
        self._at = 0.0

    def planned(self, backlog: Callable[[], Backlog], names: Callable[[], Sequence[str]]) -> None:
        """A decision was made about these jobs; `names` are their tenants, in the backlog's order. Both are asked when they are needed."""
        self._make, self._names = backlog, names
        self._since.clear()

    def admitted(self, at: float, arrival: ArrivingRequest) -> None:
        """It counts from now on."""
        self._at = at
        self._note(arrival, 1)

    def withdrawn(self, arrival: ArrivingRequest) -> None:
        """It counts no more, and its work has not arrived."""
        self._note(arrival, -1)

    def wait(self, at: float, arrival: ArrivingRequest, policy: Policy) -> Wait:
        """How long it would wait if it were admitted now."""
        if self._names is not None:
            names, self._backlog = self._names(), self._make()
            self._tenants = {owner_of(name): number for name, number in zip(names, self._backlog.tenant.tolist(), strict=True)}
            self._parts = dict(zip(names, self._backlog.part.tolist(), strict=True))
            self._names = None
        if self._since:
            self._backlog = with_rows(self._backlog, [self._row(one, sign) for one, sign in self._since])
            self._since.clear()
        row = self._row(arrival, 1)
        queue = queue_for(self._backlog, row.samples, row.weight, row.tenant, row.part)
        owner = None if queue is None or queue.shared else owner_of(arrival.tenant)
        part = arrival.tenant if queue is not None and queue.of_part else None
        wait = predicted_wait(arrival.estimate, queue, lambda level: self._inflow.per_second(at, level, owner=owner, part=part), policy)
        return wait if arrival.by_length else replace(wait, by_length=False)

    def _note(self, arrival: ArrivingRequest, sign: int) -> None:
        self._inflow.add(self._at, arrival.estimate.level, sign * arrival.estimate.work_seconds * arrival.samples, arrival.tenant)
        if len(self._since) < _MOST_SINCE:
            self._since.append((arrival, sign))

    def _row(self, arrival: ArrivingRequest, sign: int) -> Row:
        tenant = self._tenants.setdefault(owner_of(arrival.tenant), len(self._tenants))
        part = self._parts.setdefault(arrival.tenant, len(self._parts))
        samples = sign * arrival.samples
        return Row(arrival.estimate.level, arrival.estimate.work_seconds * samples, samples, arrival.weight, tenant, part)

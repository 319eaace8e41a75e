"""How many requests wait for their first step, by tenant: the limit `maxPending`, which holds with and without a scheduler."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


def may_wait(by_tenant: Mapping[str, int], tenant: str, weight: int, limit: int) -> bool:
    """Returns whether `weight` further requests of this tenant may wait. 0 is no limit.

    Up to the limit everybody may. Beyond it, and up to twice the limit, only tenants that have less than an even share of it: one tenant
    that fills the queue does not keep the others out.
    """
    if not limit:
        return True
    total, own = sum(by_tenant.values()), by_tenant.get(tenant, 0)
    if total + weight <= limit:
        return True
    share = limit / len({*by_tenant, tenant})
    return len({*by_tenant, tenant}) > 1 and own + weight <= share and total + weight <= 2 * limit


@dataclass(slots=True)
class Pending:
    """The jobs that wait. One HTTP request is one job and may be several engine requests."""

    limit: int
    by_tenant: Counter[str] = field(default_factory=Counter)
    _jobs: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.by_tenant.values())

    def enter(self, job_id: str, tenant: str, engine_requests: int) -> bool:
        """Counts a job, unless the limit is reached. A job of more requests than the limit counts as the limit: it may come alone."""
        weight = max(1, min(engine_requests, self.limit)) if self.limit else 1
        if job_id in self._jobs or not may_wait(self.by_tenant, tenant, weight, self.limit):
            return job_id in self._jobs
        self._add(job_id, tenant, weight)
        return True

    def enter_late(self, job_id: str, tenant: str) -> None:
        """Counts a job that reached the engine after its HTTP request was answered; it was let in before."""
        if job_id not in self._jobs:
            self._add(job_id, tenant, 1)

    def leave(self, job_id: str) -> None:
        """The job has begun or ended; once is enough."""
        tenant, weight = self._jobs.pop(job_id, ("", 0))
        self.by_tenant[tenant] -= weight
        if not self.by_tenant[tenant]:
            del self.by_tenant[tenant]

    def _add(self, job_id: str, tenant: str, weight: int) -> None:
        self._jobs[job_id] = (tenant, weight)
        self.by_tenant[tenant] += weight

"""Counts the requests that wait for their first step, by tenant, and enforces `maxPending`, with and without a scheduler.

`engine_api.py` owns it, and `middleware.py` enters each request.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field


def may_wait(by_tenant: Mapping[str, int], tenant: str, limit: int) -> bool:
    """Returns whether one more request of this tenant may wait. 0 is no limit.

    Up to the limit, every tenant may. Beyond it, up to twice the limit, only tenants that hold less than an even share may, so that one
    tenant that fills the queue does not lock out the others.
    """
    total, own = sum(by_tenant.values()), by_tenant.get(tenant, 0)
    if not limit or total < limit:
        return True
    tenants = len({*by_tenant, tenant})
    return tenants > 1 and own + 1 <= limit / tenants and total < 2 * limit


@dataclass(slots=True)
class Pending:
    """The jobs that wait. One HTTP request is one job and may become several engine requests.

    A job counts as one until vLLM has accepted it, then as the engine requests that it became: what vLLM refuses, however many samples it
    asks for, takes no room from others.
    """

    limit: int
    by_tenant: Counter[str] = field(default_factory=Counter)
    _jobs: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(self.by_tenant.values())

    def is_full(self, tenant: str) -> bool:
        """Whether no further request of this tenant may wait now."""
        return not may_wait(self.by_tenant, tenant, self.limit)

    def enter(self, job_id: str, tenant: str) -> bool:
        """Counts a job, unless the limit is reached. Returns whether it is counted."""
        if job_id not in self._jobs and self.is_full(tenant):
            return False
        self.accepted(job_id, tenant, 1)
        return True

    def accepted(self, job_id: str, tenant: str, engine_requests: int) -> None:
        """Sets the weight of a job to its number of engine requests, at most the limit. A job that had left is counted again."""
        _, before = self._jobs.get(job_id, (tenant, 0))
        weight = max(before, min(engine_requests, self.limit or engine_requests))
        self._jobs[job_id] = (tenant, weight)
        self.by_tenant[tenant] += weight - before

    def leave(self, job_id: str) -> bool:
        """Stops counting a job that has begun or ended. Returns whether it was counted until now."""
        if job_id not in self._jobs:
            return False
        tenant, weight = self._jobs.pop(job_id)
        self.by_tenant[tenant] -= weight
        if not self.by_tenant[tenant]:
            del self.by_tenant[tenant]
        return True

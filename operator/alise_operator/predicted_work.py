"""The predicted work that pods report, and its sum over the pods of an AliseEngine. Pure; autoscaling.py decides with it.

Each pod reports in its own time: how long it needs for the requests that it has, and how much of a pod the arriving requests keep busy. So
the sums are in pods: a backlog of 120 s over all pods is two minutes of work for one pod, or one minute for two.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from alise_contract.v1.engine_control_pb2 import StatusReport


@dataclass(frozen=True, slots=True)
class Work:
    # Time that one pod needs for all requests that are there.
    backlog_seconds: float = 0.0
    # Pods that the work of the last minute's arrivals keeps busy.
    offered_load: float = 0.0

    @property
    def is_none(self) -> bool:
        """Whether no request is there and none came in the last minute."""
        return self.backlog_seconds <= 0 and self.offered_load <= 0

    def needed_pods(self, target_seconds: float) -> float:
        """Returns the pods that serve what arrives, and the backlog within the target besides."""
        return self.offered_load + self.backlog_seconds / target_seconds

    def seconds_ahead(self, target_seconds: float) -> float:
        """Returns the work of the next `target_seconds`, in seconds of one pod: divided by the target, it is the number of pods."""
        return self.backlog_seconds + self.offered_load * target_seconds


NO_WORK: Final = Work()
# More than any pod can have of either figure: eleven days of work, or arrivals for a million pods. Sums of these fit every number.
_MOST: Final = 1e6


def view_work(report: StatusReport) -> Work | None:
    """Returns the work in a pod's status; None if it is not reported or not possible. Pods are not trusted, so it is bounded."""
    work = report.work
    if not report.HasField("work") or not all(math.isfinite(value) and value >= 0 for value in (work.backlog_seconds, work.offered_load)):
        return None
    return Work(min(work.backlog_seconds, _MOST), min(work.offered_load, _MOST))


def total(works: Iterable[Work]) -> Work:
    """Returns the work of several pods together."""
    given = tuple(works)
    return Work(sum(one.backlog_seconds for one in given), sum(one.offered_load for one in given))

"""What the pods of each AliseEngine last reported together: requests that run, wait and are parked, and the predicted work.

`load_of` is pure. reconcile.py writes the `Loads`, and the page reads them, in the same event loop. Nothing of it outlives the process.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from alise_operator.observation import Pod


@dataclass(frozen=True, slots=True)
class Load:
    """The sums over the pods that reported."""

    running: int = 0
    waiting: int = 0
    # Preempted requests whose KV cache is in host memory.
    parked: int = 0
    # Seconds of work for one pod; None if no pod reports it.
    backlog_seconds: float | None = None
    # Ready pods without a report.
    silent: int = 0


def load_of(pods: Iterable[Pod]) -> Load:
    given = tuple(pods)
    reports = [pod.report for pod in given if pod.report is not None]
    works = [report.work.backlog_seconds for report in reports if report.work is not None]
    return Load(
        running=sum(report.requests_running for report in reports),
        waiting=sum(report.requests_waiting for report in reports),
        parked=sum(report.requests_offloaded for report in reports),
        backlog_seconds=sum(works) if works else None,
        silent=sum(pod.ready and not pod.terminating and pod.report is None for pod in given),
    )


class Loads:
    """The load of each AliseEngine by namespace and name. Mutable; of one event loop."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Load] = {}

    def get(self, namespace: str, name: str) -> Load | None:
        """Returns the load; None if the AliseEngine has not been observed."""
        return self._known.get((namespace, name))

    def set(self, namespace: str, name: str, load: Load) -> None:
        self._known[(namespace, name)] = load

    def forget(self, namespace: str, name: str) -> None:
        self._known.pop((namespace, name), None)

"""What was last observed of each AliseEngine that KEDA scales: the metric, its target, and whether there is work.

autoscaler.py writes it and scaler.py reads it, in the same event loop. Nothing of it outlives the process.
"""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    # Work of the next `target_seconds`, in seconds of one pod: divided by the target, it is the number of pods.
    seconds: float
    target_seconds: float
    # Whether at least one pod should run.
    is_active: bool


class Demands:
    """The demand of each AliseEngine by namespace and name. Mutable; of one event loop."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Demand] = {}
        self._waiting: dict[tuple[str, str], asyncio.Event] = {}

    def get(self, namespace: str, name: str) -> Demand | None:
        """Returns the demand; None if the AliseEngine has not been observed, or is not scaled."""
        return self._known.get((namespace, name))

    def set(self, namespace: str, name: str, demand: Demand) -> None:
        self._known[(namespace, name)] = demand
        self._tell(namespace, name)

    def forget(self, namespace: str, name: str) -> None:
        if self._known.pop((namespace, name), None) is not None:
            self._tell(namespace, name)

    def next_change(self, namespace: str, name: str) -> asyncio.Event:
        """Returns an event that is set when the demand, which must be known, is written or forgotten next.

        Raises KeyError if it is not known: callers choose the names, and each event takes memory.
        """
        if (namespace, name) not in self._known:
            raise KeyError(f"{namespace}/{name}")
        return self._waiting.setdefault((namespace, name), asyncio.Event())

    def _tell(self, namespace: str, name: str) -> None:
        event = self._waiting.pop((namespace, name), None)
        if event is not None:
            event.set()

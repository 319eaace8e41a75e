"""What was last observed of each AliseEngine that KEDA scales: the metric, its target, and whether there is work; and when KEDA asked.

autoscaler.py writes the demand, which scaler.py reads; scaler.py notes that KEDA asked, and autoscaler.py reads when. Both run in one event
loop, and nothing of it outlives the process.
"""

import asyncio
import time
from collections.abc import Callable
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

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: dict[tuple[str, str], Demand] = {}
        self._waiting: dict[tuple[str, str], asyncio.Event] = {}
        # When KEDA last asked for it, or else when it was first written. Of those that are known.
        self._asked_at_seconds: dict[tuple[str, str], float] = {}

    def get(self, namespace: str, name: str) -> Demand | None:
        """Returns the demand to KEDA, and notes that it asked; None if the AliseEngine has not been observed, or is not scaled."""
        demand = self._known.get((namespace, name))
        if demand is not None:
            self._asked_at_seconds[(namespace, name)] = self._monotonic()
        return demand

    def known(self, namespace: str, name: str) -> Demand | None:
        """Returns the demand, or None, as `get` does, without a call of KEDA."""
        return self._known.get((namespace, name))

    def unasked_seconds(self, namespace: str, name: str) -> float:
        """Returns how long KEDA has not asked for a demand that is known; 0 if none is known."""
        since = self._asked_at_seconds.get((namespace, name))
        return 0.0 if since is None else self._monotonic() - since

    def set(self, namespace: str, name: str, demand: Demand) -> None:
        self._known[(namespace, name)] = demand
        self._asked_at_seconds.setdefault((namespace, name), self._monotonic())
        self._tell(namespace, name)

    def forget(self, namespace: str, name: str) -> None:
        self._asked_at_seconds.pop((namespace, name), None)
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

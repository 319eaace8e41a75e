"""Which replica a request goes to, by what a gateway can see of them. `run.py` asks it for each request."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np

from alise_scheduler.core.lengths import Floats

from .replica import Replica
from .request import Request


class Router(Protocol):
    """Chooses a replica for each request; hears of every replica that changed."""

    def choose(self, request: Request) -> int:
        """Its number."""

    def update(self, number: int, pod: Replica) -> None:
        """This replica took a request in or moved on."""


class RoundRobin:
    """One after the other."""

    def __init__(self, replicas: int, work_tokens: Floats) -> None:
        self._replicas, self._next = replicas, -1

    def choose(self, request: Request) -> int:
        self._next = (self._next + 1) % self._replicas
        return self._next

    def update(self, number: int, pod: Replica) -> None:
        """Needs no state of the replicas."""


class LeastRequests:
    """The fewest live requests; the lowest number among equals."""

    def __init__(self, replicas: int, work_tokens: Floats) -> None:
        self._live = np.zeros(replicas, dtype=np.int64)

    def choose(self, request: Request) -> int:
        return int(self._live.argmin())

    def update(self, number: int, pod: Replica) -> None:
        self._live[number] = pod.live


class LeastPredictedWork:
    """The least predicted output still to come; `work_tokens` are the predictions of the whole trace."""

    def __init__(self, replicas: int, work_tokens: Floats) -> None:
        self._left = np.zeros(replicas)
        self._work = work_tokens
        self._seen = np.zeros(replicas, dtype=np.int64)

    def choose(self, request: Request) -> int:
        number = int(self._left.argmin())
        self._left[number] += self._work[request.index]
        return number

    def update(self, number: int, pod: Replica) -> None:
        for request in pod.ended[self._seen[number] :]:
            self._left[number] -= self._work[request.index]
        self._seen[number] = len(pod.ended)


ROUTERS: Final[Mapping[str, Callable[[int, Floats], Router]]] = {
    "round-robin": RoundRobin,
    "least-requests": LeastRequests,
    "least-work": LeastPredictedWork,
}

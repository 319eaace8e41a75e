"""What the core is compared with. All of them run on the same simulated engine.

    fcfs      order of arrival, as stock vLLM does by default; preempted for memory only, and recomputed
    priority  stock vLLM with `--scheduling-policy priority` and the predicted length as priority: a waiting request never preempts
    mlfq      skip-join multi-level feedback queue: the prompt's size chooses the first queue, tokens move it down; preempts, parks KV
    srpt      shortest true remaining first, never aged: what perfect knowledge gains in the mean, and costs in the tail

They touch nothing but the simulated requests. `systems.py` gives them by name.
"""

import math
from typing import Final

from alise_scheduler.core.lengths import Floats
from alise_scheduler.core.plan import Limits

from .driver import PLAN_SECONDS, REFRESH_SECONDS
from .request import Request

_NO_HOST: Final = Limits(0, 0, 0, 1.0, 0)


class FcfsDriver:
    """Order of arrival."""

    limits = _NO_HOST

    def arrived(self, request: Request, now: float) -> None:
        request.level = 0.0

    def moved(self, request: Request, step: int) -> None:
        """Order of arrival knows no state."""

    def left(self, request: Request) -> None:
        """Nor here."""

    def due_at(self, has_free_slot: bool) -> float:
        return math.inf

    def plan(self, now: float, step: int) -> None:
        """Never due."""


class PriorityDriver(FcfsDriver):
    """A static priority at admission: the predicted mean length."""

    def __init__(self, lengths: Floats) -> None:
        self._means = lengths.mean(axis=1)

    def arrived(self, request: Request, now: float) -> None:
        request.level = float(self._means[request.index])


class _Dynamic(FcfsDriver):
    """Levels of all live requests are set anew at each plan."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._live: dict[int, Request] = {}
        self._dirty, self._last_plan = False, -math.inf

    def level(self, request: Request, step: int) -> float:
        """Lower goes first."""
        raise TypeError(f"{type(self).__name__} sets no level")

    def arrived(self, request: Request, now: float) -> None:
        self._live[request.index] = request
        request.level = self.level(request, 0)
        self._dirty = True

    def left(self, request: Request) -> None:
        del self._live[request.index]

    def due_at(self, has_free_slot: bool) -> float:
        return self._last_plan + (PLAN_SECONDS if self._dirty and not has_free_slot else REFRESH_SECONDS)

    def plan(self, now: float, step: int) -> None:
        for request in self._live.values():
            request.level = self.level(request, step)
        self._dirty, self._last_plan = False, now


class SrptDriver(_Dynamic):
    """Logarithm of the true remaining tokens, as the core's levels are; one level (19%) shorter preempts."""

    def __init__(self, host_bytes: int) -> None:
        super().__init__(Limits(1, 1, 2**40, 1.0, host_bytes))

    def level(self, request: Request, step: int) -> float:
        return 4 * math.log2(max(1, request.output_tokens - request.tokens(step)))


class MlfqDriver(_Dynamic):
    """Queue k is served for 2^k quanta of tokens in all; a long prompt skips the first queues."""

    quantum_tokens: Final = 16
    prompt_tokens_per_quantum: Final = 512

    def __init__(self, host_bytes: int) -> None:
        super().__init__(Limits(1, 1, 2**40, 1.0, host_bytes))

    def level(self, request: Request, step: int) -> float:
        served = request.tokens(step) / self.quantum_tokens
        joins = request.prompt_tokens / self.prompt_tokens_per_quantum
        return math.floor(math.log2(1 + max(served, joins)))

    def due_at(self, has_free_slot: bool) -> float:
        # Queues are left while tokens are served, arrivals or not.
        return self._last_plan + 5 * PLAN_SECONDS

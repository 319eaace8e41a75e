"""A simulated pool of engines whose number an autoscaler sets: pods take time to start, drain when they leave, and are paid for meanwhile.

`autoscale.py` runs it. Each pod is a replica of the simulator with production's scheduler; the gateway sends each request to the ready pod
with the fewest requests. The autoscalers are asked every 15 s: the operator's own decision, and a HorizontalPodAutoscaler as Kubernetes
documents it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np

from alise_operator.autoscaling import Memory, Pool, Rule, decide
from alise_operator.predicted_work import Work, total
from alise_scheduler.core.admission_wait import Inflow
from alise_scheduler.core.lengths import Floats
from alise_scheduler.core.predicted_work import pod_seconds
from alise_scheduler.core.rank import Policy, prefill_tokens, view_of
from alise_simulator.driver import CoreDriver
from alise_simulator.replica import Replica
from alise_simulator.request import Request
from alise_simulator.systems import Setup, core_driver

LOOK_SECONDS: Final = 15.0
START_SECONDS: Final = 120.0
MOST_PODS: Final = 16
STABILIZATION_SECONDS: Final = 300.0


class WorkDriver(CoreDriver):
    """Production's scheduler, which also reports its predicted work as the sidecar does."""

    def __init__(self, *settings: Any) -> None:
        super().__init__(*settings)
        self._offered = Inflow()

    def arrived(self, request: Request, now: float) -> None:
        super().arrived(request, now)
        prompt, left = float(request.prompt_tokens), float(self._lengths[request.index].mean())
        self._offered.add(now, 0, float(pod_seconds(self._cost.coefficients, self._shape, prompt, left, prompt)), "")

    def work(self, now: float, step: int) -> Work:
        """What the pod's status reports."""
        snapshot = self._snapshot(now, step)
        view = view_of(snapshot)
        context = snapshot.prompt_tokens + snapshot.generated_tokens
        seconds = pod_seconds(self._cost.coefficients, self._shape, prefill_tokens(snapshot), view.left_tokens, context)
        return Work(float(np.sum(seconds)), self._offered.per_second(now, 1))


@dataclass(slots=True)
class Pod:
    replica: Replica
    since: float
    ready_at: float
    # When it had to leave, and when it had answered its last request.
    leaves_at: float = math.inf
    gone_at: float = math.inf

    @property
    def work(self) -> Work:
        driver = self.replica.driver
        assert isinstance(driver, WorkDriver)
        return driver.work(self.replica.now, self.replica.step)


class Autoscaler(Protocol):
    """Says how many pods there should be."""

    def wanted(self, at: float, replicas: int, ready: Sequence[Pod]) -> int:
        """The number of pods, given those that are requested and those that are ready."""

    def leaving(self, pods: Sequence[Pod], count: int) -> list[Pod]:
        """Which of the ready pods leave."""


class OnPredictedWork:
    """The operator's decision."""

    def __init__(self, target_seconds: float) -> None:
        self._rule = Rule(1, MOST_PODS, target_seconds, STABILIZATION_SECONDS, math.inf)
        self._memory = Memory()

    def wanted(self, at: float, replicas: int, ready: Sequence[Pod]) -> int:
        pool = Pool(replicas, len(ready), total(pod.work for pod in ready))
        decision = decide(pool, self._rule, self._memory, at)
        self._memory = decision.memory
        return decision.replicas

    def leaving(self, pods: Sequence[Pod], count: int) -> list[Pod]:
        return sorted(pods, key=lambda pod: pod.work.backlog_seconds)[:count]


class Hpa:
    """A HorizontalPodAutoscaler with its default behaviour, on a metric of the pods with an average value as target."""

    def __init__(self, metric: Callable[[Pod], float], target: float) -> None:
        self._metric, self._target = metric, target
        self._recommended: list[tuple[float, int]] = []
        self._added: list[tuple[float, int]] = []

    def wanted(self, at: float, replicas: int, ready: Sequence[Pod]) -> int:
        if not ready:
            return replicas
        value = sum(self._metric(pod) for pod in ready)
        # Ratios within a tenth of 1 change nothing.
        advice = replicas if abs(value / (self._target * replicas) - 1) <= 0.1 else math.ceil(value / self._target)
        advice = min(MOST_PODS, max(1, advice))
        self._recommended = [(since, count) for since, count in self._recommended if at - since <= STABILIZATION_SECONDS]
        self._recommended.append((at, advice))
        stabilized = max(count for _, count in self._recommended)
        if advice < replicas:
            return min(replicas, stabilized)
        # By default at most four pods, or as many as there are, are added in 15 s.
        return min(advice, max(replicas + 4, 2 * replicas))

    def leaving(self, pods: Sequence[Pod], count: int) -> list[Pod]:
        # ReplicaSets remove the pods that became ready last.
        return sorted(pods, key=lambda pod: -pod.ready_at)[:count]


def waiting(pod: Pod) -> float:
    return float(len(pod.replica.waiting) + len(pod.replica.inbox))


def running(pod: Pod) -> float:
    return float(len(pod.replica.running))


AUTOSCALERS: Final[Mapping[str, Callable[[float], Autoscaler]]] = {
    "predicted work": OnPredictedWork,
    "queue length": lambda target: Hpa(waiting, target),
    "running requests": lambda target: Hpa(running, target),
}


@dataclass(slots=True)
class Outcome:
    """What one run comes to."""

    # End-to-end seconds per token of each request.
    normalized_seconds: Floats
    # From the first arrival to the last one.
    pod_hours: float
    # (time, requested pods) at each change.
    steps: list[tuple[float, int]] = field(default_factory=list)


def run(setup: Setup, autoscaler: Autoscaler) -> Outcome:
    """Serves the trace with one pod at first."""
    make = core_driver(setup, Policy(), WorkDriver)
    trace = setup.trace
    columns = (trace.arrival_seconds.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist())
    requests = [Request(index, *values) for index, values in enumerate(zip(*columns, strict=True))]
    pods = [Pod(Replica(setup.model, make()), 0.0, 0.0)]
    replicas, steps = 1, [(0.0, 1)]
    next_look, end = LOOK_SECONDS, float(trace.arrival_seconds[-1])
    for request in requests:
        while next_look <= request.arrived_at:
            _advance(pods, next_look)
            ready = [pod for pod in pods if pod.ready_at <= next_look < pod.leaves_at]
            wanted = autoscaler.wanted(next_look, replicas, ready)
            if wanted != replicas:
                _scale(pods, ready, wanted, next_look, autoscaler, lambda: Replica(setup.model, make()))
                replicas = wanted
                steps.append((next_look, wanted))
            next_look += LOOK_SECONDS
        at = request.arrived_at
        ready = [pod for pod in pods if pod.ready_at <= at < pod.leaves_at]
        for pod in ready:
            pod.replica.advance(at)
        min(ready, key=lambda pod: pod.replica.live).replica.inbox.append(request)
    for pod in pods:
        pod.replica.advance()
    ended = np.array([request.ended_at for request in requests])
    hours = sum(max(0.0, min(end, pod.gone_at if pod.gone_at < math.inf else _last(pod)) - pod.since) for pod in pods) / 3600
    return Outcome((ended - trace.arrival_seconds) / trace.output_tokens, hours, steps)


def _last(pod: Pod) -> float:
    """When a pod that leaves has answered its last request; a pod that stays is paid for to the end."""
    if pod.leaves_at == math.inf:
        return math.inf
    return max([pod.leaves_at, *(request.ended_at for request in pod.replica.ended[-64:])])


def _advance(pods: Sequence[Pod], at: float) -> None:
    for pod in pods:
        if pod.gone_at == math.inf:
            pod.replica.advance(at)
            if pod.leaves_at <= at and not pod.replica.live:
                pod.gone_at = _last(pod)


def _scale(pods: list[Pod], ready: Sequence[Pod], wanted: int, at: float, autoscaler: Autoscaler, make: Callable[[], Replica]) -> None:
    live = [pod for pod in pods if pod.leaves_at == math.inf]
    pods += [Pod(make(), at, at + START_SECONDS) for _ in range(wanted - len(live))]
    surplus = max(0, len(live) - wanted)
    # Pods that are not ready leave first.
    starting = [pod for pod in live if pod.ready_at > at][:surplus]
    for pod in [*starting, *autoscaler.leaving(ready, surplus - len(starting))]:
        pod.leaves_at = at
        if pod.ready_at > at:
            pod.gone_at = at

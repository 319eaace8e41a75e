"""One simulation: a trace, replicas, a routing rule; out come the times of every request.

The command (`__main__.py`) and the benchmarks call `simulate()`.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alise_scheduler.core.job import Ints
from alise_scheduler.core.lengths import Floats

from .driver import PolicyDriver
from .model import EngineModel
from .replica import Replica
from .request import Request
from .routing import Router
from .trace import Trace


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened, by request in the trace's order, and what it took."""

    arrival_seconds: Floats
    output_tokens: Ints
    ttft_seconds: Floats
    e2e_seconds: Floats
    # Time not running, all waits together.
    waited_seconds: Floats
    preemptions: Ints
    tenant: Ints
    # Those that were answered; the others were refused when they arrived, and their times mean nothing.
    served: NDArray[np.bool_]
    saved_bytes: int
    restored_bytes: int
    recomputed_tokens: int
    # Prompt and generated tokens that were found in the prefix cache.
    cached_tokens: int
    busy_seconds: float
    host_peak_bytes: int

    @property
    def normalized_seconds(self) -> Floats:
        """End-to-end time per output token."""
        return self.e2e_seconds / self.output_tokens


def simulate(
    trace: Trace,
    model: EngineModel,
    make_driver: Callable[[], PolicyDriver],
    replicas: int = 1,
    router: Router | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Runs the whole trace. The same arguments give the same outcome. Raises ValueError when a request cannot fit the engine."""
    _check(trace, model)
    pods = [Replica(model, make_driver()) for _ in range(replicas)]
    requests = _requests(trace)
    if replicas == 1:
        _run_one(pods[0], requests, on_progress)
    else:
        if router is None:
            raise ValueError(f"{replicas} replicas need a router")
        _run_many(pods, requests, router, on_progress)
    return _outcome(trace, requests, pods)


def _check(trace: Trace, model: EngineModel) -> None:
    room = min(model.shape.num_device_blocks * model.shape.block_size - model.shape.block_size, model.shape.max_model_len)
    largest = int((trace.input_tokens + trace.output_tokens).max())
    if largest > room:
        raise ValueError(
            f"trace {trace.name} has a request of {largest} tokens and the engine holds {room}; give it more blocks or cut the trace"
        )


def _requests(trace: Trace) -> list[Request]:
    columns = (trace.arrival_seconds.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist())
    requests = [Request(index, *values) for index, values in enumerate(zip(*columns, strict=True))]
    if trace.prefix_group is not None and trace.prefix_tokens is not None:
        for request, group, tokens in zip(requests, trace.prefix_group.tolist(), trace.prefix_tokens.tolist(), strict=True):
            request.prefix_group, request.prefix_tokens = group, tokens
    return requests


def _chunks(requests: list[Request], size: int) -> Iterator[list[Request]]:
    for start in range(0, len(requests), size):
        yield requests[start : start + size]


def _run_one(pod: Replica, requests: list[Request], on_progress: Callable[[int], None] | None) -> None:
    for part in _chunks(requests, 5000):
        if pod.inbox or pod.live:
            pod.advance(part[0].arrived_at)
        pod.inbox.extend(part)
        pod.advance(part[-1].arrived_at)
        if on_progress:
            on_progress(len(pod.ended))
    pod.advance()
    if on_progress:
        on_progress(len(pod.ended))


def _run_many(pods: list[Replica], requests: list[Request], router: Router, on_progress: Callable[[int], None] | None) -> None:
    """Only replicas that could have changed are advanced before a request is routed."""
    ready: list[tuple[float, int]] = []
    for count, request in enumerate(requests):
        while ready and ready[0][0] < request.arrived_at:
            _, number = heapq.heappop(ready)
            pod = pods[number]
            pod.advance(request.arrived_at)
            router.update(number, pod)
            if pod.live:
                heapq.heappush(ready, (max(pod.next_event(), request.arrived_at), number))
        number = router.choose(request)
        pod = pods[number]
        if not pod.live:
            heapq.heappush(ready, (request.arrived_at, number))
        pod.inbox.append(request)
        router.update(number, pod)
        if on_progress and count % 1000 == 0:
            on_progress(count)
    for pod in pods:
        pod.advance()
    if on_progress:
        on_progress(len(requests))


def _outcome(trace: Trace, requests: list[Request], pods: list[Replica]) -> Outcome:
    ended = np.array([request.ended_at for request in requests])
    return Outcome(
        arrival_seconds=trace.arrival_seconds,
        output_tokens=trace.output_tokens,
        ttft_seconds=np.array([request.first_token_at for request in requests]) - trace.arrival_seconds,
        e2e_seconds=ended - trace.arrival_seconds,
        waited_seconds=np.array([request.waited_seconds for request in requests]),
        preemptions=np.array([request.preemptions for request in requests]),
        tenant=trace.tenant,
        served=np.array([not request.refused for request in requests]),
        saved_bytes=sum(pod.host.saved_bytes for pod in pods),
        restored_bytes=sum(pod.host.restored_bytes for pod in pods),
        recomputed_tokens=sum(pod.recomputed_tokens for pod in pods),
        cached_tokens=sum(pod.cached_tokens for pod in pods),
        busy_seconds=sum(pod.busy_seconds for pod in pods),
        host_peak_bytes=max(pod.host.peak_bytes for pod in pods),
    )

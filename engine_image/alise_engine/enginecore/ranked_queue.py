"""The waiting queue: best rank first, held requests in it but never at its head.

vLLM's scheduler asks a queue whether it is empty (`bool`) and for its head when it admits, and for its length when it counts unfinished
requests. Held requests are counted and cannot be seen at the head, so the base class schedules around them without knowing of them.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.request_queue import RequestQueue

Request = Any


class RankedQueue(RequestQueue):
    """Orders by `Request.__lt__` (priority, then arrival). `is_held` is asked when a request enters and at `rebuild`."""

    def __init__(self, is_held: Callable[[Request], bool]) -> None:
        self._is_held = is_held
        self._heap: list[Request] = []
        self._held: dict[str, Request] = {}

    def rebuild(self) -> None:
        """To be called when priorities or holds have changed."""
        everybody = [*self._heap, *self._held.values()]
        self._held = {request.request_id: request for request in everybody if self._is_held(request)}
        self._heap = [request for request in everybody if request.request_id not in self._held]
        heapq.heapify(self._heap)

    def best(self, count: int) -> list[Request]:
        """The first `count` that are not held, in order. Walks the heap from its top, so the queue's length does not matter."""
        heap = self._heap
        found: list[Request] = []
        edge = [(heap[0], 0)] if heap else []
        while edge and len(found) < count:
            request, index = heapq.heappop(edge)
            found.append(request)
            for child in (2 * index + 1, 2 * index + 2):
                if child < len(heap):
                    heapq.heappush(edge, (heap[child], child))
        return found

    def held_count(self) -> int:
        return len(self._held)

    def add_request(self, request: Request) -> None:
        if self._is_held(request):
            self._held[request.request_id] = request
        else:
            heapq.heappush(self._heap, request)

    def pop_request(self) -> Request:
        if not self._heap:
            raise IndexError("pop from a queue with no request that may run")
        return heapq.heappop(self._heap)

    def peek_request(self) -> Request:
        if not self._heap:
            raise IndexError("peek at a queue with no request that may run")
        return self._heap[0]

    def prepend_request(self, request: Request) -> None:
        self.add_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.add_request(request)

    def remove_request(self, request: Request) -> None:
        if self._held.pop(request.request_id, None) is None:
            self._heap.remove(request)
            heapq.heapify(self._heap)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        gone = set(requests)
        self._held = {key: request for key, request in self._held.items() if request not in gone}
        self._heap = [request for request in self._heap if request not in gone]
        heapq.heapify(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __len__(self) -> int:
        return len(self._heap) + len(self._held)

    def __iter__(self) -> Iterator[Request]:
        yield from sorted(self._heap)
        yield from self._held.values()

"""The waiting queue, best rank first.

vLLM's scheduler asks whether it is empty (`bool`), for its head when it admits, and for its length when it counts unfinished requests.
`scheduler.py` puts it in the place of vLLM's queue.
"""

import heapq
from collections.abc import Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.request_queue import RequestQueue

Request = Any


class RankedQueue(RequestQueue):
    """Orders by `Request.__lt__` (priority, then arrival)."""

    def __init__(self) -> None:
        self._heap: list[Request] = []

    def rebuild(self) -> None:
        """To be called when priorities have changed."""
        heapq.heapify(self._heap)

    def best(self, count: int) -> list[Request]:
        """Returns the first `count` in order. Walks the heap from its top, so the queue's length does not matter."""
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

    def add_request(self, request: Request) -> None:
        heapq.heappush(self._heap, request)

    def pop_request(self) -> Request:
        if not self._heap:
            raise IndexError("pop from an empty queue")
        return heapq.heappop(self._heap)

    def peek_request(self) -> Request:
        if not self._heap:
            raise IndexError("peek at an empty queue")
        return self._heap[0]

    def prepend_request(self, request: Request) -> None:
        self.add_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.add_request(request)

    def remove_request(self, request: Request) -> None:
        self._heap.remove(request)
        heapq.heapify(self._heap)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        gone = set(requests)
        self._heap = [request for request in self._heap if request not in gone]
        heapq.heapify(self._heap)

    def __bool__(self) -> bool:
        return bool(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[Request]:
        yield from sorted(self._heap)

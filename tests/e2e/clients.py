"""Clients that stream all the while, for tests in which pods come and go.

`test_operations.py`, `test_scaling.py` and `test_picker.py` use them.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from openai import OpenAI

from alise_contract.names import ENGINE_LABEL
from tests.cluster.errors import ClusterError
from tests.cluster.resource import Resource, wait_until
from tests.e2e.support import Stream, tokens_in

# Of streaming alone; two to four times as long beside others and a pod that starts.
LONG_SECONDS = 12.0
MOST_STREAMS_AT_ONCE = 12
STARTED_SECONDS = 3.0


class Asker:
    """Asks one question after another until it is stopped, and keeps what went wrong."""

    def __init__(self, client: OpenAI, tokens: int) -> None:
        self.answered = 0
        self.failures: list[BaseException] = []
        self._client, self._tokens = client, tokens
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._stop.is_set():
            try:
                Stream(self._client, f"Are you there, {self.answered}?", self._tokens).start().result(300)
                self.answered += 1
            except BaseException as error:
                self.failures.append(error)
            time.sleep(0.1)

    def answers(self) -> int:
        """How many questions were answered so far. Raises what ended one of them badly."""
        if self.failures:
            raise self.failures[0]
        return self.answered

    def __enter__(self) -> "Asker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(310)


class Busy:
    """Long streams, as many as it takes to have two in every pod. Which pod gets one is the proxy's choice."""

    def __init__(self, tiny: Resource, client: OpenAI) -> None:
        self.streams: list[Stream] = []
        self._tiny, self._client = tiny, client
        self._tokens = tokens_in(client, LONG_SECONDS)

    def keep_one(self) -> None:
        """Start one stream if some ready pod has fewer than two. It takes seconds, so a pod that goes meanwhile is seen in time."""
        self.keep(at_most=1)

    def keep(self, at_most: int = MOST_STREAMS_AT_ONCE) -> None:
        """Start streams until every ready pod has two; they start apart from each other, so they end apart as well."""
        for _ in range(at_most):
            if all(map(self._is_busy, self._tiny.ready_pods())):
                return
            stream = Stream(self._client, f"Long story {len(self.streams)}", self._tokens).start()
            self.streams.append(stream)
            # The proxy may send it to the pod that has two, where it waits for its turn. Meanwhile a pod may leave, which is to be seen.
            with suppress(TimeoutError):
                stream.wait_started(STARTED_SECONDS)

    def _is_busy(self, pod: str) -> bool:
        try:
            return self._tiny.requests_in_engine(pod) >= 2
        except ClusterError:
            # It has gone since it was listed.
            return True


def leaving_pod(tiny: Resource, before: list[str], while_waiting: Callable[[], None] = lambda: None) -> str:
    """The first of these pods that is on its way out; it must have had work a moment before, or nothing would be tried."""
    work: dict[str, int] = {}

    def gone() -> set[str]:
        # One that is on its way out keeps its last number: it may have finished its streams before that is seen here.
        for pod in tiny.ready_pods():
            with suppress(ClusterError):
                work[pod] = tiny.requests_in_engine(pod)
        while_waiting()
        return set(before) - {pod["metadata"]["name"] for pod in tiny.pods()}

    pod = wait_until("a pod on its way out", gone, 300).pop()
    assert work.get(pod, 0) > 0, "the pod that goes had no stream any more: nothing was tried"
    return pod


def wait_alone(tiny: Resource) -> None:
    wait_until("one pod left", lambda: len(tiny.kubectl("get", "pods", "-l", f"{ENGINE_LABEL}=tiny", "-o", "name").split()) == 1, 300)

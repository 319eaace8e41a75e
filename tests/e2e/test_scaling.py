"""Replicas come and go, pods are replaced; streams do not notice."""

import threading
import time
from collections.abc import Callable

import pytest
from openai import OpenAI

from alise_contract.names import ENGINE_LABEL
from tests.cluster.resource import Resource, wait_until
from tests.e2e.support import Stream, tokens_in

pytestmark = pytest.mark.e2e

# Of streaming alone; two to four times as long beside others and a pod that starts.
LONG_SECONDS = 12.0
MOST_STREAMS_AT_ONCE = 12


def answering_pods(tiny: Resource, client: OpenAI, requests: int = 8) -> set[str]:
    """Which pods took some of these requests."""
    before = {pod: tiny.status(pod)["admission"].get("requests", 0) for pod in tiny.ready_pods()}
    for number in range(requests):
        Stream(client, f"Where are you, {number}?", 5).start().result()
    return {pod for pod, count in before.items() if tiny.status(pod)["admission"].get("requests", 0) > count}


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

    def keep(self) -> None:
        """Start streams until every ready pod has two; they start apart from each other, so they end apart as well."""
        for _ in range(MOST_STREAMS_AT_ONCE):
            if all(self._tiny.requests_in_engine(pod) >= 2 for pod in self._tiny.ready_pods()):
                return
            self.streams.append(Stream(self._client, f"Long story {len(self.streams)}", self._tokens).start().wait_started())


def leaving_pod(tiny: Resource, before: list[str], while_waiting: Callable[[], None] = lambda: None) -> str:
    """The first of these pods that is on its way out; it must have work, or nothing would be tried."""

    def gone() -> set[str]:
        while_waiting()
        return set(before) - {pod["metadata"]["name"] for pod in tiny.pods()}

    pod = wait_until("a pod on its way out", gone, 300).pop()
    assert tiny.requests_in_engine(pod) > 0, "the pod that goes had no stream any more: nothing was tried"
    return pod


def wait_alone(tiny: Resource) -> None:
    wait_until("one pod left", lambda: len(tiny.kubectl("get", "pods", "-l", f"{ENGINE_LABEL}=tiny", "-o", "name").split()) == 1, 300)


def test_scaling_up_serves_from_both_and_scaling_down_cuts_no_stream(tiny: Resource, client: OpenAI) -> None:
    tiny.kubectl("scale", "alise/tiny", "--replicas=2")
    wait_until("two ready pods", lambda: len(tiny.ready_pods()) == 2, 300)
    tiny.wait_condition("Ready", "True", 60)
    wait_until("both pods answering", lambda: len(answering_pods(tiny, client)) == 2, 60)

    # Streams on both pods, and a trickle of new requests, while one of the pods goes away.
    busy = Busy(tiny, client)
    busy.keep()
    with Asker(client, tokens=5) as asker:
        before = tiny.ready_pods()
        tiny.kubectl("scale", "alise/tiny", "--replicas=1")
        leaving_pod(tiny, before, while_waiting=busy.keep)
        for stream in busy.streams:
            stream.result()
        wait_alone(tiny)
    assert asker.failures == []
    assert asker.answered > 5
    tiny.wait_condition("Ready", "True", 60)


def test_a_rollout_replaces_the_pod_without_cutting_a_stream(tiny: Resource, client: OpenAI) -> None:
    before = tiny.ready_pods()
    # The old pod goes when the new one is ready, half a minute later: there is always a long stream open.
    # Several, each after its own: those that began before the new pod was there are all on the old one.
    tokens = tokens_in(client, LONG_SECONDS)
    with Asker(client, tokens) as first, Asker(client, tokens) as second, Asker(client, tokens) as third:
        tiny.patch({"podTemplate": {"metadata": {"annotations": {"example.com/rolled": str(time.time())}}}})
        tiny.wait_condition("Progressing", "True", 30)
        leaving_pod(tiny, before)
        wait_alone(tiny)
    assert first.failures + second.failures + third.failures == []
    assert min(first.answered, second.answered, third.answered) >= 1
    assert tiny.ready_pods() != before
    tiny.wait_condition("Ready", "True", 60)

"""Replicas come and go, pods are replaced; streams do not notice."""

import threading
import time

import pytest
from openai import OpenAI

from tests.e2e.support import Resource, Stream, wait_until

pytestmark = pytest.mark.e2e

# Some ten seconds of streaming.
LONG_TOKENS = 3500


def answering_pods(tiny: Resource, client: OpenAI, requests: int = 8) -> set[str]:
    """Which pods took some of these requests."""
    before = {pod: tiny.status(pod)["admission"].get("requests", 0) for pod in tiny.ready_pods()}
    for number in range(requests):
        Stream(client, f"Where are you, {number}?", 5).start().result()
    return {pod for pod, count in before.items() if tiny.status(pod)["admission"].get("requests", 0) > count}


def test_scaling_up_serves_from_both_and_scaling_down_cuts_no_stream(tiny: Resource, client: OpenAI) -> None:
    tiny.kubectl("scale", "alise/tiny", "--replicas=2")
    wait_until("two ready pods", lambda: len(tiny.ready_pods()) == 2, 180)
    tiny.wait_condition("Ready", "True", 60)
    wait_until("both pods answering", lambda: len(answering_pods(tiny, client)) == 2, 60)

    # Streams on both pods, and a trickle of new requests, while one of the pods goes away.
    streams = [Stream(client, f"Long story {number}.", LONG_TOKENS).start() for number in range(4)]
    for stream in streams:
        stream.wait_started()
    busy = [pod for pod in tiny.ready_pods() if tiny.requests_in_engine(pod)]
    assert len(busy) == 2, f"the streams are all on {busy}"
    stop = threading.Event()
    failures: list[BaseException] = []
    answered = [0]

    def trickle() -> None:
        while not stop.is_set():
            try:
                Stream(client, "Are you there?", 5).start().result(60)
                answered[0] += 1
            except BaseException as error:
                failures.append(error)
            time.sleep(0.1)

    asker = threading.Thread(target=trickle)
    asker.start()
    tiny.kubectl("scale", "alise/tiny", "--replicas=1")
    leaving = wait_until("a pod on its way out", lambda: set(busy) - {pod["metadata"]["name"] for pod in tiny.pods()}, 60, 0.05).pop()
    assert tiny.requests_in_engine(leaving) > 0, "the pod that goes had no stream any more: nothing was tried"
    texts = [stream.result() for stream in streams]
    wait_until("one pod left", lambda: len(tiny.kubectl("get", "pods", "-l", "alise.dev/engine=tiny", "-o", "name").split()) == 1, 180)
    stop.set()
    asker.join()
    assert failures == []
    assert answered[0] > 5
    assert all(texts)
    tiny.wait_condition("Ready", "True", 60)


def test_a_rollout_replaces_the_pod_without_cutting_a_stream(tiny: Resource, client: OpenAI) -> None:
    (old,) = tiny.ready_pods()
    stream = Stream(client, "A story for the rollout.", LONG_TOKENS).start().wait_started()
    tiny.patch({"podTemplate": {"metadata": {"annotations": {"example.com/rolled": str(time.time())}}}})
    tiny.wait_condition("Progressing", "True", 30)
    assert stream.result()
    wait_until("the new pod alone", lambda: tiny.ready_pods() not in ([], [old]) and len(tiny.pods()) == 1, 240)
    tiny.wait_condition("Ready", "True", 60)
    Stream(client, "And after it?", 5).start().result()

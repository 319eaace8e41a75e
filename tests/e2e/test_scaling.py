"""Replicas come and go, pods are replaced; streams do not notice."""

import time

import pytest
from openai import OpenAI

from tests.cluster.resource import Resource, wait_until
from tests.e2e.clients import LONG_SECONDS, Asker, Busy, leaving_pod, wait_alone
from tests.e2e.support import Stream, tokens_in

pytestmark = pytest.mark.e2e


def answering_pods(tiny: Resource, client: OpenAI, requests: int = 8) -> set[str]:
    """Which pods took some of these requests."""
    before = {pod: tiny.status(pod)["admission"].get("requests", 0) for pod in tiny.ready_pods()}
    for number in range(requests):
        Stream(client, f"Where are you, {number}?", 5).start().result()
    return {pod for pod, count in before.items() if tiny.status(pod)["admission"].get("requests", 0) > count}


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
        leaving_pod(tiny, before, while_waiting=busy.keep_one)
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

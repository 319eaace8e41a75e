"""Pods come with predicted work and go without it, on the whole node."""

import json
import threading
from collections.abc import Iterator

import pytest
from openai import OpenAI

from tests.cluster.resource import Resource, wait_until
from tests.e2e.support import Stream, tokens_in

pytestmark = pytest.mark.e2e

# Two slots and random answers: a few streams are seconds of predicted work. On a busy machine all of them may be between two streams for a
# moment, which is no reason to scale down.
SCALING = {"minReplicas": 1, "maxReplicas": 2, "targetBacklogSeconds": 1, "scaleDown": {"stabilizationSeconds": 20}}
STREAM_SECONDS = 4.0
STREAMS = 6


class Load:
    """Streams, a fixed number at a time, until it is stopped. Keeps what went wrong."""

    def __init__(self, client: OpenAI, tokens: int) -> None:
        self.failures: list[BaseException] = []
        self._client, self._tokens = client, tokens
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(STREAMS)]

    def _ask(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                Stream(self._client, f"Tell me a story, {number}", self._tokens).start().result(300)
            except BaseException as error:
                self.failures.append(error)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(310)


@pytest.fixture
def autoscaled(tiny: Resource) -> Iterator[Resource]:
    tiny.patch({"autoscaling": SCALING})
    yield tiny
    tiny.patch({"autoscaling": None, "replicas": 1})


def steps(tiny: Resource) -> list[str]:
    uid = tiny.read()["metadata"]["uid"]
    listed = json.loads(tiny.kubectl("get", "events", "--field-selector", f"involvedObject.uid={uid}", "-o", "json"))
    by_time = sorted(listed["items"], key=lambda one: str(one["firstTimestamp"]))
    return [one["reason"] for one in by_time if one["reason"] in ("ScaledUp", "ScaledDown")]


def test_a_pod_comes_under_load_and_goes_after_it_and_no_stream_is_cut(autoscaled: Resource, client: OpenAI) -> None:
    before = steps(autoscaled)
    with Load(client, tokens_in(client, STREAM_SECONDS)) as load:
        wait_until("a second replica is requested", lambda: autoscaled.read()["spec"]["replicas"] == 2, 90)
        wait_until("two ready pods", lambda: len(autoscaled.ready_pods()) == 2, 300)
    assert load.failures == []
    wait_until("one replica is requested", lambda: autoscaled.read()["spec"]["replicas"] == 1, 120)
    wait_until("one pod is left", lambda: len(autoscaled.pods()) == 1, 60)
    assert steps(autoscaled)[len(before) :] == ["ScaledUp", "ScaledDown"]
    # The step changes the spec; the pod goes before the status of that spec is written.
    condition = autoscaled.wait_condition("AutoscalingActive", "True", 60)
    assert "; last step: from 2 to 1 at " in condition["message"]

"""What administrators do while clients stream: they drain a node, suspend a model and upgrade the operator. No stream is cut."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import InternalServerError, OpenAI

from alise_contract.names import ENGINE_LABEL, SCHEDULER_HTTP_PORT
from tests.cluster.access import Access, user_cluster
from tests.cluster.programs import kubectl_path
from tests.cluster.resource import NAMESPACE, Resource, wait_until
from tests.e2e.clients import LONG_SECONDS, Asker, Busy, leaving_pod
from tests.e2e.support import Stream, answers, tokens_in
from tests.tools import run_cluster

pytestmark = pytest.mark.e2e

DRAIN_SECONDS = 240.0
CRD_OF_THE_RELEASE_BEFORE = Path(__file__).parents[1] / "operator" / "releases" / "crd-0.1.0.yaml"


@pytest.fixture(autouse=True)
def one_idle_replica() -> None:
    """These tests say how many replicas they need."""


def scale(tiny: Resource, replicas: int) -> None:
    """Scales, and waits until this many pods are ready and no other is left."""
    tiny.kubectl("scale", "alise/tiny", f"--replicas={replicas}")
    wait_until(f"{replicas} ready pods", lambda: len(tiny.ready_pods()) == len(all_pods(tiny)) == replicas, 240)


def all_pods(tiny: Resource) -> list[str]:
    """Those on their way out as well."""
    return tiny.kubectl("get", "pods", "-l", f"{ENGINE_LABEL}=tiny", "-o", "name").split()


@contextmanager
def kubectl_drain(access: Access, node: str, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """`kubectl drain` of the node's engine pods, while the block runs. The node takes pods again afterwards."""
    command = [kubectl_path(of_user=user_cluster() is not None), "--kubeconfig", str(access.kubeconfig), "drain", node]
    options = ["--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={ENGINE_LABEL}=tiny"]
    with log.open("wb") as out:
        process = subprocess.Popen([*command, *options], stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.kill()
            process.wait(30)
            access.kubectl("uncordon", node)


def test_draining_a_node_moves_one_pod_after_the_other_and_cuts_no_stream(tiny: Resource, client: OpenAI, tmp_path: Path) -> None:
    scale(tiny, 2)
    node, before = tiny.pods()[0]["spec"]["nodeName"], tiny.ready_pods()
    busy, log = Busy(tiny, client), tmp_path / "drain.log"
    busy.keep()
    with Asker(client, tokens=5) as asker, kubectl_drain(tiny.access, node, log) as drain:
        first = leaving_pod(tiny, before, while_waiting=busy.keep_one)
        wait_until("the budget protects the other pod", lambda: "violate the pod's disruption budget" in log.read_text(), 60)
        assert tiny.ready_pods() == [pod for pod in before if pod != first]
        # There is one node in this cluster. It takes pods again, as another one would.
        tiny.access.kubectl("uncordon", node)
        second = leaving_pod(tiny, tiny.ready_pods(), while_waiting=busy.keep_one)
        assert {first, second} == set(before)
        assert len(tiny.ready_pods()) == 1, "the replacement of the first pod was not ready when the second was evicted"
        for stream in busy.streams:
            stream.result()
        assert drain.wait(DRAIN_SECONDS) == 0, log.read_text()
    assert asker.failures == []
    assert asker.answered > 5


def test_suspending_finishes_the_open_streams_and_resuming_serves_again(tiny: Resource, client: OpenAI) -> None:
    scale(tiny, 1)
    tokens = tokens_in(client, LONG_SECONDS / 2)
    streams = [Stream(client, f"Story {number}", tokens).start().wait_started() for number in range(2)]
    try:
        tiny.patch({"suspend": True})
        assert "set it to false to run 1 pod" in tiny.wait_condition("Ready", "False", 30, reason="Suspended")["message"]
        for stream in streams:
            stream.result()
        wait_until("no pod is left", lambda: not all_pods(tiny), 60)
        tiny.wait_condition("Progressing", "False", 30, reason="Complete")
        with pytest.raises(InternalServerError) as refused:
            Stream(client, "Are you there?", 3).start().result()
        assert refused.value.status_code == 503
    finally:
        tiny.patch({"suspend": False})
    tiny.wait_condition("Ready", "True", 240)
    wait_until("the gateway knows the new pod", lambda: answers(client), 30)
    Stream(client, "Are you there?", 3).start().result()


def finished_requests(tiny: Resource, pod: str) -> float:
    """How many requests the pod's scheduler has seen end since it started."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{SCHEDULER_HTTP_PORT}/proxy/metrics"
    lines = tiny.kubectl("get", "--raw", path).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("alise_scheduler_requests_ended_total{"))


def test_an_upgrade_of_crd_and_operator_leaves_pod_streams_and_history(target: run_cluster.Target, tiny: Resource, client: OpenAI) -> None:
    scale(tiny, 1)
    pod, operator = tiny.only_pod(), "deployment/alise-operator"
    # Servers before 1.25 do not know the rules of a CRD, which their kubectl would refuse.
    tiny.access.kubectl("apply", "--validate=false", "-f", str(CRD_OF_THE_RELEASE_BEFORE))
    tokens = tokens_in(client, LONG_SECONDS)
    # The scheduler counts an answer a moment after the client has it.
    finished = wait_until("an answer is counted", lambda: finished_requests(tiny, pod), 30)
    with Asker(client, tokens) as first, Asker(client, tokens) as second:
        wait_until("open streams", lambda: tiny.requests_in_engine(pod) == 2, 60)
        run_cluster.install(target)
        tiny.access.kubectl("-n", "alise-system", "rollout", "restart", operator)
        tiny.access.kubectl("-n", "alise-system", "rollout", "status", operator, "--timeout=180s", timeout_seconds=190)
        tiny.patch({"networkPolicy": {"enabled": False}})
        try:
            wait_until("the new operator acts", lambda: not tiny.kubectl("get", "networkpolicy", "tiny", "--ignore-not-found"), 120)
        finally:
            tiny.patch({"networkPolicy": None})
    assert first.failures + second.failures == []
    assert tiny.only_pod() == pod
    wait_until("the scheduler has gone on counting", lambda: finished_requests(tiny, pod) > finished, 30)

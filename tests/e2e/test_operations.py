"""What administrators do while clients stream: they drain a node. No stream is cut."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openai import OpenAI

from alise_contract.names import ENGINE_LABEL
from tests.cluster.access import Access, user_cluster
from tests.cluster.programs import kubectl_path
from tests.cluster.resource import Resource, wait_until
from tests.e2e.clients import Asker, Busy, leaving_pod

pytestmark = pytest.mark.e2e

DRAIN_SECONDS = 240.0


@pytest.fixture(autouse=True)
def one_idle_replica() -> None:
    """The test says how many replicas it needs."""


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
        first = leaving_pod(tiny, before, while_waiting=busy.keep)
        wait_until("the budget protects the other pod", lambda: "violate the pod's disruption budget" in log.read_text(), 60)
        assert tiny.ready_pods() == [pod for pod in before if pod != first]
        # There is one node in this cluster. It takes pods again, as another one would.
        tiny.access.kubectl("uncordon", node)
        second = leaving_pod(tiny, tiny.ready_pods(), while_waiting=busy.keep)
        assert {first, second} == set(before)
        assert len(tiny.ready_pods()) == 1, "the replacement of the first pod was not ready when the second was evicted"
        for stream in busy.streams:
            stream.result()
        assert drain.wait(DRAIN_SECONDS) == 0, log.read_text()
    assert asker.failures == []
    assert asker.answered > 5

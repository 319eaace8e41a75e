"""A pod's API port on this machine, through `kubectl port-forward`: for clusters whose pods cannot be reached from here.

`run.py` and `tests/e2e/keyed/test_request_surface.py` open it.
"""

import re
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from alise_contract.names import ENGINE_PORT
from tests.cluster.access import Access
from tests.cluster.errors import ClusterError
from tests.cluster.programs import kubectl_path

START_SECONDS = 20.0


@contextmanager
def forwarded(access: Access, pod: str, namespace: str = "default") -> Iterator[str]:
    """The URL of the pod for the length of the block. Raises ClusterError when kubectl does not forward in time."""
    argv = [
        kubectl_path(of_user=True),
        "--kubeconfig",
        str(access.kubeconfig),
        "-n",
        namespace,
        "port-forward",
        f"pod/{pod}",
        f":{ENGINE_PORT}",
    ]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield f"http://127.0.0.1:{_port(process, pod)}"
    finally:
        process.terminate()
        process.wait(10)


def _port(process: "subprocess.Popen[str]", pod: str) -> int:
    assert process.stdout is not None
    said = ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        ends = time.monotonic() + START_SECONDS
        while time.monotonic() < ends and process.poll() is None:
            if selector.select(0.2):
                said += process.stdout.readline()
                if port := forwarded_port(said):
                    return port
    raise ClusterError(f"kubectl did not forward a port of pod {pod} within {START_SECONDS:g} s: {said.strip()}")


def forwarded_port(said: str) -> int | None:
    """The local port that kubectl chose, from what it printed so far."""
    found = re.search(r"Forwarding from 127\.0\.0\.1:(\d+) ->", said)
    return int(found.group(1)) if found else None

"""`python -m tests.cluster.gateway`: run the gateway in the foreground until Ctrl-C or SIGTERM."""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

from tests.cluster import state
from tests.cluster.errors import ClusterError
from tests.cluster.gateway.controller import Gateway


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.gateway", description="A test ingress: Envoy on 127.0.0.1.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one (default)")
    parser.add_argument("--kubeconfig", type=Path, help="default: $KUBECONFIG, else the cluster of `make cluster-up`")
    options = parser.parse_args()
    kubeconfig = options.kubeconfig or Path(os.environ.get("KUBECONFIG") or state.named().kubeconfig)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with Gateway(kubeconfig, options.port) as gateway:
            print(gateway.url, flush=True)
            stop.wait()
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

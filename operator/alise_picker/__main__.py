"""`alise-picker`: the endpoint picker of one AliseEngine, which tells Envoy to which replica each request goes.

It listens for Envoy's gRPC and for HTTP, watches EndpointSlices through the operator's kube.py, and connects to the sidecars of the
replicas (replicas.py). It is the command of the Deployment that the operator's `children/picker.py` builds.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Sequence

from alise_contract.names import PICKER_GRPC_PORT, PICKER_HTTP_PORT
from alise_operator import logs
from alise_operator.kube import HttpKube
from alise_picker import endpoints, web
from alise_picker.metrics import Metrics
from alise_picker.picker import HoldLimits, Picker
from alise_picker.replicas import Replicas, Target
from alise_picker.server import Server

log = logging.getLogger("alise_picker")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the parsed command line. Exits with 2 and a message if it is wrong."""
    parser = argparse.ArgumentParser(prog="alise-picker", description="Sends each request to the replica in which it would wait least.")
    parser.add_argument("--resource", required=True, metavar="NAMESPACE/NAME", help="the AliseEngine, for which replicas are watched")
    parser.add_argument(
        "--endpoints", type=endpoints.fixed, metavar="ENGINE=SIDECAR,…",
        help="fixed replicas instead, without a cluster: host:port of each engine's API and of its sidecar's lengths_port",
    )  # fmt: skip
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (default: all)")
    parser.add_argument("--port", type=int, default=PICKER_GRPC_PORT, help="port of Envoy's external processing (default: %(default)s)")
    parser.add_argument(
        "--http-port", type=int, default=PICKER_HTTP_PORT, help="port of /metrics, /healthz, /waiting (default: %(default)s)"
    )
    parser.add_argument("--hold-requests", type=int, default=0, help="requests held at a time while no replica is ready (default: none)")
    parser.add_argument("--hold-seconds", type=float, default=0.0, help="how long one is held")
    parser.add_argument("--hold-needs-key", action="store_true", help="hold only requests with the header authorization or x-api-key")
    parser.add_argument("--predict-ms", type=float, default=50.0, help="how long a prediction is waited for (default: %(default)s)")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    options = parser.parse_args(argv)
    if options.resource.count("/") != 1 or not all(options.resource.split("/")):
        parser.error(f"--resource={options.resource}: expected NAMESPACE/NAME")
    return options


async def run(options: argparse.Namespace) -> None:
    """Serves until SIGTERM or SIGINT. Raises OSError if a port is not available."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics, replicas = Metrics(), Replicas()
    hold = HoldLimits(options.hold_requests, options.hold_seconds, options.hold_needs_key)
    picker = Picker(replicas, metrics, hold, options.predict_ms / 1000)
    server = Server(picker, options.host)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(replicas.close)
        http_port = await stack.enter_async_context(
            web.serving(picker, replicas, metrics, options.resource, options.host, options.http_port)
        )
        listed = asyncio.Event()

        def take(targets: Sequence[Target]) -> None:
            replicas.set(targets)
            listed.set()

        following: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if options.endpoints:
            take(options.endpoints)
        else:
            namespace, name = options.resource.split("/")
            kube = await stack.enter_async_context(HttpKube())
            following = asyncio.ensure_future(endpoints.follow(kube, namespace, name, take))
        stack.callback(following.cancel)
        # Until the replicas are known, Envoy finds no picker and balances by itself.
        await _first(stop.wait(), listed.wait())
        if not stop.is_set():
            port = await server.start(options.port)
            stack.push_async_callback(server.stop)
            log.info("picker started", extra={"engine": options.resource, "port": port, "http_port": http_port})
            await _first(stop.wait(), following)


async def _first(*awaited: Awaitable[object]) -> None:
    """Waits for one of them, and raises what it raised. The others go on if they are futures."""
    tasks = [asyncio.ensure_future(one) for one in awaited]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = arguments(argv)
    logs.configure(options.log_level)
    try:
        asyncio.run(run(options))
    except OSError as error:
        log.error("the picker cannot start", extra={"detail": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

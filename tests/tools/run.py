"""`make run`: from nothing to a streamed answer through the ingress, from two replicas.

On Debian 12 as root it brings up a real cluster, builds and imports the images; with `KUBECONFIG` set it uses that cluster. Without a
terminal it ends after the report and leaves the cluster up; at a terminal it keeps the ingress open until Ctrl-C, which takes down what
this run brought up. `make cluster-down` always does.
"""

import argparse
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from openai import OpenAI

from alise_contract.names import ENGINE_LABEL, SCHEDULER_HTTP_PORT
from tests.cluster import cluster
from tests.cluster.access import user_cluster
from tests.cluster.errors import ClusterError
from tests.cluster.gateway.controller import Gateway
from tests.cluster.programs import kubectl_path
from tests.cluster.progress import say
from tests.cluster.resource import Resource, openai_client
from tests.cluster.state import DEFAULT_NAME, named
from tests.tools import run_cluster
from tests.tools.run_cluster import NAME, NAMESPACE, Target
from tests.tools.run_forward import forwarded
from tests.tools.run_report import NOTHING, Answer, PodNumbers, answers_table, next_commands, pod_numbers, pods_table

HOST = "tiny.alise.test"
MODEL = "tiny"
REPLICAS = 2
MOST_TOKENS = {"long": 1000, "short": 8}
LONG_REQUESTS = 16
SHORT_REQUESTS = 8
LEARNING_PAIRS = 4
BETWEEN_SECONDS = 0.05
ANSWER_SECONDS = 300.0
ROUTED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Ingress:
    """How clients come in: a URL for each door (one, unless pods are forwarded), and whether the test gateway holds it open."""

    urls: tuple[str, ...]
    gateway: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.run", description="From nothing to a streamed answer from two replicas.")
    parser.add_argument("--name", default=DEFAULT_NAME, help="which cluster of `python -m tests.cluster` (default: %(default)s)")
    name = parser.parse_args(argv).name
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, _interrupt)
    began = time.monotonic()
    target: Target | None = None
    try:
        target = run_cluster.bring_up(name)
        demonstrate(target, began)
    except ClusterError as error:
        say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        say("\ninterrupted")
        if target is not None and target.started_here:
            cluster.down(named(name))
        elif target is not None:
            say("the cluster was up before and stays up; `make cluster-down` takes it down")
        return 130
    return 0


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def demonstrate(target: Target, began: float) -> None:
    """Everything after the cluster is up."""
    run_cluster.install(target)
    run_cluster.apply_sample(target)
    run_cluster.wait_ready(target, 1)
    resource = Resource(target.access, NAME)
    with ingress(target, resource) as way_in:
        say(f"\nA chat completion, streamed through the ingress (Host: {HOST}). The weights are random, so the text is noise:\n")
        client = wait_routed(way_in)
        answers = [ask(client, "first", "Hello! Who are you?", 60, show=True)]
        first = time.monotonic() - began - answers[0].seconds + answers[0].first_token_seconds
        say(f"\n\n  first token after {first:.0f} s, without the time to install Python packages\n")
    run_cluster.scale(target, REPLICAS)
    run_cluster.wait_ready(target, REPLICAS)
    with ingress(target, resource) as way_in:
        before = read_pods(resource)
        say(f"\n{LONG_REQUESTS} long and then {SHORT_REQUESTS} short answers at the same time, over {REPLICAS} pods …")
        answers += load(way_in)
        after = {pod: numbers.since(before.get(pod, NOTHING)) for pod, numbers in read_pods(resource).items()}
        report(target, way_in, answers, after)
        if stays_open(way_in):
            say(f"\nThe ingress stays open at {way_in.urls[0]}. Ctrl-C ends it and what this run brought up.")
            threading.Event().wait()


@contextmanager
def ingress(target: Target, resource: Resource) -> Iterator[Ingress]:
    """The test gateway before our cluster; before a user's cluster its own ingress (`INGRESS_URL`), or a forwarded port for each pod."""
    with ExitStack() as stack:
        own_url = os.environ.get("INGRESS_URL")
        if not target.belongs_to_user:
            gateway = stack.enter_context(Gateway(target.access.kubeconfig))
            yield Ingress((gateway.url,), gateway=True)
        elif own_url:
            yield Ingress((own_url.rstrip("/"),), gateway=False)
        else:
            say("INGRESS_URL is not set (the address of your ingress controller), so each pod is reached with `kubectl port-forward`")
            urls = [stack.enter_context(forwarded(target.access, pod)) for pod in resource.ready_pods()]
            yield Ingress(tuple(urls), gateway=False)


def wait_routed(way_in: Ingress) -> OpenAI:
    """A client of the ingress, once it answers for the host. Raises ClusterError past the deadline."""
    client = openai_client(way_in.urls[0], HOST, timeout_seconds=ANSWER_SECONDS)
    ends = time.monotonic() + ROUTED_SECONDS
    while True:
        try:
            client.models.list(timeout=10)
            return client
        except Exception as error:
            if time.monotonic() > ends:
                raise ClusterError(f"{way_in.urls[0]} does not answer for {HOST} after {ROUTED_SECONDS:.0f} s: {error}") from error
        time.sleep(0.2)


def ask(client: OpenAI, kind: str, prompt: str, most_tokens: int, show: bool = False) -> Answer:
    """Stream one answer to its natural end or `most_tokens`. Raises ClusterError when it is cut."""
    began = time.monotonic()
    first: float | None = None
    count, finished = 0, False
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=most_tokens,
        stream=True,
        stream_options={"include_usage": True},
        # With random weights, an answer can end anywhere, even after a word. What is shown should not, nor what takes the slots.
        extra_body={"ignore_eos": kind in ("first", "long")},
    )
    for chunk in stream:
        if chunk.usage is not None:
            count = chunk.usage.completion_tokens
        for choice in chunk.choices:
            finished = finished or choice.finish_reason is not None
            if choice.delta.content:
                first = first or time.monotonic() - began
                if show:
                    print(choice.delta.content, end="", flush=True)
    seconds = time.monotonic() - began
    if not finished:
        logs = f"`kubectl logs -l {ENGINE_LABEL}={NAME} -c engine` may say why"
        raise ClusterError(f"a stream ended after {count} tokens and {seconds:.1f} s without an end of the answer; {logs}")
    return Answer(kind, first or seconds, seconds, count)


def load(way_in: Ingress) -> list[Answer]:
    """Long answers take every slot of both pods, short ones come while they run."""
    clients = [openai_client(url, HOST, timeout_seconds=ANSWER_SECONDS) for url in way_in.urls]
    with ThreadPoolExecutor(LONG_REQUESTS + SHORT_REQUESTS) as pool:

        def send(kinds: Sequence[str], label: str) -> "list[Future[Answer]]":
            sent = []
            for index, kind in enumerate(kinds):
                time.sleep(BETWEEN_SECONDS)
                arguments = (f"{label}{kind}", _prompt(kind, index), MOST_TOKENS[kind])
                sent.append(pool.submit(ask, clients[index % len(clients)], *arguments))
            return sent

        # A few of each first, so that the predictor has seen both kinds.
        learned = [future.result() for future in send(["long", "short"] * LEARNING_PAIRS, "learning: ")]
        together = send(["long"] * LONG_REQUESTS, "") + send(["short"] * SHORT_REQUESTS, "")
        return learned + [future.result() for future in together]


def _prompt(kind: str, index: int) -> str:
    return f"Write a long story about river number {index}." if kind == "long" else f"Yes or no: is {index} even?"


def read_pods(resource: Resource) -> Mapping[str, PodNumbers]:
    """Every ready pod's numbers, through the API server."""
    found = {}
    for pod in resource.ready_pods():
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}:{SCHEDULER_HTTP_PORT}/proxy/metrics"
        found[pod] = pod_numbers(resource.status(pod), resource.access.kubectl("get", "--raw", path))
    return found


def stays_open(way_in: Ingress) -> bool:
    """Whether the ingress stays open after the run, for a person at a terminal."""
    return way_in.gateway and sys.stdin.isatty()


def report(target: Target, way_in: Ingress, answers: Sequence[Answer], pods: Mapping[str, PodNumbers]) -> None:
    """Print the tables and what to type next. Raises ClusterError when a pod answered nothing."""
    print(f"\n{answers_table(answers)}\n\n{pods_table(pods)}\n", flush=True)
    idle = [name for name, numbers in pods.items() if numbers.requests == 0]
    if idle or len(pods) < REPLICAS:
        raise ClusterError(f"requests should have reached {REPLICAS} pods; without any: {', '.join(idle) or 'a pod that is gone'}")
    # At a terminal, Ctrl-C takes down what this run brought up.
    by_itself = target.belongs_to_user or (target.started_here and stays_open(way_in))
    gateway, url, down = None, way_in.urls[0], None if by_itself else "make cluster-down"
    if way_in.gateway and not stays_open(way_in):
        gateway = "python -m tests.cluster.gateway --port 8080   # the ingress again, in a terminal of its own"
        url = "http://127.0.0.1:8080"
    kubeconfig = user_cluster() or str(target.access.kubeconfig)
    kubectl = None if shutil.which("kubectl") else str(Path(kubectl_path()).parent)
    print(next_commands(kubeconfig, url, HOST, gateway, down, str(Path(sys.executable).parent), kubectl), flush=True)


if __name__ == "__main__":
    sys.exit(main())

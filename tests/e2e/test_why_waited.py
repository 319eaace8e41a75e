"""A person asks why a request waits: the header of its answer, `kubectl alise`, its page, and the line of the log, on real pods."""

import json
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from alise_contract.names import REQUEST_ID_HEADER, SCHEDULER_CONTAINER
from tests.cluster.access import Access
from tests.cluster.resource import NAMESPACE, Resource, wait_until
from tests.e2e.support import MODEL, Stream, tokens_in
from tests.operator.plugin import running

pytestmark = pytest.mark.e2e
# Long enough for three programs of a person while a request waits, also on a busy machine.
SECONDS = 20.0
DRAINED_SECONDS = 6.0
Alise = Callable[..., "subprocess.CompletedProcess[str]"]


Open = Callable[[str], str]


@pytest.fixture
def page(access: Access, tmp_path: Path) -> Iterator[Open]:
    """Reads a path of the page that `kubectl alise ui` serves, as a browser that was given its address."""
    command = [sys.executable, "-m", "kubectl_alise", "ui", "--no-browser", "--port=0"]
    process = subprocess.Popen(command, env=running.environment(access.kubeconfig, tmp_path), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:\d+)/(\S+)", line)
        assert found is not None, line
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        opener.open(f"{found[1]}/{found[2]}", timeout=30).close()
        yield lambda path: str(opener.open(f"{found[1]}{path}", timeout=30).read().decode())
    finally:
        process.terminate()
        assert process.wait(timeout=10) == 0


@pytest.fixture
def alise(access: Access, tmp_path: Path) -> Alise:
    """Runs `kubectl alise` in the namespace of the tests."""

    def run(*arguments: str, timeout_seconds: float = 60.0) -> "subprocess.CompletedProcess[str]":
        return running.alise(access.kubeconfig, tmp_path, *arguments, "-n", NAMESPACE, timeout_seconds=timeout_seconds)

    return run


def test_a_person_with_kubectl_learns_why_a_request_waits_and_waited(alise: Alise, tiny: Resource, client: OpenAI) -> None:
    pod, name = tiny.only_pod(), f"req-{uuid.uuid4().hex[:8]}"
    tokens = tokens_in(client, SECONDS)
    # Two slots, taken by two requests that are as long as the third.
    first = [Stream(client, "Tell me a long story", tokens).start().wait_started() for _ in range(2)]
    named = client.with_options(default_headers={REQUEST_ID_HEADER: name})
    third = Stream(named, "Tell me a long story", tokens).start()
    wait_until("the third request waiting", lambda: int(tiny.status(pod).get("requests_waiting", 0)) == 1, 20, 0.2)

    explained = alise("explain", tiny.name, name)
    assert explained.returncode == 0, explained.stderr
    assert f"Request {name} in {pod}" in explained.stdout
    assert "It has waited" in explained.stdout
    assert (
        "rank before it (2 of them run now), and about 2 can run at once" in explained.stdout or "All slots are taken" in explained.stdout
    )
    # An answer that turns out longer than was predicted may give way to the third one meanwhile; it waits then, in host memory.
    listed = alise("top", tiny.name).stdout
    counts = re.search(rf"{pod}: 2 run on 2 slots, (\d) wait, (\d) are preempted", listed)
    assert counts is not None, listed
    assert int(counts[1]) + int(counts[2]) == 1
    assert [row for row in (line.split() for line in listed.splitlines()) if row[2:3] == [name]]
    shown = alise("status", tiny.name).stdout
    (row,) = [line.split() for line in shown.splitlines() if line.startswith(pod)]
    assert (row[1:3], row[5], int(row[6]) + int(row[7]), row[8]) == (["yes", "Running"], "2", 1, "yes")

    for stream in (*first, third):
        stream.result()

    def log_line() -> dict[str, object] | None:
        log = tiny.kubectl("logs", pod, "-c", SCHEDULER_CONTAINER, "--tail=200")
        lines = (json.loads(line) for line in log.splitlines() if '"request ended"' in line)
        return next((line for line in lines if line["request_id"] == name), None)

    line = wait_until("the line of the log", log_line, 20)
    assert line is not None
    assert (line["outcome"], line["generated_tokens"], line["model"]) == ("length", tokens, MODEL)
    assert float(str(line["waited_seconds"])) > 1.0
    ended = alise("explain", tiny.name, name).stdout
    assert "The answer reached its maximum number of tokens." in ended
    assert "When it began to wait, " in ended


def test_a_person_sees_requests_in_the_operators_page(page: Open, tiny: Resource, client: OpenAI) -> None:
    name = f"req-{uuid.uuid4().hex[:8]}"
    named = client.with_options(default_headers={REQUEST_ID_HEADER: name})
    stream = Stream(named, "Tell me a long story", tokens_in(client, SECONDS)).start().wait_started()
    wait_until("the request running", lambda: int(tiny.status(tiny.only_pod()).get("requests_running", 0)) == 1, 20, 0.2)
    assert f"/engines/{NAMESPACE}/{tiny.name}" in page("/")
    shown = page(f"/engines/{NAMESPACE}/{tiny.name}?request={name}")
    stream.result()
    assert f"{tiny.only_pod()}: 1 run on 2 slots" in shown
    assert f"{name} in {tiny.only_pod()}: model {MODEL}" in shown
    assert "It runs: " in shown
    assert "could not be read" not in shown


def test_every_answer_has_the_id_that_explains_it(alise: Alise, tiny: Resource, client: OpenAI) -> None:
    answer = client.completions.with_raw_response.create(model=MODEL, prompt="Hi", max_tokens=2)
    for one in (answer.headers[REQUEST_ID_HEADER], answer.parse().id):
        wait_until(f"{one} is known", lambda one=one: alise("explain", tiny.name, one).returncode == 0, 20)  # type: ignore[misc]
    unknown = alise("explain", tiny.name, "req-unknown")
    assert (unknown.returncode, "No pod knows a request req-unknown" in unknown.stdout) == (1, True)


def test_a_pod_that_is_drained_finishes_its_answer(alise: Alise, tiny: Resource, client: OpenAI) -> None:
    pod = tiny.only_pod()
    stream = Stream(client, "Tell me a long story", tokens_in(client, DRAINED_SECONDS)).start().wait_started()
    refused = alise("drain", pod)
    assert (refused.returncode, "is the only ready pod of tiny" in refused.stderr) == (1, True)
    drained = alise("drain", pod, "--force", timeout_seconds=150)
    assert drained.returncode == 0, drained.stderr
    assert f"{pod} has ended." in drained.stdout
    assert stream.result()

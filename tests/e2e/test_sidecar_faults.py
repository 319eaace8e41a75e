"""The scheduler process dies, and clients that stream notice nothing."""

import threading
import time

import pytest
from openai import OpenAI

from tests.cluster.resource import Resource, wait_until
from tests.e2e.support import Stream, tokens_in

pytestmark = pytest.mark.e2e

# Sends a signal to every scheduler process, but not to its supervisor, whose command is `supervise`; one may end while it is looked at.
SIGNAL_ALL = """
import os, signal, time

def signal_all(number):
    sent = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) in (1, os.getpid()):
            continue
        try:
            line = open("/proc/" + entry + "/cmdline", "rb").read().replace(b"\\0", b" ")
            if b"alise" in line and b"run" in line:
                os.kill(int(entry), number)
                sent += 1
        except OSError:
            pass
    return sent
"""

# Ends it as often as it comes back, for a while.
KILL_LOOP = (
    SIGNAL_ALL
    + """
ends = time.monotonic() + {seconds}
killed = signal_all(signal.SIGKILL)
while time.monotonic() < ends:
    time.sleep(0.1)
    killed += signal_all(signal.SIGKILL)
print(killed)
"""
)

# Stops it where it is: it keeps its sockets and answers no request.
STOP_ONCE = SIGNAL_ALL + "print(signal_all(signal.SIGSTOP))"


def kill_scheduler(tiny: Resource, pod: str, seconds: float = 0.0) -> int:
    """How often it was killed."""
    return int(tiny.run_in_scheduler(pod, KILL_LOOP.format(seconds=seconds), timeout_seconds=seconds + 60))


def sidecar_connected(tiny: Resource, pod: str) -> bool:
    return bool(tiny.status(pod).get("sidecar", {}).get("plan_fresh"))


def test_killing_the_scheduler_in_mid_stream_fails_no_request(tiny: Resource, client: OpenAI) -> None:
    pod = tiny.only_pod()
    wait_until("a connected sidecar", lambda: sidecar_connected(tiny, pod), 60)
    tokens = tokens_in(client, 5.0)
    streams = [Stream(client, f"Story number {number}.", tokens).start().wait_started() for number in range(2)]
    assert kill_scheduler(tiny, pod) >= 1
    meanwhile = [Stream(client, f"Question {number}?", 20).start() for number in range(3)]
    for stream in (*streams, *meanwhile):
        stream.result()
    wait_until("the sidecar coming back", lambda: sidecar_connected(tiny, pod), 60)
    assert tiny.ready_pods() == [pod]


def is_asked(tiny: Resource, pod: str, client: OpenAI) -> bool:
    """Whether the sidecar decides about a request that comes now."""
    before = tiny.status(pod)["admission"].get("admitted", 0)
    Stream(client, "Are you there?", 5).start().result()
    return bool(tiny.status(pod)["admission"].get("admitted", 0) > before)


def test_a_scheduler_that_crash_loops_for_a_minute_costs_no_request(tiny: Resource, client: OpenAI) -> None:
    pod = tiny.only_pod()
    failed_open_before = tiny.status(pod)["admission"].get("failed_open", 0)
    tokens = tokens_in(client, 30.0)
    killed: list[int] = []
    killer = threading.Thread(target=lambda: killed.append(kill_scheduler(tiny, pod, seconds=60.0)))
    killer.start()
    answers = 0
    long_stream = Stream(client, "A very long story.", tokens).start().wait_started()
    while killer.is_alive():
        Stream(client, f"Question {answers}?", 30).start().result()
        answers += 1
        time.sleep(0.2)
    long_stream.result()
    killer.join()

    assert killed[0] >= 5, f"the scheduler was killed only {killed[0]} times"
    assert answers >= 10
    assert tiny.status(pod)["admission"]["failed_open"] > failed_open_before, "no request was counted as failed open"
    assert tiny.ready_pods() == [pod], "the pod left the Service"


def test_a_scheduler_that_hangs_costs_no_request_and_is_started_again(tiny: Resource, client: OpenAI) -> None:
    pod = tiny.only_pod()
    # After the minute above the breaker may still be open, and the sidecar would not be asked.
    wait_until("the sidecar being asked again", lambda: is_asked(tiny, pod, client), 60)
    late_before = tiny.status(pod)["admission"].get("failed_open_by_reason", {}).get("deadline", 0)
    stream = Stream(client, "A long story.", tokens_in(client, 10.0)).start().wait_started()
    assert int(tiny.run_in_scheduler(pod, STOP_ONCE)) >= 1
    Stream(client, "Are you slow?", 20).start().result()
    stream.result()
    late = tiny.status(pod)["admission"]["failed_open_by_reason"]["deadline"]
    assert late > late_before, "no request was counted as answered too late"
    # The supervisor misses its heartbeat.
    wait_until("the sidecar coming back", lambda: sidecar_connected(tiny, pod), 120)
    assert tiny.ready_pods() == [pod]


def test_a_sidecar_that_is_down_shows_in_the_conditions_and_goes_away(tiny: Resource, client: OpenAI) -> None:
    pod = tiny.only_pod()
    # What the tests above did is in the status for a minute.
    tiny.wait_condition("Degraded", "False", 120)
    killer = threading.Thread(target=lambda: kill_scheduler(tiny, pod, seconds=45.0))
    killer.start()
    degraded = tiny.wait_condition("Degraded", "True", 60)
    assert degraded["reason"] in ("SidecarDown", "FailingOpen")
    assert pod in degraded["message"]
    assert tiny.condition("Ready")["status"] == "True", "a dead sidecar must not make the service unready"
    assert degraded["reason"] in tiny.describe()
    killer.join()
    tiny.wait_condition("Degraded", "False", 90)

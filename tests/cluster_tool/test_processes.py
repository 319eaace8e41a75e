"""Processes are started, found again and ended, and those of other users are not touched."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import processes
from tests.cluster.commands import run
from tests.cluster.errors import ClusterError, CommandFailed, NotReady
from tests.cluster.state import State

pytestmark = pytest.mark.process

WAIT = [sys.executable, "-c", "import time; time.sleep(600)"]
IGNORE_SIGTERM = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)",
]
WITH_CHILD = [sys.executable, "-c", f"import subprocess, time; subprocess.Popen({WAIT!r}); time.sleep(600)"]


@pytest.fixture
def at(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path / "cluster")
    made.create()
    yield made
    processes.end(made)


def test_a_started_process_is_found_by_name(at: State) -> None:
    started = processes.start(at, "waiter", WAIT)
    # For an instant of its start a process has no environment yet.
    assert processes.wait_until(lambda: processes.find(at) == [processes.Found("waiter", started.pid)], timeout_seconds=10)


def test_a_child_is_found_under_its_parents_name(at: State) -> None:
    processes.start(at, "parent", WITH_CHILD)
    assert processes.wait_until(lambda: len(processes.find(at)) == 2, timeout_seconds=30)
    assert {process.name for process in processes.find(at)} == {"parent"}


def test_ending_a_cluster_ends_children_whose_parent_is_dead(at: State) -> None:
    parent = processes.start(at, "parent", WITH_CHILD)
    assert processes.wait_until(lambda: len(processes.find(at)) == 2, timeout_seconds=30)
    parent.kill()
    parent.wait(timeout=10)
    processes.end(at)
    assert processes.find(at) == []


def test_a_process_that_ignores_sigterm_is_ended_all_the_same(at: State) -> None:
    processes.start(at, "stubborn", IGNORE_SIGTERM)
    assert processes.wait_until(lambda: processes.log_tail(at, "stubborn") == "1", timeout_seconds=30)
    processes.end(at, grace_seconds=0.2)
    assert processes.find(at) == []


def test_only_the_named_processes_are_ended(at: State) -> None:
    processes.start(at, "first", WAIT)
    processes.start(at, "second", WAIT)
    assert processes.wait_until(lambda: len(processes.find(at)) == 2, timeout_seconds=30)
    processes.end(at, ["first"])
    assert [process.name for process in processes.find(at)] == ["second"]


def test_another_clusters_process_is_left_alone(at: State, tmp_path: Path) -> None:
    other = State(tmp_path / "cluster-2")  # its path begins with the first one's
    other.create()
    processes.start(other, "waiter", WAIT)
    assert processes.wait_until(lambda: processes.find(other) != [], timeout_seconds=30)
    processes.end(at)
    left = processes.find(other)
    processes.end(other)
    assert [process.name for process in left] == ["waiter"]


def test_a_process_that_ends_before_it_is_ready_is_reported_with_its_log(at: State) -> None:
    started = {"broken": processes.start(at, "broken", [sys.executable, "-c", "raise SystemExit('no such flag')"])}
    with pytest.raises(NotReady, match=r"broken ended with status 1 before the door opens:\nno such flag"):
        processes.wait_ready(at, "the door opens", lambda: False, started, timeout_seconds=30)


def test_a_process_that_is_never_ready_is_reported_at_the_deadline(at: State) -> None:
    with pytest.raises(NotReady, match=r"waited 0.1 s in vain for: the door opens"):
        processes.wait_ready(at, "the door opens", lambda: False, {"waiter": processes.start(at, "waiter", WAIT)}, timeout_seconds=0.1)


def test_a_program_that_does_not_exist_is_named(at: State) -> None:
    with pytest.raises(ClusterError, match=r"cannot start ghost \(/no/such/program\)"):
        processes.start(at, "ghost", ["/no/such/program"])


def test_a_command_past_its_deadline_is_ended_with_its_children(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"was still running after 1 s"):
        run(["sh", "-c", f"sleep 600 & echo $! > {tmp_path / 'pid'}; wait"], timeout_seconds=1)
    child = (tmp_path / "pid").read_text().strip()

    def ended() -> bool:
        listed = subprocess.run(["ps", "-o", "stat=", "-p", child], capture_output=True, text=True, timeout=10, check=False).stdout
        return listed.strip()[:1] in ("", "Z")

    assert processes.wait_until(ended, timeout_seconds=10.0), "the child outlived the command"


def test_a_failed_command_is_reported_with_its_output() -> None:
    with pytest.raises(CommandFailed, match=r"ended with status 3:\nwhy it failed"):
        run(["sh", "-c", "echo why it failed >&2; exit 3"], timeout_seconds=10)

"""The supervisor for real: a process of its own, with children that live, die, hang and leave orphans."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alise_scheduler.supervisor import (
    FIRST_PAUSE_SECONDS,
    HEALTHY_SECONDS,
    Heartbeat,
    child_environ,
    next_pause,
)

pytestmark = pytest.mark.process

PATIENCE_SECONDS = 30.0

# A supervisor over a child given as Python source.
_PROGRAM = """
import os, sys
from alise_scheduler import logs
from alise_scheduler.supervisor import Supervisor
logs.set_up("info")
sys.exit(Supervisor([sys.executable, "-c", sys.argv[1]], os.environ, float(sys.argv[2]), 0.5).run())
"""
_BEATS = """
import os, time, signal
def beat():
    os.write(int(os.environ["ALISE_HEARTBEAT_FD"]), b".")
"""
LIVES = _BEATS + "while True:\n    beat(); time.sleep(0.05)\n"
DIES = "raise SystemExit(3)\n"
HANGS = _BEATS + "beat(); time.sleep(1000)\n"
HANGS_STUBBORNLY = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + HANGS
SPAWNS = _BEATS + (
    "if os.fork() == 0:\n    if os.fork() == 0:\n        time.sleep(0.3)\n    os._exit(0)\nos.wait()\n"
    "open(os.environ['PROOF'], 'w').close()\nwhile True:\n    beat(); time.sleep(0.05)\n"
)


class Supervised:
    def __init__(self, child: str, log: Path, hang_seconds: float) -> None:
        self._log = log
        with log.open("wb") as stream:
            env = {**os.environ, "PROOF": str(log.with_suffix(".proof"))}
            self.process = subprocess.Popen([sys.executable, "-c", _PROGRAM, child, str(hang_seconds)], stderr=stream, env=env)

    def lines(self, message: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [row for row in rows if row["message"] == message]

    def pids(self) -> list[int]:
        return [row["pid"] for row in self.lines("scheduler process started")]

    def children(self) -> list[str]:
        """States of the supervisor's children, as in /proc."""
        states = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[1]) == self.process.pid:
                    states.append(fields[0])
        return states

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_SECONDS)


def until(what: Callable[[], object]) -> None:
    """Waits until something holds; fails when it does not for a long time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def start(child: str, hang_seconds: float = 30.0) -> Supervised:
        made.append(Supervised(child, tmp_path / f"log{len(made)}", hang_seconds))
        return made[-1]

    yield start
    for item in made:
        if item.process.poll() is None:
            item.process.kill()
            item.process.wait()


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_killed_child_is_started_again(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise(LIVES)
    until(lambda: supervised.pids())
    os.kill(supervised.pids()[0], signal.SIGKILL)
    until(lambda: len(supervised.pids()) == 2)
    assert supervised.process.poll() is None
    death = supervised.lines("scheduler died, starting it again")[0]
    assert death["exit"] == -signal.SIGKILL
    assert "spec.scheduling.resources.limits.memory" in death["cause"]


def test_a_crash_loop_goes_on_with_longer_pauses(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise(DIES)
    until(lambda: len(supervised.lines("scheduler died, starting it again")) >= 4)
    deaths = supervised.lines("scheduler died, starting it again")[:4]
    assert [row["pause_seconds"] for row in deaths] == [0.1, 0.2, 0.4, 0.5]
    assert [row["restarts"] for row in deaths] == [1, 2, 3, 4]
    assert not any("cause" in row for row in deaths)
    assert supervised.process.poll() is None


def test_a_hanging_child_is_killed_and_started_again(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise(HANGS_STUBBORNLY, hang_seconds=1.0)
    until(lambda: len(supervised.pids()) == 2)
    death = supervised.lines("scheduler died, starting it again")[0]
    assert death["hung"] is True
    assert "cause" not in death


def test_sigterm_ends_both(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise(LIVES)
    until(lambda: supervised.pids())
    assert supervised.end() == 0
    assert not alive(supervised.pids()[0])


def test_sigterm_during_a_pause_starts_nothing_more(supervise: Callable[..., Supervised]) -> None:
    supervised = supervise(DIES)
    until(lambda: len(supervised.lines("scheduler died, starting it again")) >= 3)
    assert supervised.end() == 0
    assert supervised.children() == []


def test_orphans_are_reaped_and_no_zombie_stays(supervise: Callable[..., Supervised], tmp_path: Path) -> None:
    supervised = supervise(SPAWNS)
    until(lambda: (tmp_path / "log0.proof").exists())
    os.kill(supervised.pids()[0], signal.SIGKILL)
    until(lambda: len(supervised.pids()) == 2)
    until(lambda: "Z" not in supervised.children())
    assert len(supervised.pids()) == 2


def test_the_real_scheduler_comes_back_after_a_kill(tmp_path: Path) -> None:
    """`alise-scheduler supervise` itself: restart count in the child's metric, socket served again."""
    import urllib.request

    env = {**os.environ, "ALISE_SOCKET_DIR": str(tmp_path / "sock"), "ALISE_HTTP_PORT": "0", "ALISE_HTTP_HOST": "127.0.0.1"}
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "alise_scheduler", "supervise"], stderr=stream, env=env)

    def started() -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [row for row in rows if row["message"] == "http listens"]

    try:
        until(lambda: len(started()) == 1)
        os.kill(started()[0]["pid"], signal.SIGKILL)
        until(lambda: len(started()) == 2)
        with urllib.request.urlopen(f"http://127.0.0.1:{started()[1]['http_port']}/metrics", timeout=10) as answer:
            assert "alise_scheduler_restarts_total 1.0" in answer.read().decode()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0
        assert not alive(started()[1]["pid"])
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_killed_supervisor_leaves_no_scheduler_process_even_if_that_hangs(tmp_path: Path) -> None:
    env = {**os.environ, "ALISE_SOCKET_DIR": str(tmp_path / "sock"), "ALISE_HTTP_PORT": "0", "ALISE_HTTP_HOST": "127.0.0.1"}
    log = tmp_path / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "alise_scheduler", "supervise"], stderr=stream, env=env)

    def pids() -> list[int]:
        rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        return [row["pid"] for row in rows if row["message"] == "scheduler started"]

    try:
        until(lambda: len(pids()) == 1)
        os.kill(pids()[0], signal.SIGSTOP)
        process.kill()
        until(lambda: not alive(pids()[0]))
    finally:
        process.kill()
        process.wait()
        for pid in pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_background_process_ends_with_the_process_that_started_it() -> None:
    child = "from alise_scheduler.predictor.training.background import step_back\nstep_back(); print(flush=True); input()"
    starts = (
        f"import subprocess, sys\nc = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
    )
    starts += "c.stdout.readline(); print(c.pid, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", starts], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        parent.kill()
    until(lambda: not alive(pid))


@pytest.mark.parametrize(
    ("previous", "lived", "expected"),
    [
        pytest.param(0.0, 0.0, FIRST_PAUSE_SECONDS, id="the first death waits a little"),
        pytest.param(1.0, 0.5, 2.0, id="a young death doubles it"),
        pytest.param(4.0, 0.5, 5.0, id="up to the longest"),
        pytest.param(5.0, HEALTHY_SECONDS, FIRST_PAUSE_SECONDS, id="a healthy life starts over"),
    ],
)
def test_the_pause_before_a_restart(previous: float, lived: float, expected: float) -> None:
    assert next_pause(previous, lived, 5.0) == expected


def test_the_heart_beats_about_once_a_second() -> None:
    read, write = os.pipe()
    moments = iter([0.0, 0.5, 1.0, 1.5, 2.1])
    heart = Heartbeat(write, lambda: next(moments))
    for _ in range(5):
        heart()
    assert os.read(read, 100) == b"..."
    os.close(read)
    os.close(write)


def test_the_child_has_this_environment_without_what_the_supervisor_tells() -> None:
    made = child_environ({"PATH": "/bin", "ALISE_HEARTBEAT_FD": "7", "ALISE_RESTARTS": "3"})
    assert made.keys() - {"GLIBC_TUNABLES"} == {"PATH"}


def test_the_childs_memory_is_one_heap_unless_the_variable_is_set() -> None:
    assert "arena_max=1" in child_environ({})["GLIBC_TUNABLES"]
    assert child_environ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=4"})["GLIBC_TUNABLES"] == "glibc.malloc.arena_max=4"

"""SIGTERM before the engine serves, and a drain of an engine that does not."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from alise_contract.names import CONTROL_SOCKET
from alise_engine.serve import tiny_model
from alise_engine.serve.cli import main
from alise_engine.serve.starting import _parents, descendants

START_SECONDS = 120.0
# Less than vLLM's own shutdown takes, and enough for a busy machine.
STOP_SECONDS = 15.0


def eventually(true: Callable[[], bool], seconds: float, what: str) -> None:
    deadline_seconds = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline_seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def session(leader: int) -> list[str]:
    """The processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            name, _, fields = stat.read_text().rpartition(")")
            if int(fields.split()[3]) == leader and fields.split()[0] not in "ZX":
                found.append(f"{name})")
    return found


def test_descendants_are_the_children_and_theirs() -> None:
    assert descendants({2: 1, 3: 2, 4: 3, 5: 1, 6: 4}, root=2) == [3, 4, 6]


@pytest.mark.process
def test_a_process_whose_name_is_no_text_is_found_like_any_other() -> None:
    """The kernel cuts a name after 15 bytes, in the middle of a character if need be."""
    rename = "import ctypes, sys; ctypes.CDLL(None).prctl(15, b'\\xc3', 0, 0, 0); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", rename], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as named:
        assert named.stdout is not None
        named.stdout.readline()
        assert _parents()[named.pid] == os.getpid()


@pytest.mark.process
def test_a_drain_does_not_load_torch_which_takes_seconds() -> None:
    code = "import sys; from alise_engine.serve import cli; print(sorted({'torch', 'vllm'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout == "[]\n"


def test_without_a_socket_there_is_nothing_to_drain(tmp_path: Path) -> None:
    assert main(["drain", "--alise-socket-dir", str(tmp_path), "--timeout-seconds", "60"]) == 0


def test_behind_a_socket_that_a_killed_engine_left_there_is_nothing_to_drain(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / CONTROL_SOCKET))
    assert main(["drain", "--alise-socket-dir", str(tmp_path), "--timeout-seconds", "60"]) == 0


@contextlib.contextmanager
def starting(model: Path, folder: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    log = folder / "engine.log"
    command = [sys.executable, "-m", "alise_engine.serve.cli", "serve", str(model), "--port", "0", "--max-model-len", "512"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
    environ |= {"ALISE_SOCKET_DIR": str(folder / "sock"), "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield process, log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


# What the log says at a moment of the start.
MOMENTS = [
    pytest.param("", id="at once"),
    pytest.param("non-default args", id="the server has read its flags"),
    pytest.param("Initializing a V1 LLM engine", id="EngineCore begins"),
]


@pytest.mark.engine
@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_ends_a_start_and_everything_it_has_started(tmp_path: Path, moment: str) -> None:
    with starting(tiny_model.write_model(tmp_path / "tiny"), tmp_path) as (process, log):
        eventually(lambda: moment in log.read_text(errors="replace"), START_SECONDS, f"{moment!r} in the log")
        assert process.poll() is None
        process.terminate()
        # -15: the interpreter has not come to our code yet.
        assert process.wait(STOP_SECONDS) in (128 + signal.SIGTERM, -signal.SIGTERM)
        eventually(lambda: not session(process.pid), STOP_SECONDS, "no process of the engine is left")

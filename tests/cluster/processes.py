"""Start background processes, find them again, and end them and nothing else.

A process of ours carries the path of its cluster's folder in its environment, for as long as it exists; its
children inherit it. So nothing has to be written down in time, no process id can go stale, and what another user or cluster runs is
never taken for ours. Signals go through a pidfd that was opened before the environment was checked. `control_plane.py`, `node.py` and
`footprint.py` call it.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError, NotReady
from tests.cluster.state import State

STATE_VARIABLE = "ALISE_CLUSTER_STATE"
NAME_VARIABLE = "ALISE_CLUSTER_PROCESS"
POLL_SECONDS = 0.05
LOG_TAIL_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Found:
    """A live process of ours: the name it was started under (children bear their parent's), and its id."""

    name: str
    pid: int


def start(state: State, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
    """Start `argv` in the background, its output in `logs/NAME.log`. Raises ClusterError when it cannot be started."""
    environment = {**os.environ, **(env or {}), STATE_VARIABLE: str(state.folder), NAME_VARIABLE: name}
    try:
        with (state.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=state.folder,
                start_new_session=True,
            )
    except OSError as error:
        raise ClusterError(f"cannot start {name} ({argv[0]}): {error}") from error


def find(state: State) -> list[Found]:
    """Every live process of this cluster, in the order of their ids. A zombie has no environment and is not alive."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (name := _name_of(int(entry), state)) is not None:
            found.append(Found(name, int(entry)))
    return sorted(found, key=lambda process: process.pid)


def _name_of(pid: int, state: State) -> str | None:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended meanwhile, or is another user's
        return None
    if f"{STATE_VARIABLE}={state.folder}".encode() not in variables:
        return None
    prefix = f"{NAME_VARIABLE}=".encode()
    return next((item[len(prefix) :].decode() for item in variables if item.startswith(prefix)), "")


def end(state: State, names: Collection[str] | None = None, *, grace_seconds: float = 0.0, timeout_seconds: float = 30.0) -> None:
    """End the cluster's processes (all, or those named): SIGTERM first when there is a grace, then SIGKILL until none is left.

    Raises ClusterError when a process is still there at the deadline (one stuck in the kernel).
    """

    def alive() -> list[Found]:
        return [process for process in find(state) if names is None or process.name in names]

    if grace_seconds > 0:
        for process in alive():
            _signal(process.pid, state, signal.SIGTERM)
        wait_until(lambda: not alive(), timeout_seconds=grace_seconds)

    def killed() -> bool:
        left = alive()
        for process in left:
            _signal(process.pid, state, signal.SIGKILL)
        return not left

    if not wait_until(killed, timeout_seconds=timeout_seconds):
        raise ClusterError(f"still alive {timeout_seconds:g} s after SIGKILL: {', '.join(f'{p.name} (pid {p.pid})' for p in alive())}")


def _signal(pid: int, state: State, number: signal.Signals) -> None:
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if _name_of(pid, state) is not None:
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def kill_pid(pid: int, timeout_seconds: float) -> None:
    """SIGKILL one process that the caller knows to be ours, and wait until it is gone or the time has run out."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        select.select([handle], [], [], timeout_seconds)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def wait_until(condition: Callable[[], bool], *, timeout_seconds: float) -> bool:
    """Whether the condition came true before the time was over."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def wait_ready(
    state: State, what: str, condition: Callable[[], bool], processes: Mapping[str, "subprocess.Popen[bytes]"], *, timeout_seconds: float
) -> None:
    """Wait for the condition. Raises NotReady at once when one of the processes ended, or at the deadline, with the log's tail."""

    def ready() -> bool:
        for name, process in processes.items():
            if process.poll() is not None:
                raise NotReady(f"{name} ended with status {process.returncode} before {what}:\n{log_tail(state, name)}")
        return condition()

    if not wait_until(ready, timeout_seconds=timeout_seconds):
        tails = "\n".join(f"--- {name}\n{log_tail(state, name)}" for name in processes)
        raise NotReady(f"waited {timeout_seconds:g} s in vain for: {what}. Logs are in {state.logs}.\n{tails}")


def log_tail(state: State, name: str) -> str:
    """The end of a process's log, for error messages."""
    try:
        return (state.logs / f"{name}.log").read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].rstrip()
    except OSError as error:
        return f"(no log: {error})"

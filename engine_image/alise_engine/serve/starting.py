"""What SIGTERM and SIGINT do until the server serves: end the process and everything it has started, at once.

There is nothing to save before the server serves, so nothing is asked to leave here. Once it serves, vLLM's own handlers on the event loop
take over, which let open requests end. `cli.py` calls it.
"""

import os
import signal
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Final

_ENDS: Final = (signal.SIGTERM, signal.SIGINT)
# Python's helper process: when it is the last one left it removes shared memory that the others left behind, and ends.
_TIDIES_UP: Final = b"multiprocessing.resource_tracker"


def end_on_signals() -> None:
    """Installs the handlers; to be called in the main thread, before anything takes long."""
    for number in _ENDS:
        signal.signal(number, _end)


def descendants(parents: Mapping[int, int], root: int) -> list[int]:
    """Returns the processes below `root`, given each process's parent."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    level = [root]
    while level:
        level = [child for pid in level for child in children.get(pid, [])]
        found += level
    return found


def _end(number: int, _frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), b"alise-engine: ended while it was starting\n")
    # Again, as long as there are any: one may just have started another.
    while pids := [pid for pid in descendants(_parents(), os.getpid()) if not _tidies_up(pid)]:
        _kill(pids)
    os._exit(128 + number)


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def _tidies_up(pid: int) -> bool:
    try:
        return _TIDIES_UP in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _parents() -> dict[int, int]:
    """Returns the parent of every running process, without zombies."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may hold anything.
                state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            except OSError:
                continue
            if state not in b"ZX":
                found[int(entry.name)] = int(parent)
    return found

"""A control group of our own in every hierarchy: all pods live below it, so the processes in it are ours whatever became of containerd.

`footprint.py` calls it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.processes import kill_pid, wait_until

REMOVE_SECONDS = 30.0


def hierarchies(mounts: str) -> list[Path]:
    """Where control groups are mounted, from the text of `/proc/self/mounts`; both versions."""
    return [Path(fields[1]) for line in mounts.splitlines() if (fields := line.split())[2] in ("cgroup", "cgroup2")]


def _mounted() -> list[Path]:
    return hierarchies(Path("/proc/self/mounts").read_text(encoding="utf-8"))


def create(name: str) -> None:
    """Make the group everywhere, able to hold processes: version 1 wants cpuset filled in, version 2 wants controllers handed down."""
    for top in _mounted():
        group = top / name
        group.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            inherited = top / setting
            if inherited.exists() and (group / setting).exists():
                (group / setting).write_text(inherited.read_text())
        if (group / "cpu.shares").exists():
            # What kubelet gives its pods on a node of this size. The default is one process's worth, for all of them together.
            (group / "cpu.shares").write_text(str(1024 * (os.cpu_count() or 1)))
        if (top / "cgroup.controllers").exists() and top == Path("/sys/fs/cgroup"):
            controllers = " ".join(f"+{controller}" for controller in (top / "cgroup.controllers").read_text().split())
            for folder in (top, group):
                (folder / "cgroup.subtree_control").write_text(controllers)


def pids(name: str) -> set[int]:
    """The processes in the group and below it."""
    found = set[int]()
    for folder in _folders(name):
        try:
            found.update(int(line) for line in (folder / "cgroup.procs").read_text().split())
        except OSError:  # the folder went away meanwhile
            continue
    return found - {0}


def remove(name: str) -> None:
    """Kill what is in the group and remove it. Raises ClusterError when something survives."""

    def gone() -> bool:
        for pid in pids(name):
            kill_pid(pid, timeout_seconds=1.0)
        for folder in _folders(name):
            try:
                folder.rmdir()
            except OSError:  # still busy: the kernel lets go of a dead process a moment later
                continue
        return not any(_folders(name))

    if not wait_until(gone, timeout_seconds=REMOVE_SECONDS):
        left = ", ".join(str(folder) for folder in _folders(name))
        raise ClusterError(f"control groups still in use after {REMOVE_SECONDS:g} s: {left}; processes {sorted(pids(name))}")


def _folders(name: str) -> Iterator[Path]:
    """Deepest first, so that they can be removed in this order."""
    for top in _mounted():
        group = top / name
        if group.is_dir():
            yield from sorted((path for path in group.rglob("*") if path.is_dir()), key=lambda path: -len(path.parts))
            yield group

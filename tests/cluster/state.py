"""A cluster's own folder. Everything a cluster leaves on the machine is found again from here, after a crash too.

`$ALISE_CACHE/clusters/<name>/`      a cluster that outlives the command that started it (`up` … `down`)
`$ALISE_CACHE/clusters/owned/<id>/`  a cluster that ends with the process that started it, which holds `<id>.lock`

`cluster.py`, `control_plane.py` and `footprint.py` use it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.cluster.cache import clusters_dir, locked
from tests.cluster.errors import ClusterError

DEFAULT_NAME = "local"
OWNED = "owned"
GUARD = "guard"


@dataclass(frozen=True, slots=True)
class State:
    """Where one cluster keeps its keys, data, logs and records."""

    folder: Path

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "admin.kubeconfig"

    @property
    def logs(self) -> Path:
        """One log file per process."""
        return self.folder / "logs"

    @property
    def sockets(self) -> Path:
        """Unix sockets lie apart: the kernel takes paths of 107 bytes, and the cache's own may be longer. Removed with the folder."""
        return Path("/run") / f"alise-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]}"

    @property
    def lock(self) -> Path:
        """Beside the folder, so that it outlives the folder's removal."""
        return self.folder.with_name(self.folder.name + ".lock")

    def create(self) -> None:
        """Make the folder, readable by its owner only: it holds keys."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.sockets, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def named(name: str = DEFAULT_NAME) -> State:
    """The state of the cluster with this name. Raises ClusterError for a name that is no plain word."""
    if name == OWNED or not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?", name):
        raise ClusterError(
            f"cluster name {name!r} is not usable: take 1 to 20 lower-case letters, digits and dashes, like `local`; {OWNED!r} is taken"
        )
    return State(clusters_dir() / name)


def new_owned() -> tuple[State, IO[str]]:
    """A fresh state and the lock that says its owner is alive; close the lock when the cluster is gone."""
    parent = clusters_dir() / OWNED
    parent.mkdir(parents=True, exist_ok=True)
    with locked(parent / GUARD):  # or a sweep could see the lock file before it is locked
        state = State(Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent)))
        lock = state.lock.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    state.create()
    return state, lock


def abandoned() -> Iterator[State]:
    """States whose owner died without cleaning up; no owner can appear while the caller goes over them."""
    parent = clusters_dir() / OWNED
    if not parent.is_dir():
        return
    with locked(parent / GUARD):
        for lock_path in sorted(parent.glob("*.lock")):
            with lock_path.open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield State(lock_path.with_suffix(""))
                lock_path.unlink(missing_ok=True)

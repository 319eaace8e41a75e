"""Where built and downloaded things lie, and the lock that keeps two runs from building the same one.

`build.py`, `packages.py`, `image_build.py` and the tools of `tests/tools` ask it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_dir() -> Path:
    """`$ALISE_CACHE`, by default `~/.cache/alise`."""
    chosen = os.environ.get("ALISE_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else Path.home() / ".cache" / "alise"


def clusters_dir() -> Path:
    """Where the clusters of this tool keep what is theirs, their kubeconfigs among it."""
    return cache_dir() / "clusters"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file for the block; the kernel lets it go when the process dies, so no lock outlives a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

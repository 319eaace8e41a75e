"""The cause of an unexpected end: EngineCore writes its error to a file; the server prints it as its last line and exits with 1.

Kubernetes shows the end of a container's log only for an exit code other than 0. vLLM's server ends with 0 when EngineCore has died.
`compat/patches.py` writes the file, and `serve/cli.py` reads it.
"""

import os
from pathlib import Path
from typing import Final

from alise_contract.names import SOCKET_DIR, SOCKET_DIR_ENV

FILE: Final = "last-words"
# Of the kubelet's 2,048 bytes; the rest is for what vLLM logs around it.
MAX_CHARS: Final = 1_000
KILLED: Final = "it was killed; if the node ran out of memory, its log shows that, and a larger memory limit helps"


def leave(error: BaseException) -> None:
    """Writes the error where the server finds it. Never raises: the process is ending already."""
    try:
        _file().write_text(f"{type(error).__name__}: {error}"[:MAX_CHARS])
    except OSError:
        pass


def forget() -> None:
    """Removes what an engine before this one has left."""
    try:
        _file().unlink(missing_ok=True)
    except OSError:
        pass


def last_words() -> str:
    """Returns why EngineCore ended, as far as is known."""
    try:
        said = _file().read_text(errors="replace").strip()
    except OSError:
        said = ""
    return f"EngineCore has ended, and all open requests with it: {said or KILLED}"


def _file() -> Path:
    return Path(os.environ.get(SOCKET_DIR_ENV) or SOCKET_DIR) / FILE

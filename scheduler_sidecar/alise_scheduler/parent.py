"""Ends this process with the one that started it, however that ends: the kernel sends SIGKILL.

The scheduler process calls it under the supervisor (`__main__.py`), and background processes call it under the scheduler process
(`training/background.py`). Without it, a parent that is killed leaves its children behind: a scheduler that hangs keeps its ports, and a
training goes on beside the next one's.
"""

import ctypes
import logging
import os
import signal
from typing import Final

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent() -> None:
    """Asks the kernel for it. A parent that had ended before is not noticed here: its pipes are closed then."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        log.warning("this process may outlive its parent", extra={"detail": os.strerror(ctypes.get_errno())})

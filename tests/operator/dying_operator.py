"""The operator, which kills itself as SIGKILL does, right before one of its writes: `DIE_AT_WRITE` counts them, dry runs included.

`test_killed_operator.py` starts it.
"""

import os
import signal

from alise_operator import __main__ as program
from alise_operator.lease import Lease

DIE_AT_WRITE = "DIE_AT_WRITE"

_require = Lease.require
_left = int(os.environ.get(DIE_AT_WRITE, "0"))


def _require_until_the_end(self: Lease) -> None:
    """What is called before each write."""
    global _left
    _require(self)
    _left -= 1
    if not _left:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Lease.require = _require_until_the_end  # type: ignore[method-assign]
    program.main([])

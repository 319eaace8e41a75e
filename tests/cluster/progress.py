"""One line per step on standard error, with the seconds it took."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


def say(message: str) -> None:
    """Write one line for the person who waits."""
    print(message, file=sys.stderr, flush=True)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, then say how long it took (or that it failed; the exception tells why)."""
    began = time.monotonic()
    print(f"  {title} … ", end="", file=sys.stderr, flush=True)
    try:
        yield
    except BaseException:
        print(f"failed after {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)
        raise
    print(f"{time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)

"""One line per step on standard error, with the seconds it took.

A line that another thread says while a step goes on gets a line of its own; the step is then named again where it ends. The other files of
`tests/cluster` and `tests/tools/run.py` print with it.
"""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
# The step whose line has begun and not ended, if that is the last line.
_open = ""


def say(message: str) -> None:
    """Write one line for the person who waits."""
    _write(message)


def _write(text: str, begins: str = "") -> None:
    """Write a line of its own; or, with `begins`, the beginning of the line of that step."""
    global _open
    with _lock:
        print(("\n" if _open else "") + text, end="" if begins else "\n", file=sys.stderr, flush=True)
        _open = begins


def _finish(title: str, text: str) -> None:
    """End the line of a step, or write it anew if another line came between."""
    global _open
    with _lock:
        line = text if _open == title else ("\n" if _open else "") + f"  {title} … {text}"
        print(line, file=sys.stderr, flush=True)
        _open = ""


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, then say how long it took (or that it failed; the exception tells why)."""
    began = time.monotonic()
    _write(f"  {title} … ", begins=title)
    try:
        yield
    except BaseException as error:
        how = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        _finish(title, f"{how} after {time.monotonic() - began:.1f} s")
        raise
    _finish(title, f"{time.monotonic() - began:.1f} s")

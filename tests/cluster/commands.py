"""Run another program to its end: always with a deadline, its output kept for the error message.

The other files of `tests/cluster` run programs with it.
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import CommandFailed

TAIL_CHARACTERS = 4000


def run(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    text_in: str | None = None,
) -> str:
    """Return what the program printed (both streams). Raises CommandFailed with the tail of it otherwise.

    The program leads its own process group, so that a deadline or Ctrl-C ends its children too.
    """
    merged = None if env is None else {**os.environ, **env}
    try:
        process = subprocess.Popen(
            list(argv),
            cwd=cwd,
            env=merged,
            stdin=subprocess.PIPE if text_in is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"cannot start {argv[0]}: {error}") from error
    try:
        output, _ = process.communicate(text_in, timeout=timeout_seconds)
    except subprocess.TimeoutExpired as error:
        _end_group(process)
        raise CommandFailed(f"`{shlex.join(argv)}` was still running after {timeout_seconds:g} s") from error
    except BaseException:
        _end_group(process)
        raise
    if process.returncode != 0:
        raise CommandFailed(f"`{shlex.join(argv)}` ended with status {process.returncode}:\n{output[-TAIL_CHARACTERS:].rstrip()}")
    return output


def _end_group(process: "subprocess.Popen[str]") -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()

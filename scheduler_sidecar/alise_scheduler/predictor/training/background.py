"""Runs a module in a process of its own at the lowest priority, so that it does not delay admissions. `loop.py` calls it."""

import asyncio
import contextlib
import os
import sys
from typing import Final

from ...parent import end_with_parent

LIMIT_SECONDS: Final = 900.0
_MAX_LOG_CHARS: Final = 500
# Variables that background work does not need.
_SECRETS: Final = frozenset({"ALISE_HISTORY_DSN", "ALISE_HISTORY_KEY"})


class BackgroundError(Exception):
    """The process ended without a result."""


async def run_module(name: str, *arguments: str, given: bytes = b"") -> bytes:
    """Runs `python -m alise_scheduler.predictor.training.NAME ARGUMENTS` and returns what it writes.

    Raises BackgroundError, or TimeoutError after LIMIT_SECONDS.
    """
    kept = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    env = {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = (sys.executable, "-m", f"{__package__}.{name}", *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe, env=env)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            result, errors = await process.communicate(given)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        detail = errors.decode(errors="replace").strip()[-_MAX_LOG_CHARS:]
        raise BackgroundError(f"{name} ended with status {process.returncode}: {detail}")
    return result


def step_back() -> None:
    """Gives this process the lowest priority, lets it be killed first when memory is short, and ends it with the scheduler process.

    Its work can be repeated.
    """
    end_with_parent()
    os.nice(19)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")

"""Rows that outlive what goes wrong: a measurement that fails becomes a row, and so does a process that ends.

`parts.py` and the parts themselves call it.
"""

import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.bench.harness import Row

FAILURE: Final = "failure"
# The exit status of a process that has reported that it found no GPU.
NO_DEVICE: Final = 3


def attempt(what: str, measure: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The rows of a measurement; a row of kind `failure` behind those that it gave before it failed."""
    try:
        yield from measure()
    except Exception as error:
        yield failure(what, error)


def failure(what: str, error: BaseException | str) -> Row:
    """A row that says what failed, in the error's own words, and where."""
    if isinstance(error, str):
        return {"kind": FAILURE, "what": what, "error": error, "trace": ""}
    trace = "".join(traceback.format_exception(error)[-12:])
    return {"kind": FAILURE, "what": what, "error": f"{type(error).__name__}: {error}", "trace": trace}


def of_process(what: str, command: Sequence[str], environment: Mapping[str, str], limit_seconds: float) -> list[Row]:
    """The rows that a command writes to the file which is added to it as `--rows`, also when it ends badly or takes too long.

    Raises SystemExit where it found no GPU.
    """
    ended = ""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.touch()
        try:
            done = subprocess.run([*command, "--rows", str(path)], env=environment, stdout=sys.stderr, timeout=limit_seconds, check=False)
            if done.returncode == NO_DEVICE:
                raise SystemExit(NO_DEVICE)
            if done.returncode:
                ended = f"the process ended with status {done.returncode}; its last words are above"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit_seconds:.0f} s; what it had measured until then counts"
        # A process that was stopped may leave half a line.
        rows = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [*rows, *([failure(what, ended)] if ended else [])]

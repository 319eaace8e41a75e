"""What the sidecar's process is like from outside."""

import os
import subprocess
import sys

_COUNT = """
import alise_scheduler.state
import numpy, os
numpy.ones((400, 400), "f") @ numpy.ones((400, 400), "f")
print(len(os.listdir("/proc/self/task")))
"""


def test_numbers_are_worked_on_by_one_thread() -> None:
    env = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    said = subprocess.run([sys.executable, "-c", _COUNT], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == "1"

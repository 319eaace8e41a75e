"""The wheel of a release, which holds `kubectl alise`: `pip install 'FILE[kubectl]'` installs the plugin. `__main__.py` builds it."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.errors import ClusterError

BUILD_SECONDS = 300.0


def write_wheel(root: Path, committed_at: int, into: Path) -> Path:
    """Build the wheel from the packages below `root`. The same sources and time give the same bytes. Raises ClusterError."""
    words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(into), str(root)]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(committed_at)}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    if done.returncode != 0:
        raise ClusterError(f"the wheel cannot be built: {(done.stderr or done.stdout).strip()[-1000:]}")
    return next(into.glob("*.whl"))

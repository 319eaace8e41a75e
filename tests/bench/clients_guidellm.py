"""GuideLLM in a virtual environment of its own below $ALISE_CACHE, installed once from guidellm.lock: its packages conflict with ours.

`clients.py` calls it.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.cluster.cache import cache_dir, locked

LOCK: Final = Path(__file__).with_name("guidellm.lock")
# Where the CPU build of torch is when no source that pip is configured with has it, as in tests/tools/bootstrap.sh.
TORCH_INDEX: Final = "https://download.pytorch.org/whl/cpu"
INSTALL_SECONDS: Final = 1200.0


def program() -> Path:
    """Returns GuideLLM's program, installed on first use. Raises CalledProcessError when its packages cannot be had."""
    text = LOCK.read_text(encoding="utf-8")
    home = cache_dir() / "guidellm" / hashlib.sha256((text + sys.version).encode()).hexdigest()[:12]
    with locked(home.parent / "lock"):
        done = home / "installed"
        if not done.exists():
            venv.create(home, with_pip=True, clear=True)
            _install(home, text)
            done.touch()
    return home / "bin" / "guidellm"


def _install(home: Path, text: str) -> None:
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    with tempfile.TemporaryDirectory() as folder:
        torch = Path(folder) / "torch.txt"
        torch.write_text(torch_alone(text), encoding="utf-8")
        configured = subprocess.run([*pip, "-r", str(torch)], capture_output=True, timeout=INSTALL_SECONDS)
        if configured.returncode:
            subprocess.run([*pip, "--index-url", index(os.environ), "-r", str(torch)], check=True, timeout=INSTALL_SECONDS)
    subprocess.run([*pip, "-r", str(LOCK)], check=True, timeout=INSTALL_SECONDS)


def torch_alone(lock: str) -> str:
    """Returns torch's entry of a lock with its checksums."""
    found = re.search(r"^torch==[^\n]*\n(?:[ \t]+[^\n]*\n)*", lock, re.MULTILINE)
    if found is None:
        raise ValueError("the lock has no torch: run `make lock`")
    return found[0]


def index(environ: Mapping[str, str]) -> str:
    """Returns the index that TORCH_CPU_INDEX names, or PyTorch's own."""
    return environ.get("TORCH_CPU_INDEX") or TORCH_INDEX

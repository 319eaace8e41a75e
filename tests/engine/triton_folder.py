"""Triton for its interpreter, kept beside the environment: 0.7 GB that only this needs, and that vLLM's CPU build would look at.

`test_fused_int8.py` and `tests/bench/test_gpu_dry_run.py` call it; it downloads once, into $ALISE_CACHE.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

TRITON: Final = "triton==3.7.1"


def triton_folder() -> Path:
    """Where it is, for PYTHONPATH; downloaded when it is asked for first."""
    folder = Path(os.environ.get("ALISE_CACHE", "~/.cache/alise")).expanduser() / TRITON.replace("==", "-")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and moved, so that a run that was stopped leaves no incomplete folder.
        with tempfile.TemporaryDirectory(dir=folder.parent) as aside:
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", f"{aside}/triton", TRITON]
            subprocess.run(command, check=True, timeout=400)
            # Another test may have put one there meanwhile.
            if not folder.exists():
                shutil.move(f"{aside}/triton", folder)
    return folder

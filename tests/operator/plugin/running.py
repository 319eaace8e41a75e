"""Runs `kubectl alise` as a person does, with a kubeconfig and with the kubectl of the cluster tool on PATH.

`test_on_control_plane.py` and `tests/e2e/test_why_waited.py` call it.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.access import user_cluster
from tests.cluster.programs import kubectl_path


def environment(kubeconfig: Path, home: Path) -> Mapping[str, str]:
    """The environment of a person. kubectl keeps what it learned of a cluster in `home`: a new cluster may have the old one's address."""
    folder = Path(kubectl_path(of_user=user_cluster() is not None)).parent
    return {**os.environ, "KUBECONFIG": str(kubeconfig), "HOME": str(home), "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def alise(kubeconfig: Path, home: Path, *arguments: str, timeout_seconds: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """The ended program. It runs in `home`, where it writes its files."""
    command = [sys.executable, "-m", "kubectl_alise", *arguments]
    env = environment(kubeconfig, home)
    return subprocess.run(command, env=env, cwd=home, capture_output=True, text=True, timeout=timeout_seconds, check=False)

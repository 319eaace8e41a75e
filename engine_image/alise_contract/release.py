"""Which release of alise a process belongs to, for `--version` and for the metric `alise_build_info`.

The `metrics.py` of the operator, of the engine and of the scheduler call it, and so do the command lines of `alise-operator` and `kubectl
alise`, the operator's page and the engine's traces. It reads the metadata of the installed package.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import Final

# The same metric in every process, so that one query finds processes of different releases.
BUILD_INFO: Final = "alise_build_info"
BUILD_INFO_HELP: Final = "Always 1. The labels state the process, its release and the version of the contract that it supports"
BUILD_INFO_LABELS: Final = ("component", "version", "contract_version")


def release() -> str:
    """Returns the version of the installed package; `unknown` where it is not installed."""
    try:
        return version("alise")
    except PackageNotFoundError:
        return "unknown"

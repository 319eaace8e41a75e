"""What only a GPU can show: `make bench-gpu`.

First come the parts that need no vLLM (`tests.bench.gpu_standalone`). Where vLLM is installed, the exactness rounds and a decoding engine
follow on both of its model runners; `RUNNER=1` or `RUNNER=2` takes one of them. alise refuses V2 until this has passed. Each part runs in
a process of its own, and a failure of one leaves the others. None of it has met a GPU yet: no figure of it has been measured.
"""

import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from tests.bench import gpu_vllm
from tests.bench.gpu_standalone import figures as standalone
from tests.bench.gpu_standalone import parts
from tests.bench.gpu_standalone.machine import Device
from tests.bench.gpu_standalone.rows import FAILURE, of_process
from tests.bench.harness import ROOT, Figure, Row, Settings

# Ten seeds on two engines, and two decoding runs, with compilation.
_RUNNER_LIMIT_SECONDS: Final = 3600.0


def measure(settings: Settings) -> Iterator[Row]:
    """Rows of all parts. Raises SystemExit with one sentence where there is no GPU, or no such runner."""
    named = os.environ.get("RUNNER", "")
    if named and named not in gpu_vllm.RUNNERS:
        raise SystemExit(f"RUNNER={named} is no model runner of vLLM; use one of {', '.join(gpu_vllm.RUNNERS)}, or none for both")
    try:
        import torch
    except ModuleNotFoundError:
        raise SystemExit(f"bench-gpu needs torch, and {sys.executable} has none; GPU_PYTHON names the Python that has it") from None

    if not torch.cuda.is_available():
        raise SystemExit(f"bench-gpu needs an NVIDIA GPU, and torch {torch.__version__} sees none on this machine")
    for part in parts.PARTS:
        yield from parts.run(part, Device(dry=False))
    if importlib.util.find_spec("vllm") is None:
        print("\nvLLM is not installed for this Python: the exactness rounds and the decoding engine are left out", file=sys.stderr)
        return
    for runner in [named] if named else gpu_vllm.RUNNERS:
        yield from _with_vllm(runner, settings.quick)


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    return [*gpu_vllm.figures(rows), *standalone.figures(rows)]


def failures(rows: Sequence[Row], settings: Settings) -> list[str]:
    """What failed or is wrong, a sentence each."""
    failed = [f"{row['part']}, {row['what']}: {row['error']}" for row in rows if row["kind"] == FAILURE]
    found = [*standalone.wrong(standalone.figures(rows)), *gpu_vllm.wrong(gpu_vllm.figures(rows))]
    return [*failed, *(f"{figure.name} is {figure.value:.6g}, and it must be at most {figure.goal:g}" for figure in found)]


def _with_vllm(runner: str, quick: bool) -> Iterator[Row]:
    command = [sys.executable, "-m", "tests.bench.gpu_vllm", "--runner", runner, *(["--quick"] if quick else [])]
    # The plugin of this checkout, whether it is installed or not.
    paths = os.pathsep.join([str(ROOT), str(ROOT / "engine_image"), *filter(None, [os.environ.get("PYTHONPATH")])])
    rows = of_process(f"model runner V{runner}", command, os.environ | {"PYTHONPATH": paths}, _RUNNER_LIMIT_SECONDS)
    yield from ({"part": "vllm", "runner": runner, **row} for row in rows)

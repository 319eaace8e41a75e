"""The device that the parts run on: a GPU, or in a dry run the CPU, on which every stream is in order and Triton interprets its kernels.

`__main__.py` creates it, and every part gets it.
"""

import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

Tensor = Any

# Written between the timed calls: no cache holds what the call before read, and the host has time to ask for the next one meanwhile.
_FLUSH_BYTES: Final = 1 << 30
_QUERY: Final = "name,driver_version,pcie.link.gen.current,pcie.link.width.current"


@dataclass(frozen=True, slots=True)
class Device:
    """Where it runs. `dry`: on the CPU, with sizes that show whether the code runs and nothing of speed."""

    dry: bool

    @property
    def name(self) -> str:
        return "cpu" if self.dry else "cuda"

    def synchronize(self) -> None:
        if not self.dry:
            import torch

            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], repetitions: int) -> float:
        """The median time that the work takes on the device, after one call that compiles what it needs, with cold caches."""
        import torch

        work()
        if self.dry:
            return statistics.median(_clocked(work) for _ in range(repetitions))
        flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device=self.name)
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repetitions)]
        for start, end in events:
            flush.zero_()
            start.record()
            work()
            end.record()
        self.synchronize()
        return statistics.median(float(start.elapsed_time(end)) for start, end in events) / 1e3

    def host_buffer(self, size_bytes: int) -> Tensor:
        """Host memory that the device copies from and to by itself, each page of it touched."""
        import torch

        return torch.zeros(size_bytes, dtype=torch.uint8, pin_memory=not self.dry)

    def free_bytes(self) -> int:
        import torch

        return 1 << 30 if self.dry else int(torch.cuda.mem_get_info()[0])

    def make_copies(self, device: Any) -> Any:
        """The engine's own copies of a GPU; in a dry run the same ones over streams that are always in order."""
        import torch

        from alise_engine.kv.staged import StagedCopies, on_cuda

        if self.dry:
            return StagedCopies(InOrder(), lambda size: torch.empty(size, dtype=torch.uint8))
        return on_cuda(device)

    def describe(self) -> dict[str, str]:
        """What the figures were measured on."""
        import torch
        import triton

        said = {"device": "cpu (dry run)", "torch": torch.__version__, "triton": triton.__version__}
        if not self.dry:
            said["device"] = torch.cuda.get_device_name()
            with suppress(OSError, subprocess.SubprocessError):
                command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
                answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
                said["nvidia-smi"] = answer.strip().splitlines()[0]
        return said


class InOrder:
    """`staged.Streams` on a CPU: both streams do what they are asked at once, so nothing has to wait."""

    def run(self, side: bool, work: Callable[[], None]) -> None:
        work()

    def record(self, side: bool) -> float:
        return time.perf_counter()

    def wait(self, side: bool, event: float) -> None:
        pass

    def elapsed_us(self, start: float, end: float) -> float | None:
        return (end - start) * 1e6

    def synchronize(self) -> None:
        pass


def _clocked(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

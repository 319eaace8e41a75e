"""Allocates host memory for a worker's store: bounded, on large pages, near its device, and pinned where a GPU copies to it.

On a CPU it is reserved and not taken: a page becomes resident when it is first written to, on the memory node of the thread that writes.
For a GPU the whole piece is locked in memory at start, preferably on the node that the GPU hangs on. What the system refuses (some
container runtimes forbid `mbind`) costs speed only, and is logged. `worker.py` calls it once, at start.
"""

import ctypes
import mmap
import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import torch
from vllm.logger import init_logger

from ..errors import ConfigError

logger = init_logger("vllm.alise.memory")

Tensor = Any

_PREFERRED: Final = 1
_MBIND: Final = {"x86_64": 237, "aarch64": 235}


def allocate(size_bytes: int, device: Any) -> Tensor:
    """`uint8 [size_bytes]`. Raises ConfigError when memory for a GPU's copies cannot be locked."""
    if size_bytes == 0:
        return torch.empty(0, dtype=torch.uint8)
    pages = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):
        pages.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer(pages, dtype=torch.uint8)
    if device.type == "cuda":
        node = node_of(device)
        if node is not None and not prefer_node(memory, node):
            logger.warning("alise: the host store cannot be bound to memory node %d, that of %s; copies may be slower", node, device)
        _pin(memory)
    return memory


def prefer_node(memory: Tensor, node: int) -> bool:
    """Asks the system for pages of that memory node from now on. Returns False when it refuses or cannot."""
    number = _MBIND.get(platform.machine())
    if number is None or node >= 64:
        return False
    # A page is bound as a whole; the piece begins on one.
    mask = ctypes.c_ulong(1 << node)
    libc = ctypes.CDLL(None, use_errno=True)
    address, length = ctypes.c_void_p(memory.data_ptr()), ctypes.c_ulong(memory.numel())
    return bool(libc.syscall(number, address, length, _PREFERRED, ctypes.byref(mask), ctypes.c_ulong(65), 0) == 0)


def node_of(device: Any) -> int | None:
    """Returns the memory node of a GPU; None if there is only one node, or it is unknown."""
    properties = torch.cuda.get_device_properties(device)
    address = f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:{properties.pci_device_id:02x}.0"
    return _node_in(Path("/sys/bus/pci/devices") / address / "numa_node")


def _node_in(path: Path) -> int | None:
    try:
        node = int(path.read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def _pin(memory: Tensor) -> None:
    status = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), memory.numel(), 0)
    if int(status) != 0:
        raise ConfigError(
            f"the host store of {memory.numel()} bytes cannot be locked in memory (CUDA error {int(status)}): make it smaller, "
            f"or give the container more memory (the machine has {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')} bytes)"
        )

"""A worker's half of the engine with a KV cache of random numbers: what the connector builds in a vLLM worker, without vLLM.

`copies.py` and `decoding.py` build one. Where the engine's memory cannot be locked, it replaces `alise_engine.kv.host_memory.allocate` for
the process.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.bench.gpu_standalone.machine import Device
from tests.bench.gpu_standalone.rows import failure
from tests.bench.harness import Row

Tensor = Any


@dataclass(frozen=True, slots=True)
class Store:
    """The engine's `WorkerSide` over `cache`, the codecs it has, and how long a layer's block is with each."""

    side: Any
    cache: Mapping[str, Tensor]
    shape: Any
    row_bytes: Mapping[str, int]
    # What went wrong on the way, and was gone round.
    failures: tuple[Row, ...]

    def block_bytes(self, codec: str) -> int:
        """Of a block in all layers."""
        return len(self.cache) * self.row_bytes[codec]


def make_cache(device: Device, layers: int, blocks: int, heads: int, block_size: int, head_dim: int) -> dict[str, Tensor]:
    """bf16, in FlashAttention's layout: tokens before heads."""
    import torch

    sizes = (blocks, block_size, heads, 2 * head_dim)
    return {f"l{number:03}": torch.randn(sizes, device=device.name).bfloat16().transpose(1, 2) for number in range(layers)}


def make_store(where: Device, cache: Mapping[str, Tensor], host_blocks: int) -> Store:
    """With room for this many blocks of 16-bit KV on the host."""
    from alise_engine.kv import host_memory
    from alise_engine.kv.fused_int8 import FusedInt8
    from alise_engine.kv.int8 import RAW, Codec, KeyLayout, LayerShape
    from alise_engine.kv.slabs import Geometry
    from alise_engine.kv.worker import WorkerSide

    blocks, heads, block_size, both = next(iter(cache.values())).shape
    shape = LayerShape(heads, block_size, both // 2, next(iter(cache.values())).dtype, KeyLayout.PER_TOKEN)
    codecs: dict[str, Codec] = {RAW.name: RAW, FusedInt8.name: FusedInt8()}
    row_bytes = {name: codec.row_bytes(shape) for name, codec in codecs.items()}
    geometry = Geometry.of(len(cache) * host_blocks * row_bytes[RAW.name], row_bytes)
    side = WorkerSide(shape, row_bytes[RAW.name], geometry, codecs, where.make_copies)
    failures: list[Row] = []
    try:
        side.register(dict(cache), blocks)
    except Exception as error:
        # Memory that cannot be locked, or that a driver refuses: the copies can be measured from what torch has pinned.
        failures.append(failure("the engine's own host memory", error))

        def allocate(size_bytes: int, device: Any) -> Tensor:
            return where.host_buffer(size_bytes)

        host_memory.allocate = allocate
        side.register(dict(cache), blocks)
    return Store(side, cache, shape, row_bytes, tuple(failures))

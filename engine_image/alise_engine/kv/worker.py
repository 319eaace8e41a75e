"""Carries out the workers' half of the connector: copies between one worker's KV cache and its part of the host store.

`connector.py` calls it, in each worker's process.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from vllm.logger import init_logger

from ..errors import ConfigError
from . import host_memory
from .copies import Blocks, Copies, HostCopies
from .host_pool import HostPool
from .int8 import Codec, LayerShape
from .slabs import Geometry
from .work import AliseMetadata, Drop, Load, Save, Spent

logger = init_logger("vllm.alise.worker")


class WorkerSide:
    """`geometry` and `codecs` say how its store is cut; `make_copies` gets the device of the KV cache."""

    def __init__(
        self,
        shape: LayerShape,
        layer_block_bytes: int,
        geometry: Geometry,
        codecs: Mapping[str, Codec],
        make_copies: Callable[[Any], Copies] = lambda device: HostCopies(threaded=False),
    ) -> None:
        self.shape = shape
        self.pool: HostPool
        self._geometry = geometry
        self._codecs = dict(codecs)
        self._make_copies = make_copies
        self._copies: Copies
        self._layer_block_bytes = layer_block_bytes
        self._layers: tuple[Any, ...] = ()
        # Kernel blocks per block: a backend may cut vLLM's blocks smaller.
        self._ratio = 1
        self._errors: set[int] = set()
        self._host_eviction_us = 0.0
        # By request: the place of the first block that a slice of its prefetch did not find.
        self._missing: dict[str, int] = {}

    def register(self, kv_caches: dict[str, Any], num_blocks: int) -> None:
        """Raises ConfigError when a layer's tensor is not of the shape that the bytes are counted by."""
        self._layers = tuple(tensor if tensor.element_size() > 1 else tensor.view(torch.uint8) for _, tensor in sorted(kv_caches.items()))
        for name, tensor in kv_caches.items():
            self._ratio = tensor.shape[0] // num_blocks
            block_bytes = tensor[0].numel() * tensor.element_size() * self._ratio
            if block_bytes != self._layer_block_bytes:
                raise ConfigError(
                    f"layer {name}: a KV block of shape {tuple(tensor.shape[1:])} has {block_bytes} bytes, not {self._layer_block_bytes}"
                )
        device = self._layers[0].device
        self._copies = self._make_copies(device)
        self.pool = HostPool(
            self._geometry, len(self._layers), lambda size: host_memory.allocate(size, device), lambda: self._copies.settle()
        )
        logger.info(
            "alise: %d layers, KV blocks of %s, host store of %d slabs of %d bytes, %s",
            *(len(self._layers), self.shape, self._geometry.slabs, self._geometry.slab_bytes, self._copies),
        )

    def begin_step(self, work: AliseMetadata) -> None:
        """Carries out drops and saves, before anything is overwritten."""
        self._copies.begin_step()
        for write in work.writes:
            self.write(write)
        if self._copies.starts_early:
            self._load_all(load for load in work.loads if load.ahead)

    def start_loads(self, work: AliseMetadata) -> None:
        """Starts loads: before the forward pass those that it needs, the others once it has been launched."""
        self._load_all(load for load in work.loads if not (load.ahead and self._copies.starts_early))

    def _load_all(self, loads: Iterable[Load]) -> None:
        for load in loads:
            self.load(load)

    def write(self, write: Drop | Save) -> None:
        if isinstance(write, Save):
            self._save(write)
            return
        began = time.perf_counter()
        self.pool.drop(write.request_id)
        self._missing.pop(write.request_id, None)
        if write.evicted:
            self._host_eviction_us += (time.perf_counter() - began) * 1e6

    def _save(self, write: Save) -> None:
        chunk = self.pool.reserve(write.request_id, write.first_block, len(write.block_ids), write.codec)
        if chunk is None:
            logger.error("alise: the host store is full at %d bytes; %s will be recomputed", self.pool.used_bytes, write.request_id)
            return
        index, codec = self._index(write.block_ids), self._codecs[write.codec]
        self._copies.save(Blocks(self._layers, index, chunk, codec, self.shape, write.valid_tokens), write.beside)

    def load(self, load: Load) -> None:
        """Fills the blocks; those that the store does not have are reported, and vLLM recomputes them."""
        end = self._fill(load)
        if load.ahead:
            if end < load.first_block + len(load.block_ids):
                self._missing.setdefault(load.request_id, end)
            return
        missing = min(end, self._missing.pop(load.request_id, end))
        self._errors.update(load.block_ids[max(0, missing - load.first_block) :])

    def _fill(self, load: Load) -> int:
        """The place behind the last block that is filled, or will be."""
        end = load.first_block + load.done
        for chunk in self.pool.read(load.request_id, end, load.first_block + len(load.block_ids)):
            if chunk.first_block != end:
                break
            ids = load.block_ids[chunk.first_block - load.first_block : chunk.end_block - load.first_block]
            self._copies.load(Blocks(self._layers, self._index(ids), chunk, self._codecs[chunk.codec], self.shape), load.ahead)
            end = chunk.end_block
        return end

    def take_errors(self) -> set[int]:
        errors, self._errors = self._errors, set()
        return errors

    def take_spent(self) -> Spent:
        spent = self._copies.take_spent()
        spent.host_eviction_us, self._host_eviction_us = self._host_eviction_us, 0.0
        return spent

    def settle(self) -> None:
        self._copies.settle()

    def close(self) -> None:
        self._copies.close()

    def _index(self, block_ids: tuple[int, ...]) -> Any:
        ids = torch.tensor(block_ids, dtype=torch.long)
        return (ids[:, None] * self._ratio + torch.arange(self._ratio)).view(-1)

"""The workers' half of the connector: copies between one worker's KV cache tensors and its part of the host store."""

import time
from typing import Any

import torch
from vllm.logger import init_logger

from ..errors import ConfigError
from .host_pool import Chunk, HostPool
from .int8 import INT8, RAW, Codec, Int8, LayerShape
from .work import Drop, Load, Save, Spent

logger = init_logger("vllm.alise.worker")


class WorkerSide:
    """One worker's KV cache tensors and its part of the store."""

    def __init__(self, shape: LayerShape, layer_block_bytes: int, pool: HostPool, int8: Int8 = INT8) -> None:
        self.shape = shape
        self.pool = pool
        self._codecs: dict[str, Codec] = {codec.name: codec for codec in (RAW, int8)}
        self._layer_block_bytes = layer_block_bytes
        self._layers: list[Any] = []
        # Kernel blocks per block: a backend may cut vLLM's blocks smaller.
        self._ratio = 1
        self._errors: set[int] = set()
        self._spent = Spent()
        # By request: the place of the first block that a slice of its prefetch did not find.
        self._missing: dict[str, int] = {}

    def register(self, kv_caches: dict[str, Any], num_blocks: int) -> None:
        """Raises ConfigError when a layer's tensor is not of the shape that the bytes are counted by."""
        self._layers = [tensor if tensor.element_size() > 1 else tensor.view(torch.uint8) for _, tensor in sorted(kv_caches.items())]
        for name, tensor in kv_caches.items():
            self._ratio = tensor.shape[0] // num_blocks
            block_bytes = tensor[0].numel() * tensor.element_size() * self._ratio
            if block_bytes != self._layer_block_bytes:
                raise ConfigError(
                    f"layer {name}: a KV block of shape {tuple(tensor.shape[1:])} has {block_bytes} bytes, not {self._layer_block_bytes}"
                )
        logger.info("alise: %d layers, KV blocks of %s, host store %d bytes", len(self._layers), self.shape, self.pool.limit_bytes)

    def write(self, write: Drop | Save) -> None:
        began = time.perf_counter()
        if isinstance(write, Save):
            self._save(write)
            self._spent.save_us += _us_since(began)
            return
        self.pool.drop(write.request_id)
        self._missing.pop(write.request_id, None)
        if write.evicted:
            self._spent.host_eviction_us += _us_since(began)

    def _save(self, write: Save) -> None:
        codec, index = self._codecs[write.codec], self._index(write.block_ids)
        rows = torch.empty(len(self._layers), len(write.block_ids), codec.row_bytes(self.shape), dtype=torch.uint8)
        for layer, host in zip(self._layers, rows, strict=True):
            staged = host if layer.device.type == "cpu" else torch.empty_like(host, device=layer.device)
            codec.encode(layer, index, self.shape, write.valid_tokens, staged)
            if staged is not host:
                host.copy_(staged)
        if not self.pool.put(write.request_id, Chunk(write.first_block, write.codec, rows)):
            logger.error("alise: the host store is full at %d bytes; %s will be recomputed", self.pool.used_bytes, write.request_id)

    def load(self, load: Load) -> None:
        """Fills the blocks; those that the store does not have are reported, and vLLM recomputes them."""
        began = time.perf_counter()
        end = self._fill(load)
        self._spent.restore_us += _us_since(began)
        if load.ahead:
            if end < load.first_block + len(load.block_ids):
                self._missing.setdefault(load.request_id, end)
            return
        missing = min(end, self._missing.pop(load.request_id, end))
        self._errors.update(load.block_ids[max(0, missing - load.first_block) :])

    def _fill(self, load: Load) -> int:
        """The place behind the last block that was filled."""
        end = load.first_block + load.done
        for chunk in self.pool.read(load.request_id, end, load.first_block + len(load.block_ids)):
            if chunk.first_block != end:
                break
            ids = load.block_ids[chunk.first_block - load.first_block : chunk.end_block - load.first_block]
            index, codec = self._index(ids), self._codecs[chunk.codec]
            for layer, rows in zip(self._layers, chunk.rows, strict=True):
                codec.decode(rows.to(layer.device), layer, index, self.shape)
            end = chunk.end_block
        return end

    def take_errors(self) -> set[int]:
        errors, self._errors = self._errors, set()
        return errors

    def take_spent(self) -> Spent:
        spent, self._spent = self._spent, Spent()
        return spent

    def _index(self, block_ids: tuple[int, ...]) -> Any:
        ids = torch.tensor(block_ids, dtype=torch.long)
        kernel = (ids[:, None] * self._ratio + torch.arange(self._ratio)).view(-1)
        return kernel.to(self._layers[0].device)


def _us_since(began_seconds: float) -> float:
    return (time.perf_counter() - began_seconds) * 1e6

"""Expresses the KV cache on the device in tokens: its size, and how many are in use. Pure; `progress.py` calls it after each poll."""

from dataclasses import dataclass

from ..wire.calls import Counters, EngineShape


@dataclass(frozen=True, slots=True)
class KvRoom:
    limit_tokens: int
    used_tokens: int
    # Of one number of the cache; 0: unknown.
    bits: int


def kv_room(shape: EngineShape, counters: Counters) -> KvRoom:
    """Returns the room of the KV cache. One block is vLLM's own: it stands for tokens that need no block."""
    blocks = max(0, shape.num_device_blocks - 1)
    used_blocks = max(0, blocks - counters.free_device_blocks)
    return KvRoom(blocks * shape.block_size, used_blocks * shape.block_size, shape.kv_bits)

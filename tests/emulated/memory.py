"""The emulated KV cache: one 64-bit word per token, on the device by block and in host memory by request. Pure.

A word depends on its token and position, and the next token of an answer depends on the words of all tokens before it, read through the
request's block table. So an answer differs from an undisturbed one as soon as a block was lost, restored to another place, or given to
another request too early, just as with a model that attends to its cache. `worker.py` keeps it.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

Words = np.ndarray[Any, np.dtype[np.uint64]]

_MASK: Final = (1 << 64) - 1
_TOKEN: Final = 0x9E3779B97F4A7C15
_POSITION: Final = 0xC2B2AE3D27D4EB4F
_MIX: Final = 0xFF51AFD7ED558CCD


def mixed(value: int) -> int:
    """Returns 64 bits that depend on each bit of the value (the finalizer of MurmurHash3, halved)."""
    value = ((value ^ (value >> 33)) * _MIX) & _MASK
    return value ^ (value >> 33)


def word(token: int, position: int) -> int:
    """Returns the KV of one token."""
    return mixed(((token + 1) * _TOKEN + (position + 1) * _POSITION) & _MASK)


def words(tokens: Sequence[int], first_position: int) -> Words:
    """Returns the KV of consecutive tokens, each as `word` has it."""
    own = (np.asarray(tokens, dtype=np.uint64) + np.uint64(1)) * np.uint64(_TOKEN)
    place = np.arange(first_position + 1, first_position + 1 + len(tokens), dtype=np.uint64) * np.uint64(_POSITION)
    value = own + place
    value = (value ^ (value >> np.uint64(33))) * np.uint64(_MIX)
    result: Words = value ^ (value >> np.uint64(33))
    return result


def attended(values: Words, first_position: int) -> int:
    """Returns what a token that comes after these words has of them: their sum, each by the place it was found at, modulo 2**64."""
    places = np.arange(first_position, first_position + len(values), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return int((values * places).sum(dtype=np.uint64))


class DeviceMemory:
    """Blocks of words."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._cells: Words = np.zeros((blocks, block_size), dtype=np.uint64)

    def write(self, block_ids: Sequence[int], position: int, value: int) -> None:
        self._cells[block_ids[position // self.block_size], position % self.block_size] = value

    def write_many(self, block_ids: Sequence[int], first_position: int, values: Words) -> None:
        positions = np.arange(first_position, first_position + len(values))
        blocks = np.asarray(block_ids)[positions // self.block_size]
        self._cells[blocks, positions % self.block_size] = values

    def attended(self, block_ids: Sequence[int], tokens: int) -> int:
        """Returns what the first words of a request come to."""
        held = self._cells[np.asarray(block_ids[: -(-tokens // self.block_size)], dtype=np.int64)].reshape(-1)[:tokens]
        return attended(held, 0)

    def read_blocks(self, block_ids: Sequence[int]) -> Words:
        """Returns a copy of whole blocks."""
        copy: Words = self._cells[np.asarray(block_ids, dtype=np.int64)]
        return copy

    def write_blocks(self, block_ids: Sequence[int], rows: Words) -> None:
        self._cells[np.asarray(block_ids, dtype=np.int64)] = rows


class HostMemory:
    """Copies of preempted requests, a prefix of each one's blocks. What fits is decided by the scheduler's ledger."""

    def __init__(self) -> None:
        self._rows: dict[str, list[tuple[Words, float]]] = {}

    def save(self, request_id: str, first_block: int, rows: Words, block_bytes: float) -> float:
        """Keeps the blocks from `first_block` on; returns the bytes that go over the link."""
        kept = self._rows.get(request_id, [])[:first_block]
        self._rows[request_id] = kept + [(row, block_bytes) for row in rows]
        return len(rows) * block_bytes

    def load(self, request_id: str, first_block: int, blocks: int) -> tuple[Words, float]:
        """Returns the blocks that are there, of those that were asked for, and the bytes that go over the link."""
        found = self._rows.get(request_id, [])[first_block : first_block + blocks]
        rows = np.stack([row for row, _ in found]) if found else np.zeros((0, 0), dtype=np.uint64)
        return rows, sum(size for _, size in found)

    def drop(self, request_id: str) -> None:
        self._rows.pop(request_id, None)

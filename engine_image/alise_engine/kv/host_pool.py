"""Stores one worker's encoded blocks in host memory, and counts their bytes.

It follows the scheduler's ledger and decides nothing. Its memory is one piece that never grows (`slabs` says which row is where): a
disagreement with the ledger then costs a recompute, not memory that the container does not have. `worker.py` owns it, and `copies.py` reads
and writes its rows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from .slabs import Geometry, Rows, Slabs

Tensor = Any


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive blocks of one request, saved together: a row for each layer and block, layer by layer."""

    first_block: int
    blocks: int
    codec: str
    rows: Rows
    row_bytes: int
    memory: Tensor
    # Blocks of a layer that the rows hold, and how many of them lie before `first_block`.
    held_blocks: int
    skipped_blocks: int = 0

    @property
    def end_block(self) -> int:
        return self.first_block + self.blocks

    def pieces(self, layer: int) -> Iterator[tuple[int, Tensor]]:
        """A layer's rows where they lie side by side: (block, `uint8 [blocks, row_bytes]` in the store itself), in order of the blocks.

        Good until the next `reserve`, which may move them.
        """
        start = layer * self.held_blocks + self.skipped_blocks
        offsets = self.rows.offsets[start : start + self.blocks]
        cuts = np.flatnonzero(np.diff(offsets) != self.row_bytes) + 1
        for first, end in zip([0, *cuts.tolist()], [*cuts.tolist(), self.blocks], strict=True):
            length = (end - first) * self.row_bytes
            piece = self.memory[int(offsets[first]) :][:length]
            yield self.first_block + first, piece.view(end - first, self.row_bytes)


class HostPool:
    """Chunks by request. `settle` is called before rows move: copies that are under way must be over then."""

    def __init__(
        self,
        geometry: Geometry,
        layers: int,
        allocate: Callable[[int], Tensor] = lambda size: torch.empty(size, dtype=torch.uint8),
        settle: Callable[[], None] = lambda: None,
    ) -> None:
        self.limit_bytes = geometry.usable_bytes
        self.used_bytes = 0
        self._layers = layers
        self._row_bytes = geometry.row_bytes
        self._slabs = Slabs(geometry)
        self._memory = allocate(geometry.total_bytes)
        self._settle = settle
        self._chunks: dict[str, tuple[Chunk, ...]] = {}

    def reserve(self, request_id: str, first_block: int, blocks: int, codec: str) -> Chunk | None:
        """Returns rows to fill, in place of all blocks of the request from that one on. Without room: None, and those blocks are gone."""
        kept = tuple(cut for held in self._chunks.pop(request_id, ()) if (cut := self._before(held, first_block)) is not None)
        if kept:
            self._chunks[request_id] = kept
        found = self._slabs.allocate(codec, self._layers * blocks)
        if found is None:
            return None
        rows, moves = found
        if moves:
            self._settle()
            for move in moves:
                self._memory[move.target : move.target + move.bytes] = self._memory[move.source : move.source + move.bytes]
        chunk = Chunk(first_block, blocks, codec, rows, self._row_bytes[codec], self._memory, blocks)
        self._chunks[request_id] = (*kept, chunk)
        self.used_bytes += len(rows) * chunk.row_bytes
        return chunk

    def drop(self, request_id: str) -> None:
        for chunk in self._chunks.pop(request_id, ()):
            self._free(chunk)

    def clear(self) -> None:
        for request_id in self.request_ids():
            self.drop(request_id)

    def read(self, request_id: str, first_block: int, end_block: int) -> Iterator[Chunk]:
        """Yields the parts of its chunks in [first_block, end_block), in order; missing blocks are left out."""
        for chunk in self._chunks.get(request_id, ()):
            start, end = max(chunk.first_block, first_block), min(chunk.end_block, end_block)
            if start < end:
                skipped = chunk.skipped_blocks + start - chunk.first_block
                yield replace(chunk, first_block=start, blocks=end - start, skipped_blocks=skipped)

    def request_ids(self) -> tuple[str, ...]:
        return tuple(self._chunks)

    def _free(self, chunk: Chunk) -> None:
        self.used_bytes -= len(chunk.rows) * chunk.row_bytes
        self._slabs.free(chunk.rows)

    def _before(self, chunk: Chunk, block: int) -> Chunk | None:
        """Returns the part of a chunk before `block`, and frees the rest."""
        if chunk.end_block <= block:
            return chunk
        if chunk.first_block >= block:
            self._free(chunk)
            return None
        kept = block - chunk.first_block
        indices = np.arange(self._layers)[:, None] * chunk.held_blocks + np.arange(kept)
        self.used_bytes -= (len(chunk.rows) - indices.size) * chunk.row_bytes
        self._slabs.keep(chunk.rows, indices.reshape(-1))
        return replace(chunk, blocks=kept, held_blocks=kept)

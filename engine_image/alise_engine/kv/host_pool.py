"""One worker's store of encoded blocks in host memory, with its bytes counted.

It does what the scheduler's ledger says and decides nothing. It still refuses to grow past its limit: a disagreement between the two
then costs a recompute, not memory that the container does not have.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Tensor = Any


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive blocks of one request, saved together: `rows` is `uint8 [layers, blocks, row_bytes]`."""

    first_block: int
    codec: str
    rows: Tensor

    @property
    def blocks(self) -> int:
        return int(self.rows.shape[1])

    @property
    def end_block(self) -> int:
        return self.first_block + self.blocks

    @property
    def bytes(self) -> int:
        return int(self.rows.numel())


class HostPool:
    """Chunks by request, never more than `limit_bytes` of them."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._chunks: dict[str, tuple[Chunk, ...]] = {}

    def put(self, request_id: str, chunk: Chunk) -> bool:
        """Stores the chunk in place of all that is held from its first block on. False, with those blocks gone, when it does not fit."""
        kept = tuple(cut for held in self._chunks.get(request_id, ()) if (cut := _before(held, chunk.first_block)) is not None)
        self._replace(request_id, kept)
        if self.used_bytes + chunk.bytes > self.limit_bytes:
            return False
        self._replace(request_id, (*kept, chunk))
        return True

    def drop(self, request_id: str) -> None:
        self._replace(request_id, ())

    def clear(self) -> None:
        self._chunks.clear()
        self.used_bytes = 0

    def read(self, request_id: str, first_block: int, end_block: int) -> Iterator[Chunk]:
        """The parts of its chunks in [first_block, end_block), in order; what is not there is left out."""
        for chunk in self._chunks.get(request_id, ()):
            start, end = max(chunk.first_block, first_block), min(chunk.end_block, end_block)
            if start < end:
                yield Chunk(start, chunk.codec, chunk.rows[:, start - chunk.first_block : end - chunk.first_block])

    def request_ids(self) -> tuple[str, ...]:
        return tuple(self._chunks)

    def _replace(self, request_id: str, chunks: tuple[Chunk, ...]) -> None:
        self.used_bytes -= sum(chunk.bytes for chunk in self._chunks.pop(request_id, ()))
        if chunks:
            self._chunks[request_id] = chunks
            self.used_bytes += sum(chunk.bytes for chunk in chunks)


def _before(chunk: Chunk, block: int) -> Chunk | None:
    """The part of a chunk before `block`. Copied when cut: a view would keep the whole chunk's memory behind a smaller count."""
    if chunk.end_block <= block:
        return chunk
    if chunk.first_block >= block:
        return None
    return Chunk(chunk.first_block, chunk.codec, chunk.rows[:, : block - chunk.first_block].clone())

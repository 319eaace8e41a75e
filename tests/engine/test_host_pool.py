"""One worker's store of encoded blocks."""

from typing import Any

import torch

from alise_engine.kv.host_pool import Chunk, HostPool

LAYERS, ROW = 2, 10


def chunk(first_block: int, blocks: int, fill: int = 0, codec: str = "raw") -> Chunk:
    return Chunk(first_block, codec, torch.full((LAYERS, blocks, ROW), fill, dtype=torch.uint8))


def read(pool: HostPool, name: str, first: int, end: int) -> list[tuple[int, int, int]]:
    """(first block, blocks, what is in them)"""
    return [(part.first_block, part.blocks, int(part.rows[0, 0, 0])) for part in pool.read(name, first, end)]


def stored_bytes(pool: HostPool) -> int:
    """The memory that is really kept alive, whatever the pool says."""
    storages: dict[int, Any] = {}
    for name in pool.request_ids():
        for part in pool._chunks[name]:
            storage = part.rows.untyped_storage()
            storages[storage.data_ptr()] = storage
    return sum(storage.nbytes() for storage in storages.values())


def test_what_was_put_is_read_in_order() -> None:
    pool = HostPool(1000)
    pool.put("a", chunk(0, 2, 1))
    pool.put("a", chunk(2, 3, 2))
    assert read(pool, "a", 1, 4) == [(1, 1, 1), (2, 2, 2)]


def test_a_chunk_takes_the_place_of_what_it_overlaps() -> None:
    pool = HostPool(1000)
    pool.put("a", chunk(0, 3, 1))
    pool.put("a", chunk(2, 2, 2))
    assert read(pool, "a", 0, 9) == [(0, 2, 1), (2, 2, 2)]
    assert pool.used_bytes == 4 * LAYERS * ROW


def test_a_cut_chunk_keeps_no_memory_that_is_not_counted() -> None:
    pool = HostPool(1000)
    pool.put("a", chunk(0, 10, 1))
    pool.put("a", chunk(1, 1, 2))
    assert stored_bytes(pool) == pool.used_bytes == 2 * LAYERS * ROW


def test_a_chunk_that_does_not_fit_is_refused_and_leaves_what_was_before_it() -> None:
    pool = HostPool(100)
    pool.put("a", chunk(0, 3, 1))
    assert not pool.put("a", chunk(2, 4, 2))
    assert read(pool, "a", 0, 9) == [(0, 2, 1)]
    assert pool.used_bytes == 2 * LAYERS * ROW


def test_a_dropped_request_is_gone_with_its_bytes() -> None:
    pool = HostPool(1000)
    pool.put("a", chunk(0, 3))
    pool.drop("a")
    pool.drop("a")
    assert (read(pool, "a", 0, 9), pool.used_bytes, pool.request_ids()) == ([], 0, ())

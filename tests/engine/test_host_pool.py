"""One worker's store of encoded blocks."""

import torch

from alise_engine.kv.host_pool import HostPool
from alise_engine.kv.slabs import Geometry

LAYERS, ROW = 2, 10


def make_pool(limit_bytes: int = 1000) -> HostPool:
    return HostPool(Geometry.of(limit_bytes, {"raw": ROW}), LAYERS)


def put(pool: HostPool, name: str, first_block: int, blocks: int, fill: int) -> bool:
    """Whether there was room; every layer's rows hold `fill`, and the number of the layer on top."""
    chunk = pool.reserve(name, first_block, blocks, "raw")
    if chunk is None:
        return False
    for layer in range(LAYERS):
        for _, rows in chunk.pieces(layer):
            rows.fill_(fill + layer)
    return True


def read(pool: HostPool, name: str, first: int, end: int) -> list[tuple[int, int, int]]:
    """(first block, blocks, what is in them); the second layer's must be the same and one more."""
    found = []
    for part in pool.read(name, first, end):
        layers = [torch.cat([rows for _, rows in part.pieces(layer)]) for layer in range(LAYERS)]
        assert [len(rows) for rows in layers] == [part.blocks] * LAYERS
        assert (layers[1] == layers[0] + 1).all()
        found.append((part.first_block, part.blocks, int(layers[0].unique())))
    return found


def test_what_was_put_is_read_in_order() -> None:
    pool = make_pool()
    put(pool, "a", 0, 2, 1)
    put(pool, "a", 2, 3, 5)
    assert read(pool, "a", 1, 4) == [(1, 1, 1), (2, 2, 5)]


def test_a_chunk_takes_the_place_of_what_it_overlaps() -> None:
    pool = make_pool()
    put(pool, "a", 0, 3, 1)
    put(pool, "a", 2, 2, 5)
    assert read(pool, "a", 0, 9) == [(0, 2, 1), (2, 2, 5)]
    assert pool.used_bytes == 4 * LAYERS * ROW


def test_a_cut_chunk_keeps_no_memory_that_is_not_counted() -> None:
    pool = make_pool(12 * LAYERS * ROW)
    put(pool, "a", 0, 10, 1)
    put(pool, "a", 1, 1, 5)
    assert pool.used_bytes == 2 * LAYERS * ROW
    assert put(pool, "b", 0, 10, 9)
    assert read(pool, "a", 0, 9) == [(0, 1, 1), (1, 1, 5)]
    assert read(pool, "b", 0, 10) == [(0, 10, 9)]


def test_a_chunk_that_does_not_fit_is_refused_and_leaves_what_was_before_it() -> None:
    pool = make_pool(100)
    put(pool, "a", 0, 3, 1)
    assert not put(pool, "a", 2, 4, 5)
    assert read(pool, "a", 0, 9) == [(0, 2, 1)]
    assert pool.used_bytes == 2 * LAYERS * ROW


def test_a_dropped_request_is_gone_with_its_bytes() -> None:
    pool = make_pool()
    put(pool, "a", 0, 3, 1)
    pool.drop("a")
    pool.drop("a")
    assert (read(pool, "a", 0, 9), pool.used_bytes, pool.request_ids()) == ([], 0, ())


def test_a_chunk_in_holes_is_read_in_order_and_piece_by_piece() -> None:
    pool = make_pool(8 * LAYERS * ROW)
    for name in "abcdefgh":
        put(pool, name, 0, 1, ord(name))
    for name in "aceg":
        pool.drop(name)
    assert put(pool, "z", 0, 4, 7)
    (chunk,) = pool.read("z", 0, 4)
    assert len(list(chunk.pieces(0))) > 1
    assert read(pool, "z", 1, 3) == [(1, 2, 7)]


def test_rows_that_move_for_another_codec_are_read_where_they_went_and_copies_are_over_first() -> None:
    settled: list[bool] = []
    pool = HostPool(Geometry(2, 40, {"raw": 20, "int8": 10}), 1, settle=lambda: settled.append(True))
    for name in "abcd":
        chunk = pool.reserve(name, 0, 1, "raw")
        assert chunk is not None
        for _, rows in chunk.pieces(0):
            rows.fill_(ord(name))
    pool.drop("a")
    pool.drop("c")
    assert pool.reserve("e", 0, 4, "int8") is not None
    assert settled == [True]
    for name in "bd":
        (part,) = pool.read(name, 0, 1)
        assert [int(rows.unique()) for _, rows in part.pieces(0)] == [ord(name)]

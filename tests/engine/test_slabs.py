"""Rows of several sizes in memory that does not grow."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_engine.kv.slabs import Geometry, Rows, Slabs

# Raw, INT8 and a third one, as fractions of each other as they are with 16-, 64- and 128-token blocks.
SIZES = [{"raw": 64}, {"raw": 64, "int8": 37}, {"raw": 128, "int8": 67}, {"raw": 128, "int8": 66, "int4": 34}]


class Memory:
    """Writes what belongs to each row, carries out moves, and looks whether it is still there."""

    def __init__(self, geometry: Geometry) -> None:
        self.slabs = Slabs(geometry)
        self.bytes = np.zeros(geometry.total_bytes, dtype=np.int64)
        self.held: dict[int, Rows] = {}
        self.ids: dict[int, list[int]] = {}
        self.count = 0

    @property
    def held_bytes(self) -> int:
        return sum(len(rows) * self.size(rows) for rows in self.held.values())

    def size(self, rows: Rows) -> int:
        return self.slabs.geometry.row_bytes[rows.codec]

    def allocate(self, codec: str, rows: int) -> int:
        """Bytes moved, or -1 when there was no room."""
        found = self.slabs.allocate(codec, rows)
        if found is None:
            return -1
        allocated, moves = found
        for move in moves:
            assert abs(move.source - move.target) >= move.bytes
            self.bytes[move.target : move.target + move.bytes] = self.bytes[move.source : move.source + move.bytes]
        self.held[self.count] = allocated
        self.ids[self.count] = [self.count * 10_000 + index + 1 for index in range(rows)]
        for offset, value in zip(allocated.offsets.tolist(), self.ids[self.count], strict=True):
            self.bytes[offset : offset + self.size(allocated)] = value
        self.count += 1
        return sum(move.bytes for move in moves)

    def keep(self, name: int, indices: list[int]) -> None:
        self.slabs.keep(self.held[name], np.array(indices, dtype=np.int64))
        self.ids[name] = [self.ids[name][index] for index in indices]

    def free(self, name: int) -> None:
        self.slabs.free(self.held.pop(name))

    def check(self) -> None:
        """Every row still has its own content, so none overlap and none was lost in a move."""
        for name, rows in self.held.items():
            for offset, value in zip(rows.offsets.tolist(), self.ids[name], strict=True):
                assert offset >= 0
                assert offset + self.size(rows) <= len(self.bytes)
                assert (self.bytes[offset : offset + self.size(rows)] == value).all()


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(SIZES), st.integers(600, 9_000))
def test_no_row_overlaps_leaks_or_is_lost_and_what_is_promised_always_fits(data: Any, sizes: dict[str, int], limit: int) -> None:
    geometry = Geometry.of(limit, sizes)
    memory = Memory(geometry)
    for _ in range(data.draw(st.integers(1, 25))):
        if memory.held and data.draw(st.booleans()):
            name = data.draw(st.sampled_from(sorted(memory.held)))
            if data.draw(st.booleans()):
                memory.free(name)
            else:
                rows = len(memory.held[name])
                memory.keep(name, sorted(data.draw(st.sets(st.integers(0, rows - 1), max_size=rows))) if rows else [])
        else:
            codec, rows = data.draw(st.sampled_from(sorted(sizes))), data.draw(st.integers(1, 40))
            fits = memory.held_bytes + rows * sizes[codec] <= geometry.usable_bytes
            moved = memory.allocate(codec, rows)
            assert moved >= 0 or not fits
        memory.check()
    for name in list(memory.held):
        memory.free(name)
    assert len(memory.slabs._free_slabs) == geometry.slabs
    assert set(memory.slabs._free_rows.values()) == {0}


@given(st.sampled_from(SIZES), st.integers(1, 1 << 34), st.integers(1, 1 << 14))
def test_slabs_never_take_more_than_the_limit(sizes: dict[str, int], limit: int, scale: int) -> None:
    geometry = Geometry.of(limit, {codec: size * scale for codec, size in sizes.items()})
    assert geometry.usable_bytes <= geometry.total_bytes <= limit


@pytest.mark.parametrize("sizes", [pytest.param(sizes, id=" and ".join(sizes)) for sizes in SIZES])
def test_a_store_of_a_thousand_rows_is_nearly_all_usable(sizes: dict[str, int]) -> None:
    limit = 1_000 * sizes["raw"]
    assert Geometry.of(limit, sizes).usable_bytes >= (1.0 if len(sizes) == 1 else 0.95) * limit * 0.98


def test_clearing_a_slab_moves_no_more_than_half_of_it_when_two_are_half_empty() -> None:
    memory = Memory(Geometry(4, 160, {"raw": 40, "int8": 20}))
    for _ in range(16):
        memory.allocate("raw", 1)
    for name in (0, 1, 4, 5):
        memory.free(name)
    assert memory.allocate("int8", 8) == 2 * 40
    memory.check()


def test_an_allocation_without_room_changes_nothing() -> None:
    memory = Memory(Geometry(2, 100, {"raw": 50, "int8": 25}))
    memory.allocate("raw", 3)
    assert memory.allocate("int8", 1) == -1
    assert memory.allocate("raw", 2) == -1
    assert memory.allocate("raw", 1) == 0
    memory.check()

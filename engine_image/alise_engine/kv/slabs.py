"""Allocates rows of a few sizes in one piece of memory that never grows. Pure: numbers, and no memory.

The piece is cut into slabs of one length, and a slab holds rows of one codec, side by side, until the last of them is freed. Rows fill
slabs that are partly used before they begin a new one, the fullest first. When no slab is free but one codec has a slab's worth of free
rows, its emptiest slab is cleared by moving its rows into the others. So no more than one slab per codec is ever lost to fragmentation,
and what `usable_bytes` promises always fits, whatever came and went before. `host_pool.py` calls it, and `connector.py` computes the sizes
with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt

Offsets = npt.NDArray[np.int64]

# Longest slab, in rows of the largest codec. A copy of rows that lie apart is one call per slab.
_MOST_ROWS: Final = 64
# A longer slab is worth this much of the memory.
_NEARLY: Final = 0.99


@dataclass(frozen=True, slots=True)
class Geometry:
    """`slabs` slabs of `slab_bytes`, and how long a row of each codec is."""

    slabs: int
    slab_bytes: int
    row_bytes: Mapping[str, int]

    @classmethod
    def of(cls, limit_bytes: int, row_bytes: Mapping[str, int]) -> Self:
        """The one that makes most of the limit; of those that are nearly as good the one with the longest slabs."""
        longest = max(row_bytes.values())
        found = [cls(limit_bytes // (rows * longest), rows * longest, dict(row_bytes)) for rows in range(1, _MOST_ROWS + 1)]
        most = max(geometry.usable_bytes for geometry in found)
        return [geometry for geometry in found if geometry.usable_bytes >= _NEARLY * most][-1]

    @property
    def total_bytes(self) -> int:
        return self.slabs * self.slab_bytes

    @property
    def usable_bytes(self) -> int:
        """Rows of any mix of codecs fit when they have no more bytes than this."""
        # One codec fills slab by slab. Of several each may have one slab that is partly used.
        lost = 0 if len(self.row_bytes) == 1 else len(self.row_bytes)
        return max(0, self.slabs - lost) * min(self.rows_per_slab(codec) * size for codec, size in self.row_bytes.items())

    def rows_per_slab(self, codec: str) -> int:
        return self.slab_bytes // self.row_bytes[codec]


@dataclass(eq=False, slots=True)
class Rows:
    """Rows that were allocated together. A later allocation may move them: ask for `offsets` anew."""

    codec: str
    # Bytes from the beginning of the memory, in the order of the rows.
    offsets: Offsets

    def __len__(self) -> int:
        return len(self.offsets)


@dataclass(frozen=True, slots=True)
class Move:
    """Bytes to be copied before the rows of the allocation that asked for it are written to. In order; source and target do not overlap."""

    source: int
    target: int
    bytes: int


class Slabs:
    """Keeps track of allocated rows. One owner, no locks."""

    def __init__(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self._row_bytes = geometry.row_bytes
        self._rows_per_slab = {codec: geometry.rows_per_slab(codec) for codec in geometry.row_bytes}
        self._free_slabs = list(range(geometry.slabs - 1, -1, -1))
        # By codec and slab: which of its rows are taken.
        self._taken: dict[str, dict[int, npt.NDArray[np.bool_]]] = {codec: {} for codec in geometry.row_bytes}
        self._free_rows = dict.fromkeys(geometry.row_bytes, 0)
        self._live: dict[Rows, None] = {}

    def allocate(self, codec: str, count: int) -> tuple[Rows, tuple[Move, ...]] | None:
        """Returns `count` rows, and the moves that have to come before. Returns None, with nothing changed, without room."""
        fresh = -(-max(0, count - self._free_rows[codec]) // self._rows_per_slab[codec])
        moves: list[Move] = []
        if fresh > len(self._free_slabs) + sum(self._clearable(other) for other in self._taken if other != codec):
            return None
        while len(self._free_slabs) < fresh:
            moves += self._clear_a_slab(codec)
        for _ in range(fresh):
            self._taken[codec][self._free_slabs.pop()] = np.zeros(self._rows_per_slab[codec], dtype=np.bool_)
            self._free_rows[codec] += self._rows_per_slab[codec]
        rows = Rows(codec, self._take(codec, count, self._fullest_first(codec)))
        self._live[rows] = None
        return rows, tuple(moves)

    def keep(self, rows: Rows, indices: Offsets) -> None:
        """Frees all of these rows but those at the indices."""
        gone = np.ones(len(rows), dtype=np.bool_)
        gone[indices] = False
        self._give_back(rows.codec, rows.offsets[gone])
        rows.offsets = rows.offsets[indices]

    def free(self, rows: Rows) -> None:
        self._give_back(rows.codec, rows.offsets)
        del self._live[rows]
        rows.offsets = rows.offsets[:0]

    # --- inside ---------------------------------------------------------------------------------------------------------------------
    def _fullest_first(self, codec: str) -> list[int]:
        taken = self._taken[codec]
        return sorted((slab for slab in taken if not taken[slab].all()), key=lambda slab: (-int(taken[slab].sum()), slab))

    def _take(self, codec: str, count: int, slabs: Iterable[int]) -> Offsets:
        parts = []
        for slab in slabs:
            if not count:
                break
            taken = self._taken[codec][slab]
            places = np.flatnonzero(~taken)[:count]
            taken[places] = True
            count -= len(places)
            self._free_rows[codec] -= len(places)
            parts.append(slab * self.geometry.slab_bytes + places * self._row_bytes[codec])
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, dtype=np.int64)

    def _give_back(self, codec: str, offsets: Offsets) -> None:
        slabs, places = np.divmod(offsets, self.geometry.slab_bytes)
        for slab in np.unique(slabs).tolist():
            taken = self._taken[codec][slab]
            mine = places[slabs == slab] // self._row_bytes[codec]
            taken[mine] = False
            self._free_rows[codec] += len(mine)
            if not taken.any():
                self._release_slab(codec, slab)

    def _release_slab(self, codec: str, slab: int) -> None:
        del self._taken[codec][slab]
        self._free_rows[codec] -= self._rows_per_slab[codec]
        self._free_slabs.append(slab)

    def _clearable(self, codec: str) -> int:
        """Slabs that become free when the rows of this codec move together."""
        return self._free_rows[codec] // self._rows_per_slab[codec]

    def _clear_a_slab(self, codec: str) -> list[Move]:
        """Of another codec: the one whose rows have the fewest bytes."""
        emptiest = [(self._fullest_first(other)[-1], other) for other in self._taken if other != codec and self._clearable(other)]
        slab, other = min(emptiest, key=lambda found: (int(self._taken[found[1]][found[0]].sum()) * self._row_bytes[found[1]], found))
        size, slab_bytes = self._row_bytes[other], self.geometry.slab_bytes
        moves = []
        targets = [place for place in self._fullest_first(other) if place != slab]
        for rows in [rows for rows in self._live if rows.codec == other]:
            here = np.flatnonzero(rows.offsets // slab_bytes == slab)
            if len(here):
                target = self._take(other, len(here), targets)
                moves += [Move(int(a), int(b), size) for a, b in zip(rows.offsets[here], target, strict=True)]
                rows.offsets = rows.offsets.copy()
                rows.offsets[here] = target
        self._free_rows[other] += int(self._taken[other][slab].sum())
        self._release_slab(other, slab)
        return moves

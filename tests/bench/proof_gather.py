"""Collects the rows of a long measurement piece by piece, so that a run that was broken off goes on where it stopped.

A piece of work has an identity, which each of its rows carries. Its rows are written together when all of them have come, so a piece is in
the file whole or not at all. The estimate of what is left takes the pieces of this run as typical of the others. `proof_sources.py` calls
it.
"""

import json
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.harness import Row

Identity = Hashable
# Rows that come quicker than this after one another, from the first on, were kept by an earlier run.
_KEPT_SECONDS: Final = 0.05
_SAY_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Piece:
    """Work that is done whole or not at all."""

    identity: Identity
    title: str
    measure: Callable[[], Iterable[Row]]


@dataclass(slots=True)
class Progress:
    """Says how far a source is, at most every half minute. `clock` gives seconds."""

    name: str
    total: int
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    _fresh: int = 0
    _began: float | None = None
    _last: float = field(default=0.0)
    _told: float = field(default=float("-inf"))

    def start(self) -> None:
        """Starts the clock."""
        self._last = self.clock()

    def advance(self) -> None:
        """Counts one more; the ones at the start that took no time are taken as kept."""
        now = self.clock()
        if self._began is None and now - self._last > _KEPT_SECONDS:
            self._began = self._last
        self.done += 1
        self._fresh += self._began is not None
        self._last = now
        if self._began is not None and now - self._told >= _SAY_SECONDS:
            self._told = now
            print(f"\r\033[K{self.sentence()}", file=sys.stderr, flush=True)

    def sentence(self) -> str:
        """Returns how much is done and how long the rest takes at the pace so far."""
        left = self.total - self.done
        if self._began is None or left <= 0:
            return f"{self.name}: {self.done} of {self.total}"
        seconds = (self._last - self._began) / self._fresh * left
        return f"{self.name}: {self.done} of {self.total}, about {duration(seconds)} left"


def duration(seconds: float) -> str:
    """Returns the time in the unit that a person would use."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def watched(name: str, total: int, rows: Iterable[Row]) -> Iterator[Row]:
    """Yields the rows of a source that keeps its own, and says how far it is."""
    progress = Progress(name, total)
    progress.start()
    for row in rows:
        progress.advance()
        yield row


def gathered(
    name: str, path: Path, pieces: Sequence[Piece], identity: Callable[[Row], Identity], common: Row, others: Iterable[Row] = ()
) -> Iterator[Row]:
    """Yields the rows of all pieces: kept ones from the file, or from `others`, the rest as it is measured.

    New rows get `common` and are appended to the file.
    """
    kept = whole(identity, read(path), others)
    progress = Progress(name, len(pieces))
    progress.start()
    for piece in pieces:
        if piece.identity not in kept:
            print(f"\r\033[K{name}: {piece.title}", file=sys.stderr, flush=True)
            rows = [{**row, **common} for row in piece.measure()]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as out:
                out.write("".join(f"{json.dumps(row)}\n" for row in rows))
            kept[piece.identity] = rows
        progress.advance()
        yield from kept[piece.identity]


def whole(identity: Callable[[Row], Identity], first: Iterable[Row], second: Iterable[Row]) -> dict[Identity, list[Row]]:
    """Returns the rows of each piece, those of `second` where `first` has none of it."""
    found: dict[Identity, list[Row]] = {}
    for row in first:
        found.setdefault(identity(row), []).append(row)
    own = set(found)
    for row in second:
        if identity(row) not in own:
            found.setdefault(identity(row), []).append(row)
    return found


def read(path: Path) -> list[Row]:
    """Returns the rows of a file, none when it is not there; a last line that was cut off is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows: list[Row] = []
    for place, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if place < len(lines):
                raise
    return rows

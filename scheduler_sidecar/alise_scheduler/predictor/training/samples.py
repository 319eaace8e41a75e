"""Finished requests in memory: one (`Sample`), the newest as columns in a ring (`Recent`), and a copy of these to train on (`History`).

`learned.py` adds samples and hands out histories, the stores load and save samples, and the training process reads a history from bytes.
"""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..features.row import EMBEDDING, NUMBERS
from ..shares import FairSlots

RECENT_ROWS: Final = 20_000

Row = NDArray[np.float32]
Rows = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sample:
    """A finished request. `numbers` [NUMBERS]; `embedding` [EMBEDDING] or None; `root` names its conversation; hashes: `ModelInput`."""

    numbers: Row
    embedding: Row | None
    log_tokens: float
    ended: bool
    root: int
    model: int = 0
    now: int = 0
    previous: int = 0
    tenant: int = 0


@dataclass(frozen=True, slots=True)
class History:
    """Finished requests, oldest first. numbers [N, NUMBERS] (NaN: unknown); vectors [N, D], 0 where there is none; log_tokens [N];
    ended [N], False where the answer was cut; roots [N] name conversations, tenants [N] who asked; None: all the same."""

    numbers: Rows
    vectors: Rows
    log_tokens: Rows
    ended: Flags
    roots: NDArray[np.int64]
    tenants: NDArray[np.uint64] | None = None

    def to_bytes(self) -> bytes:
        out = io.BytesIO()
        np.savez(
            out, numbers=self.numbers, vectors=self.vectors.astype(np.float16), log_tokens=self.log_tokens, ended=self.ended,
            roots=self.roots, tenants=np.zeros(len(self.roots), np.uint64) if self.tenants is None else self.tenants,
        )  # fmt: skip
        return out.getvalue()


def read_history(data: bytes) -> History:
    """Returns the history that `to_bytes` wrote. Raises KeyError or ValueError for anything else."""
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        return History(
            held["numbers"], held["vectors"].astype(np.float32), held["log_tokens"], held["ended"], held["roots"], held["tenants"]
        )


class Recent:
    """The newest `rows` samples, shared fairly between tenants. `added` counts all samples ever added."""

    def __init__(self, rows: int = RECENT_ROWS) -> None:
        self.added = 0
        self._slots = FairSlots(rows)
        self._numbers = np.zeros((rows, NUMBERS), np.float32)
        self._vectors = np.zeros((rows, EMBEDDING), np.float16)
        self._tokens = np.zeros(rows, np.float32)
        self._ended = np.zeros(rows, np.bool_)
        self._roots = np.zeros(rows, np.int64)
        self._tenants = np.zeros(rows, np.uint64)
        # The number of samples that were added before each.
        self._number = np.zeros(rows, np.int64)

    def __len__(self) -> int:
        return self._slots.used

    def add(self, sample: Sample) -> None:
        at = self._slots.take(sample.tenant)
        self._numbers[at] = sample.numbers
        self._vectors[at] = 0.0 if sample.embedding is None else sample.embedding
        self._tokens[at] = sample.log_tokens
        self._ended[at] = sample.ended
        self._roots[at] = np.uint64(sample.root).astype(np.int64) if sample.root else self.added
        self._tenants[at] = sample.tenant
        self._number[at] = self.added
        self.added += 1

    def newest(self, count: int, since: int = 0) -> History:
        """Returns a copy of at most `count` newest samples, oldest first, without the first `since` ever added."""
        rows = np.argsort(self._number[: self._slots.used], kind="stable")
        rows = rows[np.searchsorted(self._number[rows], since) :]
        rows = rows[max(0, len(rows) - count) :]
        return History(
            self._numbers[rows], self._vectors[rows].astype(np.float32), self._tokens[rows], self._ended[rows], self._roots[rows],
            self._tenants[rows],
        )  # fmt: skip

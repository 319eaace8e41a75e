"""Copies blocks between a worker's KV cache and its store, in the step or beside it.

On a CPU a copy runs beside the step in a second thread, where there is a core for it: torch's operators release the interpreter lock. The
caller guarantees that these blocks are not used before the next step begins; `begin_step` waits for unfinished copies. So a step never sees
a partial copy, and the books may be changed at the beginning of each step as if all copies had been instantaneous. `connector.py` creates
it, and `worker.py` calls it.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from .host_pool import Chunk
from .int8 import Codec, LayerShape
from .work import Spent

Tensor = Any


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of the KV cache, and the chunk of the store that they are written to or read from."""

    layers: tuple[Tensor, ...]
    # On the host: kernel blocks, as many of them per row as a backend cuts vLLM's blocks into.
    index: Tensor
    chunk: Chunk
    codec: Codec
    shape: LayerShape
    # That hold something, of a chunk which is being written.
    valid_tokens: int = 0

    def pieces(self) -> Iterator[tuple[Tensor, Tensor, int, Tensor]]:
        """(layer's cache, kernel blocks, tokens that hold something, rows in the store), everything for one call of the codec."""
        ratio = len(self.index) // self.chunk.blocks
        for number, layer in enumerate(self.layers):
            for block, rows in self.chunk.pieces(number):
                place = block - self.chunk.first_block
                valid = max(0, self.valid_tokens - place * self.shape.block_size)
                yield layer, self.index[place * ratio : (place + len(rows)) * ratio], valid, rows


class Copies(Protocol):
    """`beside`: these blocks of the KV cache are not used before `begin_step` is called again."""

    @property
    def starts_early(self) -> bool:
        """Whether copies beside a step should start at its beginning, and not once its forward pass has been launched."""

    def save(self, blocks: Blocks, beside: bool) -> None: ...

    def load(self, blocks: Blocks, beside: bool) -> None: ...

    def begin_step(self) -> None:
        """Waits until the copies asked for so far have no effect on the step, its KV cache and the books."""

    def settle(self) -> None:
        """Waits until the copies asked for so far have ended, so that the store's memory may be used."""

    def take_spent(self) -> Spent:
        """Returns the time of the copies that ended since the last call."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Pending:
    chunk: Chunk
    saves: bool
    done: "Future[float]"


class HostCopies:
    """For a KV cache in host memory. `threaded`: with a thread for what may run beside the step."""

    def __init__(self, threaded: bool) -> None:
        self._thread = ThreadPoolExecutor(1, "alise-copies", torch.set_num_threads, (1,)) if threaded else None
        self.starts_early = threaded
        self._pending: list[_Pending] = []
        self._spent = Spent()

    def save(self, blocks: Blocks, beside: bool) -> None:
        pieces = list(blocks.pieces())

        def work() -> None:
            for layer, index, valid_tokens, rows in pieces:
                blocks.codec.encode(layer, index, blocks.shape, valid_tokens, rows)

        if not beside:
            # Its rows may have been another copy's that was asked for in this step and gave up its room since.
            self._wait(lambda pending: pending.saves)
        self._run(blocks.chunk, True, work, beside)

    def load(self, blocks: Blocks, beside: bool) -> None:
        pieces = list(blocks.pieces())

        def work() -> None:
            for layer, index, _, rows in pieces:
                blocks.codec.decode(rows, layer, index, blocks.shape)

        # Preempted and back in one step: its copy may still be in the making.
        self._wait(lambda pending: pending.saves and pending.chunk.rows is blocks.chunk.rows)
        self._run(blocks.chunk, False, work, beside)

    def begin_step(self) -> None:
        self._wait(lambda pending: True)

    def settle(self) -> None:
        self._wait(lambda pending: True)

    def take_spent(self) -> Spent:
        self._wait(lambda pending: bool(pending.done.done()))
        spent, self._spent = self._spent, Spent()
        return spent

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown()

    def _run(self, chunk: Chunk, saves: bool, work: Callable[[], None], beside: bool) -> None:
        if beside and self._thread is not None:
            self._pending.append(_Pending(chunk, saves, self._thread.submit(_timed, work)))
        else:
            self._count(saves, _timed(work))

    def _wait(self, which: Callable[[_Pending], bool]) -> None:
        """Waits for these copies, oldest first. Raises their exceptions."""
        for pending in [pending for pending in self._pending if which(pending)]:
            self._pending.remove(pending)
            self._count(pending.saves, pending.done.result())

    def _count(self, saves: bool, spent_us: float) -> None:
        if saves:
            self._spent.save_us += spent_us
        else:
            self._spent.restore_us += spent_us


def spare_core() -> bool:
    """Returns whether this process may use more cores than its forward pass."""
    return bool(len(os.sched_getaffinity(0)) > torch.get_num_threads())


def _timed(work: Callable[[], None]) -> float:
    """Microseconds. The KV cache was created in inference mode, which is each thread's own."""
    began = time.perf_counter()
    with torch.inference_mode():
        work()
    return (time.perf_counter() - began) * 1e6

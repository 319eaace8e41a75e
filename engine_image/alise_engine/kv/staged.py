"""Copies for a KV cache on a GPU: through staging buffers on it, a side stream, and events between that and the stream that computes.

    save, blocks given away in this step    compute: gather + encode ─▶ staging       side: ─▶ store, after that
    save, blocks that stay in place         side:    gather + encode ─▶ staging ─▶ store, while the step computes
    load, for this step                     side:    store ─▶ staging                 compute: decode, after that
    load, ahead of a turn                   side:    store ─▶ staging, decode, while the step computes

The host only asks, and waits for nothing: `begin_step` makes each stream wait for what the other was asked so far. All traffic with the
store is on the side stream, in the order asked for, so a row that is given to another copy is not written before it was read. What is asked
of a stream is a function, so that a test can run the two streams in any order that the events allow (`Streams`). `connector.py` gives it to
the worker of a GPU.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from .copies import Blocks
from .work import Spent

Tensor = Any
Event = Any

# Two of them: one is filled while the other is emptied.
STAGING_BYTES: Final = 16 << 20


class Streams(Protocol):
    """Two queues of work on a device: `side` or not."""

    def run(self, side: bool, work: Callable[[], None]) -> None: ...

    def record(self, side: bool) -> Event:
        """Happens when everything that the stream was asked so far is done."""

    def wait(self, side: bool, event: Event) -> None:
        """What the stream is asked from now on is not begun before the event."""

    def elapsed_us(self, start: Event, end: Event) -> float | None:
        """Between two events; None while the second has not happened."""

    def synchronize(self) -> None:
        """Returns when both have done everything."""


class CudaStreams:
    """The stream that the model runs on, and one beside it."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)

    def run(self, side: bool, work: Callable[[], None]) -> None:
        with torch.cuda.stream(self._stream(side)), torch.inference_mode():
            work()

    def record(self, side: bool) -> Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream(side))
        return event

    def wait(self, side: bool, event: Event) -> None:
        self._stream(side).wait_event(event)

    def elapsed_us(self, start: Event, end: Event) -> float | None:
        return float(start.elapsed_time(end)) * 1e3 if end.query() else None

    def synchronize(self) -> None:
        torch.cuda.synchronize(self._device)

    def _stream(self, side: bool) -> Any:
        return self._side if side else torch.cuda.current_stream(self._device)


@dataclass(slots=True)
class _Staging:
    """A buffer on the device, and when it may be used again."""

    buffer: Tensor
    free: Event


@dataclass(frozen=True, slots=True)
class _Timed:
    saves: bool
    start: Event
    end: Event


class StagedCopies:
    """`make_buffer` gives `uint8 [bytes]` on the device."""

    starts_early = False

    def __init__(self, streams: Streams, make_buffer: Callable[[int], Tensor], staging_bytes: int = STAGING_BYTES) -> None:
        self._streams = streams
        self._make_buffer = make_buffer
        self._staging_bytes = staging_bytes
        self._staging: list[_Staging] = []
        self._timed: list[_Timed] = []

    def save(self, blocks: Blocks, beside: bool) -> None:
        streams, start = self._streams, self._streams.record(beside)
        for layer, index, valid_tokens, rows in self._parts(blocks):
            staging, staged = self._take(rows)

            def encode(layer: Tensor = layer, index: Tensor = index, valid_tokens: int = valid_tokens, staged: Tensor = staged) -> None:
                blocks.codec.encode(layer, index.to(layer.device, non_blocking=True), blocks.shape, valid_tokens, staged)

            def store(rows: Tensor = rows, staged: Tensor = staged) -> None:
                rows.copy_(staged, non_blocking=True)

            streams.wait(beside, staging.free)
            streams.run(beside, encode)
            if not beside:
                streams.wait(True, streams.record(False))
            streams.run(True, store)
            staging.free = streams.record(True)
        self._timed.append(_Timed(True, start, streams.record(True)))

    def load(self, blocks: Blocks, beside: bool) -> None:
        streams, start = self._streams, self._streams.record(True)
        for layer, index, _, rows in self._parts(blocks):
            staging, staged = self._take(rows)

            def fetch(rows: Tensor = rows, staged: Tensor = staged) -> None:
                staged.copy_(rows, non_blocking=True)

            def decode(layer: Tensor = layer, index: Tensor = index, staged: Tensor = staged) -> None:
                blocks.codec.decode(staged, layer, index.to(layer.device, non_blocking=True), blocks.shape)

            streams.wait(True, staging.free)
            streams.run(True, fetch)
            if not beside:
                streams.wait(False, streams.record(True))
            streams.run(beside, decode)
            staging.free = streams.record(beside)
        self._timed.append(_Timed(False, start, streams.record(beside)))

    def begin_step(self) -> None:
        compute, side = self._streams.record(False), self._streams.record(True)
        self._streams.wait(False, side)
        self._streams.wait(True, compute)

    def settle(self) -> None:
        self._streams.synchronize()

    def take_spent(self) -> Spent:
        spent, still = Spent(), []
        for timed in self._timed:
            took_us = self._streams.elapsed_us(timed.start, timed.end)
            if took_us is None:
                still.append(timed)
            elif timed.saves:
                spent.save_us += took_us
            else:
                spent.restore_us += took_us
        self._timed = still
        return spent

    def close(self) -> None:
        self._streams.synchronize()

    def _parts(self, blocks: Blocks) -> Iterator[tuple[Tensor, Tensor, int, Tensor]]:
        """The pieces of the copy, none larger than a staging buffer."""
        ratio = len(blocks.index) // blocks.chunk.blocks
        for layer, index, valid_tokens, rows in blocks.pieces():
            step = max(1, self._staging_bytes // rows.shape[1])
            for first in range(0, len(rows), step):
                part = rows[first : first + step]
                valid = max(0, valid_tokens - first * blocks.shape.block_size)
                yield layer, index[first * ratio : (first + len(part)) * ratio], valid, part

    def _take(self, rows: Tensor) -> tuple[_Staging, Tensor]:
        """The buffer that was used longest ago, cut to these rows."""
        if not self._staging:
            size = max(self._staging_bytes, rows.shape[1])
            self._staging = [_Staging(self._make_buffer(size), self._streams.record(True)) for _ in range(2)]
        staging = self._staging.pop(0)
        self._staging.append(staging)
        return staging, staging.buffer[: rows.numel()].view(rows.shape)


def on_cuda(device: Any) -> StagedCopies:
    return StagedCopies(CudaStreams(device), lambda size: torch.empty(size, dtype=torch.uint8, device=device))

"""A save and a restore by the engine's own copies, beside what the link to the host carries in one plain copy of pinned memory.

`parts.py` runs it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tests.bench.gpu_standalone.machine import Device
from tests.bench.gpu_standalone.rows import attempt
from tests.bench.gpu_standalone.store import Store, make_cache, make_store
from tests.bench.harness import Row

Tensor = Any

# The largest error of a restored number: of bf16, and of a level of 8 bits.
_BF16: Final = 2.0**-8
_LEVELS: Final = 255


@dataclass(frozen=True, slots=True)
class Sizes:
    layers: int
    heads: int
    head_dim: int
    block_size: int
    # Lengths of a request that is saved and restored.
    tokens: tuple[int, ...]
    plain_bytes: int
    repetitions: int


# An 8B model's.
FULL: Final = Sizes(layers=32, heads=8, head_dim=128, block_size=16, tokens=(512, 4096), plain_bytes=1 << 30, repetitions=15)
DRY: Final = Sizes(layers=2, heads=2, head_dim=16, block_size=16, tokens=(32,), plain_bytes=1 << 16, repetitions=1)


def measure(device: Device) -> Iterator[Row]:
    sizes = DRY if device.dry else FULL
    yield from attempt("plain copies", partial(_plain, device, sizes))
    longest = max(sizes.tokens) // sizes.block_size
    cache = make_cache(device, sizes.layers, 2 * longest, sizes.heads, sizes.block_size, sizes.head_dim)
    store = make_store(device, cache, 4 * longest)
    yield from store.failures
    for codec in store.row_bytes:
        for tokens in sizes.tokens:
            for beside in (True, False):
                what = f"{tokens} tokens, {codec}, {'beside the step' if beside else 'in the step'}"
                yield from attempt(what, partial(_round_trips, device, store, codec, tokens, beside, sizes.repetitions))
    store.side.close()


def _plain(device: Device, sizes: Sizes) -> Iterator[Row]:
    import torch

    host = device.host_buffer(sizes.plain_bytes)
    there = torch.empty(sizes.plain_bytes, dtype=torch.uint8, device=device.name)
    for way, into, source in (("save", host, there), ("restore", there, host)):
        for repetition in range(1 + sizes.repetitions):
            seconds, _ = _clocked(device, partial(into.copy_, source, non_blocking=True))
            if repetition:
                yield {"kind": "plain", "way": way, "bytes": sizes.plain_bytes, "seconds": seconds}


def _round_trips(device: Device, store: Store, codec: str, tokens: int, beside: bool, repetitions: int) -> Iterator[Row]:
    import torch

    from alise_engine.kv.work import AliseMetadata, Drop, Load, Save

    blocks = tokens // store.shape.block_size
    places = torch.randperm(len(next(iter(store.cache.values())))).tolist()
    saved, filled = tuple(places[:blocks]), tuple(places[-blocks:])
    for layer in store.cache.values():
        # A number that is not written stays none.
        layer.index_fill_(0, torch.tensor(filled, device=layer.device), float("nan"))
    bytes_carried = blocks * store.block_bytes(codec)
    for repetition in range(1 + repetitions):
        save = AliseMetadata([Drop("r"), Save("r", saved, 0, tokens, codec, beside=beside)])
        load = AliseMetadata(loads=[Load("r", filled, 0, ahead=beside)])
        for way, work in (("save", partial(store.side.begin_step, save)), ("restore", partial(store.side.start_loads, load))):
            seconds, issued = _clocked(device, work)
            # The first ones compile the kernels.
            yield {
                "kind": "copy" if repetition else "first", "way": way, "codec": codec, "tokens": tokens, "beside": beside,
                "bytes": bytes_carried, "raw_bytes": blocks * store.block_bytes("raw"), "seconds": seconds, "issue_seconds": issued,
            }  # fmt: skip
    yield {"kind": "restored", "codec": codec, "blocks": blocks, "wrong": wrong_blocks(store, saved, filled, codec)}
    store.side.begin_step(AliseMetadata([Drop("r")]))
    store.side.take_spent()


def wrong_blocks(store: Store, saved: tuple[int, ...], filled: tuple[int, ...], codec: str) -> int:
    """Blocks of all layers that hold something else than those they were saved from, by more than the codec may lose."""
    import torch

    wrong = 0
    for layer in store.cache.values():
        index = [torch.tensor(ids, device=layer.device) for ids in (saved, filled)]
        before, after = (layer.index_select(0, ids).float() for ids in index)
        # No group of numbers spans more than the layer does.
        may = (before.max() - before.min()) / _LEVELS + before.abs() * _BF16 if codec != "raw" else torch.zeros_like(before)
        wrong += int((~((after - before).abs() <= may)).flatten(1).any(1).sum())
    return wrong


def _clocked(device: Device, work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds until it is done, and until the host has asked for it."""
    device.synchronize()
    began = time.perf_counter()
    work()
    issued = time.perf_counter() - began
    device.synchronize()
    return time.perf_counter() - began, issued

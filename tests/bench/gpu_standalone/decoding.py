"""Steps of a decoding batch alone, and with saves, restores, or both beside each of them. `parts.py` runs it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.gpu_standalone.decoder import Decoder, shape_for
from tests.bench.gpu_standalone.machine import Device
from tests.bench.gpu_standalone.rows import failure
from tests.bench.gpu_standalone.store import Store, make_store
from tests.bench.harness import Row

BATCH, CONTEXT, BLOCK_SIZE = 8, 1024, 16
MIB: Final = 1 << 20
# Beside each step, in bytes of 16-bit KV: a slice of a prefetch as the engine cuts it, and four times that.
SLICE_BYTES: Final = (32 * MIB, 128 * MIB)
ALONE: Final = "alone"
MODES: Final = (ALONE, "saves", "restores", "both")
# Modes take turns, so that what changes on the device meanwhile meets all of them. The first steps of a turn are not counted.
TURNS, STEPS, UNCOUNTED = 25, 22, 2
# A slow device has no time for all of them; with fewer than these the figures say nothing.
LEAST_TURNS: Final = 5
# The device's time for this part, weights and kernels included.
LIMIT_SECONDS: Final = 95.0


@dataclass(frozen=True, slots=True)
class Beside:
    """What runs beside a step."""

    mode: str
    codec: str
    blocks: int
    raw_bytes: int


def measure(device: Device) -> Iterator[Row]:
    import torch

    began = time.monotonic()
    shape = shape_for(device.free_bytes(), device.dry)
    block_bytes = shape.layers * shape.kv_heads * BLOCK_SIZE * 2 * shape.head_dim * 2
    slices = {block_bytes: 1} if device.dry else {size: size // block_bytes for size in SLICE_BYTES}
    most = max(slices.values())
    with torch.inference_mode():
        decoder = Decoder(shape, device, BATCH, 64 if device.dry else CONTEXT, BLOCK_SIZE, 2 * most)
        store = make_store(device, decoder.cache, 4 * most)
        yield from store.failures
        decoder.capture()
        yield {"kind": "decoder", "model": shape.name, "graph": not decoder.without_graph, "without_graph": decoder.without_graph}
        plans = [
            Beside(mode, codec, blocks, raw_bytes)
            for codec in store.row_bytes
            for raw_bytes, blocks in slices.items()
            for mode in MODES
            if mode != ALONE or raw_bytes == min(slices)
        ]
        turns = 0
        while turns < (1 if device.dry else TURNS) and time.monotonic() - began < LIMIT_SECONDS:
            for beside in plans:
                yield from _turn(decoder, store, beside, 3 if device.dry else STEPS)
            turns += 1
        yield {"kind": "turns", "turns": turns}
        if turns < LEAST_TURNS and not device.dry:
            yield failure("decoding", f"{LIMIT_SECONDS:.0f} s were enough for {turns} turns only, and {LEAST_TURNS} are needed")
        store.side.close()


def _turn(decoder: Decoder, store: Store, beside: Beside, steps: int) -> Iterator[Row]:
    from alise_engine.kv.work import AliseMetadata, Drop, Load, Save

    saved, filled = decoder.spare[: beside.blocks], decoder.spare[-beside.blocks :]
    tokens = beside.blocks * BLOCK_SIZE
    side: Any = store.side
    # What is restored beside the steps is saved before them.
    side.begin_step(AliseMetadata([Drop("kept"), Drop("saved"), Save("kept", saved, 0, tokens, beside.codec, beside=True)]))
    side.settle()
    for step in range(steps):
        work = AliseMetadata()
        if beside.mode in ("saves", "both"):
            work.writes += [Drop("saved"), Save("saved", saved, 0, tokens, beside.codec, beside=True)]
        if beside.mode in ("restores", "both"):
            work.loads.append(Load("kept", filled, 0, ahead=True))
        began = time.perf_counter()
        side.begin_step(work)
        saves_issued = time.perf_counter()
        decoder.launch()
        launched = time.perf_counter()
        side.start_loads(work)
        loads_issued = time.perf_counter()
        decoder.tokens()
        ended = time.perf_counter()
        if step >= UNCOUNTED:
            yield {
                "kind": "step", "mode": beside.mode, "codec": beside.codec, "raw_bytes": beside.raw_bytes, "seconds": ended - began,
                "issue_seconds": saves_issued - began + loads_issued - launched,
            }  # fmt: skip
    side.settle()
    side.take_spent()

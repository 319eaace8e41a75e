"""What a save costs the step that it happens in: in the step, or beside it in a thread.

A worker with a KV cache of eight layers (2 KV heads of 128 channels, bf16; 8 KiB per token) saves 3,500 tokens while its forward pass,
here some products of matrices, takes about 10 ms. What the step is held up by is the CPU time of its own thread; what it costs in all is
the process's. Both ways in turn, so that other load on the machine slows both. `engine.py` runs it.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from tests.bench.harness import Figure, Row, Settings, median

LAYERS: Final = 8
BLOCK_SIZE: Final = 128
TOKENS: Final = 3500
CODECS: Final = ("raw", "int8")
WAYS: Final = ("in the step", "beside it")


def measure(settings: Settings) -> Iterator[Row]:
    """One row per step, forward pass and all: codec, way, CPU seconds of the step's thread and of the process, wall-clock seconds."""
    import torch
    from vllm.platforms import current_platform

    from alise_engine.compat import device
    from alise_engine.kv.int8 import INT8, RAW, Codec, KeyLayout, LayerShape
    from alise_engine.kv.slabs import Geometry
    from alise_engine.kv.work import AliseMetadata, Drop, Save
    from alise_engine.kv.worker import WorkerSide

    current_platform.import_kernels()
    torch.set_num_threads(1)
    shape = LayerShape(2, BLOCK_SIZE, 128, torch.bfloat16, KeyLayout.TRANSPOSED)
    codecs: dict[str, Codec] = {RAW.name: RAW, INT8.name: device.int8_codec()}
    row_bytes = {name: codec.row_bytes(shape) for name, codec in codecs.items()}
    blocks = -(-TOKENS // BLOCK_SIZE)
    cache = {f"l{number}": torch.randn(2 * blocks, 2, BLOCK_SIZE, 256).to(torch.bfloat16) for number in range(LAYERS)}
    sides = {}
    for way in WAYS:
        geometry = Geometry.of(4 * LAYERS * blocks * row_bytes[RAW.name], row_bytes)
        make_copies = partial(_host_copies, threaded=way == WAYS[1])
        sides[way] = WorkerSide(shape, row_bytes[RAW.name], geometry, codecs, make_copies)
        sides[way].register(cache, 2 * blocks)
    matrix = torch.randn(768, 768)
    ids = tuple(range(1, 2 * blocks, 2))
    for repetition in range(1 + (10 if settings.quick else 60)):
        for codec in (*CODECS, "nothing"):
            for way in WAYS:
                save = Save("r", ids, 0, TOKENS, codec, beside=way == WAYS[1])
                began, process, wall = time.thread_time(), time.process_time(), time.perf_counter()
                sides[way].begin_step(AliseMetadata([] if codec == "nothing" else [Drop("r"), save]))
                for _ in range(8):
                    matrix @ matrix
                sides[way].begin_step(AliseMetadata())
                row = {"thread": time.thread_time() - began, "process": time.process_time() - process, "wall": time.perf_counter() - wall}
                # The first ones meet fresh memory.
                if repetition:
                    yield {"codec": codec, "way": way, **row}
    for side in sides.values():
        side.close()


def _host_copies(device: Any, threaded: bool) -> Any:
    from alise_engine.kv.copies import HostCopies

    return HostCopies(threaded)


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Medians, less those of the same step without a save."""

    def more_ms(codec: str, way: str, column: str) -> float:
        with_save, without = (
            median(row[column] for row in rows if (row["codec"], row["way"]) == (chosen, way)) for chosen in (codec, "nothing")
        )
        return (with_save - without) * 1e3

    found = []
    for codec in CODECS:
        for way, name in zip(WAYS, ("in_step", "beside"), strict=True):
            found.append(Figure(f"save_{codec}_{name}_step_cpu_ms", more_ms(codec, way, "thread"), "ms of the step's thread", "lower"))
            found.append(Figure(f"save_{codec}_{name}_process_cpu_ms", more_ms(codec, way, "process"), "ms of the process", "lower"))
            found.append(Figure(f"save_{codec}_{name}_wall_ms", more_ms(codec, way, "wall"), "ms longer by the clock", "lower"))
    return found


def plot(rows: Sequence[Row], axes: Any) -> None:
    """The step's own thread, by codec and way."""
    labels, heights = [], []
    for codec in (*CODECS, "nothing"):
        for way in WAYS:
            labels.append(f"{codec},\n{way}")
            heights.append(median(row["thread"] for row in rows if (row["codec"], row["way"]) == (codec, way)) * 1e3)
    axes.bar(labels, heights)
    axes.set(ylabel="ms of CPU of the step's thread", title=f"A step that saves {TOKENS} tokens")

"""How fast a core writes KV down and reads it back, against a plain copy of the same bytes; and how many bytes it takes.

One layer of an 8B model (8 KV heads of 128 channels, bf16), 4,096 tokens in blocks that lie here and there. CPU time of one thread; the
copy is measured in turn with each codec, because other load on the machine slows both. `engine.py` runs it.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from tests.bench.harness import Figure, Row, Settings, median

HEADS: Final = 8
CHANNELS: Final = 128
TOKENS: Final = 4096
BLOCK_SIZES: Final = (32, 64, 128)
# What `alise-engine serve` sets on CPUs.
SHOWN: Final = 128
CODECS: Final = ("raw", "int8", "int8 torch")


def measure(settings: Settings) -> Iterator[Row]:
    """One row per repetition: codec, block size, bytes, and the seconds of encoding, decoding and copying."""
    import torch
    from vllm.platforms import current_platform

    from alise_engine.compat import device
    from alise_engine.kv.int8 import INT8, RAW, Codec, Int8, KeyLayout, LayerShape

    current_platform.import_kernels()
    torch.set_num_threads(1)
    codecs: dict[str, Codec] = {"raw": RAW, "int8": Int8(device.row_quantizer()), "int8 torch": INT8}
    for block_size in BLOCK_SIZES:
        blocks = TOKENS // block_size
        shape = LayerShape(HEADS, block_size, CHANNELS, torch.bfloat16, KeyLayout.TRANSPOSED)
        layer = torch.randn(2 * blocks, HEADS, block_size, 2 * CHANNELS).to(torch.bfloat16)
        source, copied = layer[:blocks].clone(), layer[:blocks].clone()
        index = torch.randperm(2 * blocks, generator=torch.Generator().manual_seed(0))[:blocks]
        for name in CODECS:
            rows = torch.zeros(blocks, codecs[name].row_bytes(shape), dtype=torch.uint8)
            for repetition in range(1 + (10 if settings.quick else 60)):
                began = time.thread_time()
                copied.copy_(source)
                after_copy = time.thread_time()
                codecs[name].encode(layer, index, shape, TOKENS, rows)
                after_encode = time.thread_time()
                codecs[name].decode(rows, layer, index, shape)
                after_decode = time.thread_time()
                # The first one meets fresh memory.
                if repetition:
                    yield {
                        "codec": name,
                        "block_size": block_size,
                        "bytes": rows.numel(),
                        "bf16_bytes": source.nbytes,
                        "copy_seconds": after_copy - began,
                        "encode_seconds": after_encode - after_copy,
                        "decode_seconds": after_decode - after_encode,
                    }


def figures(rows: Sequence[Row], settings: Settings) -> list[Figure]:
    """Medians of a run; every fraction is one of the copies measured beside it."""

    def chosen(codec: str, block_size: int, column: str) -> list[float]:
        return [row[column] for row in rows if (row["codec"], row["block_size"]) == (codec, block_size)]

    def fraction(codec: str, block_size: int, what: str) -> float:
        return median(chosen(codec, block_size, "copy_seconds")) / median(chosen(codec, block_size, f"{what}_seconds"))

    def of_bf16(block_size: int) -> float:
        return chosen("int8", block_size, "bytes")[0] / chosen("int8", block_size, "bf16_bytes")[0]

    copy_gb = chosen("int8", SHOWN, "bf16_bytes")[0] / median(chosen("int8", SHOWN, "copy_seconds")) / 1e9
    found = [
        Figure("encode_memcpy_fraction", fraction("int8", SHOWN, "encode"), "of memcpy", "higher", goal=0.2),
        Figure("decode_memcpy_fraction", fraction("int8", SHOWN, "decode"), "of memcpy", "higher", goal=0.1),
        Figure("int8_bytes_fraction", of_bf16(SHOWN), "of bf16", "lower", goal=0.53),
        Figure("memcpy_gb_per_s", copy_gb, "GB/s of bf16 KV", "higher"),
    ]
    for block_size in BLOCK_SIZES[:-1]:
        found.append(Figure(f"encode_memcpy_fraction_block_{block_size}", fraction("int8", block_size, "encode"), "of memcpy", "higher"))
        found.append(Figure(f"decode_memcpy_fraction_block_{block_size}", fraction("int8", block_size, "decode"), "of memcpy", "higher"))
        found.append(Figure(f"int8_bytes_fraction_block_{block_size}", of_bf16(block_size), "of bf16", "lower"))
    for codec, name in (("raw", "raw"), ("int8 torch", "torch")):
        found.append(Figure(f"encode_memcpy_fraction_{name}", fraction(codec, SHOWN, "encode"), "of memcpy", "higher"))
        found.append(Figure(f"decode_memcpy_fraction_{name}", fraction(codec, SHOWN, "decode"), "of memcpy", "higher"))
    return found


def plot(rows: Sequence[Row], axes: Any) -> None:
    """Fractions of memcpy by block size, a line per codec and direction."""
    for codec in CODECS:
        for what in ("encode", "decode"):
            fractions = []
            for block_size in BLOCK_SIZES:
                some = [row for row in rows if (row["codec"], row["block_size"]) == (codec, block_size)]
                fractions.append(median(row["copy_seconds"] for row in some) / median(row[f"{what}_seconds"] for row in some))
            axes.plot(BLOCK_SIZES, fractions, marker="o", label=f"{codec}, {what}")
    axes.set(xlabel="block size (tokens)", ylabel="of memcpy, one core", yscale="log", title="Codec throughput", xticks=BLOCK_SIZES)
    axes.legend()

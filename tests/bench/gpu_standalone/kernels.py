"""The fused INT8 kernels: whether they write what their torch reference writes, and how many bytes per second they move.

`parts.py` runs it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from tests.bench.gpu_standalone.machine import Device
from tests.bench.gpu_standalone.rows import attempt
from tests.bench.harness import Row

Tensor = Any

HEADS, CHANNELS = 8, 128
# Of one layer's KV cache: several times what a GPU's caches hold.
RAW_BYTES: Final = 256 << 20
REPETITIONS: Final = 20
_UNWRITTEN: Final = 77
# In Triton's interpreter a case takes seconds.
DRY_CASES: Final = ("blocks of 16 tokens", "blocks that the kernels cut in two", "half precision", "nothing valid")


@dataclass(frozen=True, slots=True)
class Timed:
    """A shape that is timed: the numbers' type, tokens in a block, and whether the cache lies tokens first, as FlashAttention's does."""

    name: str
    dtype: str
    block_size: int
    tokens_first: bool


TIMED: Final = (
    Timed("bf16_16", "bfloat16", 16, True),
    Timed("bf16_16_heads_first", "bfloat16", 16, False),
    Timed("bf16_64", "bfloat16", 64, True),
    Timed("fp16_16", "float16", 16, True),
    Timed("fp32_16", "float32", 16, True),
)


def measure(device: Device) -> Iterator[Row]:
    from tests.engine.fused_int8_cases import CASES

    yield from attempt("a copy on the device", partial(_ceiling, device))
    for timed in TIMED[: 1 if device.dry else None]:
        yield from attempt(timed.name, partial(_rates, timed, device))
    # Each of these is compiled anew, so they are last: where that takes long, the others are there.
    for name, case in CASES.items():
        if not device.dry or name in DRY_CASES:
            yield from attempt(name, partial(_compare_case, name, case, device))


def _compare_case(name: str, case: Any, device: Device) -> Iterator[Row]:
    from tests.engine.fused_int8_cases import ROWS, inputs

    shape, layer, index, valid_tokens = inputs(case, device.name)
    yield {"kind": "case", "case": name, **compare(shape, layer, index, valid_tokens, ROWS)}


def compare(shape: Any, layer: Tensor, index: Tensor, valid_tokens: int, blocks: int) -> Row:
    """How far the kernels are from the reference: bytes of the rows; the numbers in them, in levels; numbers read back, in units."""
    import torch

    from alise_engine.kv.fused_int8 import FusedInt8
    from alise_engine.kv.int8 import INT8

    # The reference on the CPU: on a GPU torch divides by a constant as it thinks best.
    expected = torch.zeros(blocks, INT8.row_bytes(shape), dtype=torch.uint8)
    reference = torch.zeros_like(layer, device="cpu")
    INT8.encode(layer.cpu(), index.cpu(), shape, valid_tokens, expected)
    INT8.decode(expected, reference, index.cpu(), shape)
    # What the kernels do not write stays another byte than the reference's.
    written = torch.full_like(expected, _UNWRITTEN, device=layer.device)
    restored = torch.full_like(layer, _UNWRITTEN)
    FusedInt8().encode(layer, index, shape, valid_tokens, written)
    FusedInt8().decode(expected.to(layer.device), restored, index, shape)
    (should, step), (are, other_step) = numbers(expected, shape), numbers(written.cpu(), shape)
    back, original = (each.index_select(0, index.cpu()).double() for each in (restored.cpu(), reference))
    info = torch.finfo(layer.dtype)
    others = torch.ones(len(layer), dtype=torch.bool, device=layer.device)
    others[index] = False
    return {
        "bytes": int((expected != written.cpu()).sum()),
        "of_bytes": expected.numel(),
        "levels": float(((should - are).abs() / torch.maximum(step, other_step)).max()),
        "units": float(((back - original).abs() / (original.abs().clamp_min(info.tiny) * info.eps)).max()),
        "spilled": int((restored[others] != _UNWRITTEN).sum()),
    }


def numbers(rows: Tensor, shape: Any) -> tuple[Tensor, Tensor]:
    """The numbers that rows of `Int8` hold, in their own order, and the step of each one's grid: `[rows, heads, 2, numbers]`."""
    import torch

    count, heads, tokens, channels = len(rows), shape.heads, shape.block_size, shape.head_dim
    sides = 2 * heads * (channels + tokens)
    q = rows[:, : shape.elements].view(torch.int8).double().view(count, heads, 2, channels * tokens)
    scale = rows[:, shape.elements : shape.elements + sides].contiguous().view(torch.float16).double().view(count, heads, -1) / 16
    zero = rows[:, shape.elements + sides :].contiguous().view(torch.int16).double().view(count, heads, -1)

    def spread(side: Tensor) -> Tensor:
        keys, values = side[:, :, :channels], side[:, :, channels:]
        return torch.stack([keys.repeat_interleave(tokens, 2), values.repeat_interleave(channels, 2)], 2)

    return (q - spread(zero)) * spread(scale), spread(scale)


def _ceiling(device: Device) -> Iterator[Row]:
    import torch

    source = torch.randint(0, 255, (1 << 16 if device.dry else RAW_BYTES,), dtype=torch.uint8, device=device.name)
    target = torch.empty_like(source)
    seconds = device.seconds(lambda: target.copy_(source), 3 if device.dry else REPETITIONS)
    yield {"kind": "ceiling", "bytes_moved": 2 * source.numel(), "seconds": seconds}


def _rates(timed: Timed, device: Device) -> Iterator[Row]:
    import torch

    from alise_engine.kv.fused_int8 import FusedInt8
    from alise_engine.kv.int8 import INT8, KeyLayout, LayerShape

    dtype = getattr(torch, timed.dtype)
    shape = LayerShape(HEADS, timed.block_size, CHANNELS, dtype, KeyLayout.PER_TOKEN)
    blocks = 2 if device.dry else RAW_BYTES // (shape.elements * dtype.itemsize)
    sizes = (timed.block_size, HEADS) if timed.tokens_first else (HEADS, timed.block_size)
    layer = torch.randn(blocks, *sizes, 2 * CHANNELS, device=device.name).to(dtype)
    layer = layer.transpose(1, 2) if timed.tokens_first else layer
    index = torch.randperm(blocks, device=device.name)
    valid_tokens = blocks * timed.block_size
    if not device.dry:
        few = index[:256].contiguous()
        yield {"kind": "case", "case": f"8 heads, {timed.name}", **compare(shape, layer, few, len(few) * timed.block_size, len(few))}
    rows = torch.zeros(blocks, INT8.row_bytes(shape), dtype=torch.uint8, device=device.name)
    moved = rows.numel() + layer.numel() * dtype.itemsize
    for codec, instance in (("fused", FusedInt8()), ("torch", INT8)):
        works = {
            "write": partial(instance.encode, layer, index, shape, valid_tokens, rows),
            "read": partial(instance.decode, rows, layer, index, shape),
        }
        for way, work in works.items():
            seconds = device.seconds(work, 1 if device.dry else REPETITIONS)
            yield {"kind": "rate", "shape": timed.name, "way": way, "codec": codec, "bytes_moved": moved, "seconds": seconds}

"""The fused kernels against their torch reference, in Triton's interpreter and a process of its own.

Prints a JSON object: for each case how many bytes of the rows differ, and how far the restored numbers are apart, in units of the numbers'
own precision. The interpreter cuts a bf16 off where a GPU rounds it, so there one unit is nothing. `test_fused_int8.py` starts it.
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import torch

from alise_engine.kv.int8 import INT8, KeyLayout, LayerShape

HEADS, ROWS = 2, 3


@dataclass(frozen=True, slots=True)
class Case:
    block_size: int = 16
    # Kernel blocks per block.
    ratio: int = 1
    channels: int = 128
    dtype: Any = torch.float32
    layout: KeyLayout = KeyLayout.PER_TOKEN
    # Of the tokens of all rows.
    valid: float = 1.0
    # How the cache lies in memory: FlashAttention's is tokens first.
    tokens_first: bool = False
    # What the numbers are multiplied by, and what is added to them.
    scale: float = 1.0
    offset: float = 0.0


CASES = {
    "blocks of 16 tokens": Case(),
    "blocks of 64 tokens": Case(block_size=64),
    "blocks of 128 tokens, keys transposed": Case(block_size=128, layout=KeyLayout.TRANSPOSED),
    "blocks that the kernels cut in two": Case(block_size=32, ratio=2),
    "80 channels": Case(channels=80),
    "48 tokens": Case(block_size=48),
    "tokens before heads": Case(tokens_first=True),
    "half precision": Case(dtype=torch.float16),
    "bf16": Case(dtype=torch.bfloat16),
    "a last block that is partly filled": Case(valid=0.7),
    "blocks behind the last token": Case(valid=0.2),
    "nothing valid": Case(valid=0.0),
    "far from zero": Case(offset=3e4),
    "flat": Case(scale=0.0, offset=1.5),
    "all zero": Case(scale=0.0),
    "tiny": Case(scale=1e-7),
    "huge": Case(scale=1e7),
}


def inputs(case: Case, device: str) -> tuple[LayerShape, Any, Any, int]:
    """A layer's shape, its cache, the blocks that are written, and how many of their tokens hold something."""
    torch.manual_seed(0)
    shape = LayerShape(HEADS, case.block_size, case.channels, case.dtype, case.layout)
    blocks, tokens = 2 * ROWS * case.ratio, case.block_size // case.ratio
    numbers = torch.randn(blocks, HEADS, tokens, 2 * case.channels) * torch.rand(2 * case.channels).exp() * case.scale + case.offset
    layer = numbers.to(case.dtype).to(device)
    if case.tokens_first:
        layer = layer.transpose(1, 2).contiguous().transpose(1, 2)
    index = torch.randperm(blocks)[: ROWS * case.ratio].to(device)
    return shape, layer, index, int(case.valid * ROWS * case.block_size)


def compare(case: Case) -> dict[str, float]:
    from alise_engine.kv.fused_int8 import FusedInt8

    shape, layer, index, valid_tokens = inputs(case, "cpu")
    fused = FusedInt8()
    rows = {codec: torch.zeros(ROWS, INT8.row_bytes(shape), dtype=torch.uint8) for codec in (INT8, fused)}
    restored = {codec: torch.zeros_like(layer) for codec in (INT8, fused)}
    for codec in (INT8, fused):
        codec.encode(layer, index, shape, valid_tokens, rows[codec])
        codec.decode(rows[INT8], restored[codec], index, shape)
    apart = (restored[INT8].float() - restored[fused].float()).abs()
    unit = restored[INT8].float().abs().clamp_min(torch.finfo(case.dtype).tiny) * torch.finfo(case.dtype).eps
    return {"bytes": int((rows[INT8] != rows[fused]).sum()), "units": float((apart / unit).max())}


if __name__ == "__main__":
    json.dump({name: compare(case) for name, case in CASES.items()}, sys.stdout)

"""How blocks of KV cache are written down in host memory: pure tensor maths, no store, no vLLM.

A codec turns gathered blocks of one layer, `[blocks, heads, block_size, 2 * head_dim]`, into rows of bytes `[blocks, row_bytes]` and back.
The row of a block has the same length whatever it holds, so that bytes can be counted before anything is encoded.

INT8 is asymmetric: `x = q * scale + low`, q in 0..255. Keys get one (scale, low) per channel and block, because a few channels are large
for every token; values get one per token (KIVI, section 3; the ALISE paper, section 3.3). Scales are bf16, rounded outwards so
that no value of the group falls outside the grid: `low` down, then `scale` up from what `low` became.
A row is [keys | values | key scales | key lows | value scales | value lows]. Of bf16's bytes that is 1/2 + 1/block_size + 1/head_dim.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Protocol

import torch

from ..core_protocol import CODEC_INT8, CODEC_RAW

Tensor = Any

_STEPS: Final = 255.0
_SMALLEST_SCALE: Final = 1e-30


class KeyLayout(Enum):
    """How keys and values lie inside one (block, head)."""

    # vLLM's CPU kernels ("vec"): keys transposed, [head_dim, block_size], then values, [block_size, head_dim].
    TRANSPOSED = "transposed"
    # FlashAttention and its kin: per token, the key's channels, then the value's. Strides are the tensor's business.
    PER_TOKEN = "per_token"


@dataclass(frozen=True, slots=True)
class LayerShape:
    """One layer's blocks: `[blocks, heads, block_size, 2 * head_dim]` of `dtype`."""

    heads: int
    block_size: int
    head_dim: int
    dtype: Any
    keys: KeyLayout | None

    @property
    def elements(self) -> int:
        """Numbers in one block, keys and values."""
        return 2 * self.heads * self.block_size * self.head_dim


class Codec(Protocol):
    """Blocks of one layer to bytes and back."""

    @property
    def name(self) -> str: ...

    def row_bytes(self, shape: LayerShape) -> int: ...

    def encode(self, blocks: Tensor, shape: LayerShape, valid_tokens: int) -> Tensor:
        """`uint8 [blocks, row_bytes]`. `valid_tokens` of these consecutive blocks hold something; what lies behind must not leak in."""
        ...

    def decode(self, rows: Tensor, shape: LayerShape) -> Tensor:
        """The blocks' numbers in `shape.dtype` and in their order; the caller knows what view it wants."""
        ...


class Raw:
    """The bytes as they are."""

    name = CODEC_RAW

    def row_bytes(self, shape: LayerShape) -> int:
        return shape.elements * int(shape.dtype.itemsize)

    def encode(self, blocks: Tensor, shape: LayerShape, valid_tokens: int) -> Tensor:
        return blocks.contiguous().view(blocks.shape[0], -1).view(torch.uint8)

    def decode(self, rows: Tensor, shape: LayerShape) -> Tensor:
        return rows.contiguous().view(shape.dtype)


class Int8:
    """Eight bits per number and bf16 scales. Needs a shape whose key layout is known."""

    name = CODEC_INT8

    def row_bytes(self, shape: LayerShape) -> int:
        scales = shape.heads * (shape.head_dim + shape.block_size)
        return shape.elements + 2 * 2 * scales

    def encode(self, blocks: Tensor, shape: LayerShape, valid_tokens: int) -> Tensor:
        keys, values = split(blocks, shape)
        keys, values = (fill_invalid(part.float(), valid_tokens) for part in (keys, values))
        parts = [*quantize(keys, dim=2), *quantize(values, dim=3)]
        ordered = [parts[0], parts[3], parts[1], parts[2], parts[4], parts[5]]
        return torch.cat([part.reshape(len(blocks), -1).view(torch.uint8) for part in ordered], dim=1)

    def decode(self, rows: Tensor, shape: LayerShape) -> Tensor:
        count, heads, tokens, channels = len(rows), shape.heads, shape.block_size, shape.head_dim
        half = shape.elements // 2
        lengths = [half, half, *[2 * heads * channels] * 2, *[2 * heads * tokens] * 2]
        keys, values, key_scale, key_low, value_scale, value_low = torch.split(rows, lengths, dim=1)
        per_channel = [part.contiguous().view(torch.bfloat16).view(count, heads, 1, channels) for part in (key_scale, key_low)]
        per_token = [part.contiguous().view(torch.bfloat16).view(count, heads, tokens, 1) for part in (value_scale, value_low)]
        decoded = [
            dequantize(part.reshape(count, heads, tokens, channels), scale, low).to(shape.dtype)
            for part, (scale, low) in ((keys, per_channel), (values, per_token))
        ]
        return join(decoded[0], decoded[1], shape)


def split(blocks: Tensor, shape: LayerShape) -> tuple[Tensor, Tensor]:
    """Keys and values, each `[blocks, heads, block_size, head_dim]`. Raises ValueError when the layout is unknown."""
    match shape.keys:
        case KeyLayout.TRANSPOSED:
            halves = blocks.reshape(len(blocks), shape.heads, 2, shape.block_size * shape.head_dim)
            keys = halves[:, :, 0].reshape(-1, shape.heads, shape.head_dim, shape.block_size).transpose(2, 3)
            return keys, halves[:, :, 1].reshape(-1, shape.heads, shape.block_size, shape.head_dim)
        case KeyLayout.PER_TOKEN:
            return blocks[..., : shape.head_dim], blocks[..., shape.head_dim :]
        case None:
            raise ValueError("INT8 needs to know which channel a number belongs to; use the raw codec for this KV cache layout")


def join(keys: Tensor, values: Tensor, shape: LayerShape) -> Tensor:
    """The inverse of `split`."""
    if shape.keys is KeyLayout.PER_TOKEN:
        return torch.cat([keys, values], dim=3)
    flat = [keys.transpose(2, 3).reshape(len(keys), shape.heads, -1), values.reshape(len(values), shape.heads, -1)]
    return torch.stack(flat, dim=2).view(-1, shape.heads, shape.block_size, 2 * shape.head_dim)


def fill_invalid(part: Tensor, valid_tokens: int) -> Tensor:
    """Tokens behind the first `valid_tokens` take their block's first token, so that left-overs do not widen a channel's range."""
    count, _, block_size, _ = part.shape
    if valid_tokens >= count * block_size:
        return part
    valid = (torch.arange(count * block_size, device=part.device) < valid_tokens).view(count, 1, block_size, 1)
    first = torch.where(valid[:, :, :1], part[:, :, :1], torch.zeros((), device=part.device))
    return torch.where(valid, part, first)


def quantize(part: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """(q as uint8, scale, low as bf16) of float32 numbers, one scale along `dim`."""
    low = _bf16_towards(part.amin(dim, keepdim=True), up=False)
    scale = _bf16_towards(((part.amax(dim, keepdim=True) - low) / _STEPS).clamp_min(_SMALLEST_SCALE), up=True)
    q = ((part - low) / scale).round_().clamp_(0, _STEPS).to(torch.uint8)
    return q.contiguous(), scale.to(torch.bfloat16), low.to(torch.bfloat16)


def dequantize(q: Tensor, scale: Tensor, low: Tensor) -> Tensor:
    """float32 numbers."""
    return q.float().mul_(scale.float()).add_(low.float())


def _bf16_towards(x: Tensor, *, up: bool) -> Tensor:
    """float32 numbers that bf16 holds exactly: the nearest not below `x` (up) or not above it."""
    bits = x.contiguous().view(torch.int32)
    truncated = bits & -0x10000
    away = (bits + 0xFFFF) & -0x10000
    grows = bits >= 0 if up else bits < 0
    return torch.where(grows, away, truncated).view(torch.float32)


RAW: Final = Raw()
INT8: Final = Int8()
CODECS_BY_NAME: Final[dict[str, Codec]] = {RAW.name: RAW, INT8.name: INT8}

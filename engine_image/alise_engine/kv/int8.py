"""Encodes blocks of KV cache for host memory, and decodes them: pure tensor maths, no store, no vLLM.

A codec gathers blocks of one layer's cache, `[device blocks, heads, block_size, 2 * head_dim]`, into rows of bytes `[blocks, row_bytes]`,
and puts them back. A row has the same length whatever it holds, so that bytes can be counted before anything is encoded.

INT8 is asymmetric: `x = (q - zero) * scale`, q in -128..127. Keys get one (scale, zero) per channel and block, because a few channels are
large for every token; values get one per token (KIVI splits them so). A row of bytes is, for each head, q of its
keys `[head_dim, block_size]` and of its values `[block_size, head_dim]`; then all scales; then all zeros. Of bf16's bytes that is
1/2 + 1/block_size + 1/head_dim.

Scales are float16 of `scale * 16`: at two bytes bf16 has three bits of precision less, which is up to a whole step at the far end of the
grid. They cover spans of 1e-6 to 1e6; what is further apart than that is clipped. Zeros are int16: a group whose numbers differ by less
than 1/128 of their size gets a coarser grid, still finer than what bf16 can hold.

Numbers are taken in pieces that fit a core's cache; the passes over them are what this costs. `copies.py` and `worker.py` use the codecs.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, Protocol

import torch

from ..wire.terms import CODEC_INT8, CODEC_RAW

Tensor = Any
# Fills (q as int8, from numbers, both `[groups, length]`; scale as float32, zero as int32, both `[groups, 1]`).
RowQuantizer = Callable[[Tensor, Tensor, Tensor, Tensor], None]

_STEPS: Final = 255.0
_LOWEST: Final = -128.0
_SCALE_FACTOR: Final = 16.0
_FLOAT16_LARGEST: Final = 65504.0
_FLOAT16_SMALLEST: Final = 2.0**-24
# Scales that float16 holds with all its bits.
_SMALLEST: Final = 2.0**-14 / _SCALE_FACTOR
_LARGEST: Final = _FLOAT16_LARGEST / _SCALE_FACTOR
# Half a unit in the last place of float16, normal and subnormal: a scale enlarged by both does not come out smaller after rounding.
_ROUNDS_UP: Final = 1.0 + 2.0**-11
_ROUNDS_UP_SUBNORMAL: Final = 2.0**-25
# Room for a grid's own 255 steps below the end of int16.
_LARGEST_OFFSET: Final = 32_000.0
# float32 numbers worked on at once on a CPU: 1 MiB, a core's second-level cache.
_PIECE: Final = 1 << 18


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
    """Blocks of one layer to bytes and back.

    `layer` is the layer's cache and `index` the blocks in it. A backend may cut blocks into several smaller ones: then there are as many
    indices per row. `rows` is `uint8 [blocks, row_bytes]` on the layer's device, its last dimension contiguous.
    """

    @property
    def name(self) -> str: ...

    def row_bytes(self, shape: LayerShape) -> int: ...

    def encode(self, layer: Tensor, index: Tensor, shape: LayerShape, valid_tokens: int, rows: Tensor) -> None:
        """Fills `rows`. `valid_tokens` of these consecutive blocks hold something; what lies behind must not leak in."""
        ...

    def decode(self, rows: Tensor, layer: Tensor, index: Tensor, shape: LayerShape) -> None:
        """Fills the blocks of the layer."""
        ...


class Raw:
    """The bytes as they are."""

    name = CODEC_RAW

    def row_bytes(self, shape: LayerShape) -> int:
        return shape.elements * int(shape.dtype.itemsize)

    def encode(self, layer: Tensor, index: Tensor, shape: LayerShape, valid_tokens: int, rows: Tensor) -> None:
        torch.index_select(layer, 0, index, out=self._as_blocks(rows, layer, index))

    def decode(self, rows: Tensor, layer: Tensor, index: Tensor, shape: LayerShape) -> None:
        _put(layer, index, self._as_blocks(rows, layer, index))

    @staticmethod
    def _as_blocks(rows: Tensor, layer: Tensor, index: Tensor) -> Tensor:
        return rows.view(layer.dtype).view(len(index), *layer.shape[1:])


class Int8:
    """Eight bits per number. Needs a shape whose key layout is known. `quantize_rows` is a compiled kernel, used instead of `quantize`."""

    name = CODEC_INT8

    def __init__(self, quantize_rows: RowQuantizer | None = None) -> None:
        self._quantize = quantize_rows or quantize

    def row_bytes(self, shape: LayerShape) -> int:
        scales = shape.heads * (shape.head_dim + shape.block_size)
        return shape.elements + 2 * 2 * scales

    def encode(self, layer: Tensor, index: Tensor, shape: LayerShape, valid_tokens: int, rows: Tensor) -> None:
        ratio = len(index) // len(rows)
        for part in _parts(layer, rows, shape, ratio):
            scale = torch.empty(part.scale.shape, dtype=torch.float32, device=layer.device)
            zero = torch.empty(part.zero.shape, dtype=torch.int32, device=layer.device)

            def write(
                quantize: RowQuantizer, first: int, end: int, part: _Part = part, sides: tuple[Tensor, Tensor] = (scale, zero)
            ) -> None:
                numbers = _gather(part, index[first * ratio : end * ratio], ratio)
                if valid_tokens < end * shape.block_size:
                    numbers = numbers.clone()
                    for groups, token_dim in part.tokens:
                        fill_invalid(numbers[:, :, groups], token_dim, valid_tokens - first * shape.block_size)
                target = part.q[first:end]
                q = target if target.is_contiguous() else torch.empty_like(target, memory_format=torch.contiguous_format)
                scale, zero = (side[first:end].view(-1, 1) for side in sides)
                quantize(q.view(-1, part.length), numbers.view(-1, part.length), scale, zero)
                if q is not target:
                    target.copy_(q)

            for first, end in _pieces(part):
                write(self._quantize, first, end)
            if self._quantize is not quantize and not _all_fit(scale, zero):
                for block in _unfit(scale, zero).flatten(1).any(1).nonzero().view(-1).tolist():
                    write(quantize, block, block + 1)
            part.scale.copy_(scale.mul_(_SCALE_FACTOR))
            part.zero.copy_(zero)

    def decode(self, rows: Tensor, layer: Tensor, index: Tensor, shape: LayerShape) -> None:
        ratio = len(index) // len(rows)
        for part in _parts(layer, rows, shape, ratio):
            scale = part.scale.float().div_(_SCALE_FACTOR).unsqueeze(3)
            zero = part.zero.float().unsqueeze(3)
            pieces = _pieces(part)
            # One for all: fresh memory costs more than what is done with it.
            buffer = torch.empty(pieces[0][1], *part.q.shape[1:], dtype=torch.float32, device=layer.device)
            for first, end in pieces:
                numbers = buffer[: end - first].copy_(part.q[first:end])
                numbers.sub_(zero[first:end]).mul_(scale[first:end])
                _scatter(part, index[first * ratio : end * ratio], ratio, numbers)


@dataclass(frozen=True, slots=True)
class _Part:
    """Keys, values or both of a layer, and their places in the rows. A group is what has one scale."""

    # A view of the layer, `[device blocks, heads, groups, length]`.
    cache: Tensor
    # Where its tokens are: which groups, and along which dimension (3 for keys, 2 for values).
    tokens: tuple[tuple[slice, int], ...]
    # int8 `[blocks, heads, groups, length]`, float16 and int16 `[blocks, heads, groups]`.
    q: Tensor
    scale: Tensor
    zero: Tensor

    @property
    def length(self) -> int:
        return int(self.q.shape[3])


def _parts(layer: Tensor, rows: Tensor, shape: LayerShape, ratio: int) -> tuple[_Part, ...]:
    heads, tokens, channels = shape.heads, shape.block_size, shape.head_dim
    sides = 2 * heads * (channels + tokens)
    q, scale, zero = torch.split(rows, [shape.elements, sides, sides], dim=1)
    q = q.view(torch.int8)
    scale, zero = (side.view(dtype).unflatten(1, (heads, -1)) for side, dtype in ((scale, torch.float16), (zero, torch.int16)))
    everything = slice(None)
    if tokens == channels and shape.keys is KeyLayout.TRANSPOSED and ratio == 1:
        # Keys and values are groups of the same length, one after the other in the cache as in the row: nothing has to be taken apart.
        cache = layer.view(len(layer), heads, 2 * channels, tokens)
        where = ((slice(0, channels), 3), (slice(channels, None), 2))
        return (_Part(cache, where, q.unflatten(1, (heads, 2 * channels, tokens)), scale, zero),)
    keys, values = split(layer, replace(shape, block_size=tokens // ratio))
    halves = q.unflatten(1, (heads, 2, tokens * channels))
    key_q, value_q = halves[:, :, 0].unflatten(2, (channels, tokens)), halves[:, :, 1].unflatten(2, (tokens, channels))
    return (
        _Part(keys, ((everything, 3),), key_q, scale[:, :, :channels], zero[:, :, :channels]),
        _Part(values, ((everything, 2),), value_q, scale[:, :, channels:], zero[:, :, channels:]),
    )


def _pieces(part: _Part) -> list[tuple[int, int]]:
    """Blocks [first, end) to be worked on together."""
    blocks = len(part.q)
    step = max(1, _PIECE // (part.q.numel() // blocks)) if part.cache.device.type == "cpu" else blocks
    return [(first, min(first + step, blocks)) for first in range(0, blocks, step)]


def split(blocks: Tensor, shape: LayerShape) -> tuple[Tensor, Tensor]:
    """Views: keys `[blocks, heads, head_dim, block_size]`, values `[blocks, heads, block_size, head_dim]`.

    Raises ValueError when the layout is unknown.
    """
    match shape.keys:
        case KeyLayout.TRANSPOSED:
            tokens, channels = shape.block_size, shape.head_dim
            halves = blocks.view(len(blocks), shape.heads, 2, tokens * channels)
            return halves[:, :, 0].unflatten(2, (channels, tokens)), halves[:, :, 1].unflatten(2, (tokens, channels))
        case KeyLayout.PER_TOKEN:
            return blocks[..., : shape.head_dim].transpose(2, 3), blocks[..., shape.head_dim :]
        case None:
            raise ValueError("INT8 needs to know which channel a number belongs to; use the raw codec for this KV cache layout")


def _gather(part: _Part, index: Tensor, ratio: int) -> Tensor:
    """The blocks' numbers, contiguous `[blocks, heads, groups, length]`; perhaps the cache itself, so not to be written to.

    Blocks that were cut are put together along their tokens.
    """
    if len(index) == 1:
        return part.cache[int(index) :][:1].contiguous()
    cut = part.cache.index_select(0, index)
    if ratio > 1:
        _, dim = part.tokens[0]
        cut = cut.unflatten(0, (-1, ratio)).movedim(1, dim).flatten(dim, dim + 1)
    return cut.contiguous()


def _scatter(part: _Part, index: Tensor, ratio: int, numbers: Tensor) -> None:
    """The inverse of `_gather`, from float32 numbers."""
    if ratio > 1:
        _, dim = part.tokens[0]
        numbers = numbers.unflatten(dim, (ratio, -1)).movedim(dim, 1).flatten(0, 1)
    _put(part.cache, index, numbers)


def _put(cache: Tensor, index: Tensor, blocks: Tensor) -> None:
    if cache.device.type == "cpu":
        # index_copy_ takes numbers one by one there: a quarter of this speed.
        for place, block in zip(index.tolist(), blocks, strict=True):
            cache[place].copy_(block)
    else:
        cache.index_copy_(0, index, blocks.to(cache.dtype))


def fill_invalid(numbers: Tensor, token_dim: int, valid_tokens: int) -> None:
    """In place: tokens behind the first `valid_tokens` become their block's first token, so that left-overs widen no channel's range."""
    block_size = numbers.shape[token_dim]
    for block in range(max(0, valid_tokens) // block_size, len(numbers)):
        valid = max(0, valid_tokens - block * block_size)
        tokens = numbers[block].narrow(token_dim - 1, valid, block_size - valid)
        if valid:
            tokens.copy_(numbers[block].narrow(token_dim - 1, 0, 1))
        else:
            tokens.zero_()


def quantize(q: Tensor, numbers: Tensor, scale: Tensor, zero: Tensor) -> None:
    """Torch's own `RowQuantizer`, and what the others are measured by: its scales and zeros fit in two bytes whatever the numbers."""
    part = numbers.to(torch.float32, copy=True)
    low, high = part.amin(1, keepdim=True), part.amax(1, keepdim=True)
    wanted = torch.maximum((high - low) / _STEPS, torch.maximum(low.abs(), high.abs()) / _LARGEST_OFFSET)
    rounded = (wanted * (_SCALE_FACTOR * _ROUNDS_UP) + _ROUNDS_UP_SUBNORMAL).clamp_(_FLOAT16_SMALLEST, _FLOAT16_LARGEST).to(torch.float16)
    scale.copy_(rounded).div_(_SCALE_FACTOR)
    exact_zero = (_LOWEST - low / scale).round_()
    zero.copy_(exact_zero)
    q.copy_(part.div_(scale).add_(exact_zero).round_().clamp_(_LOWEST, _LOWEST + _STEPS))


def _all_fit(scale: Tensor, zero: Tensor) -> bool:
    """Whether every scale fits in a float16 and every zero in an int16. False with a NaN."""
    (smallest, largest), (lowest, highest) = (tuple(float(end) for end in side.aminmax()) for side in (scale, zero))
    return smallest >= _SMALLEST and largest <= _LARGEST and lowest >= -_LARGEST_OFFSET and highest <= _LARGEST_OFFSET


def _unfit(scale: Tensor, zero: Tensor) -> Tensor:
    """Which groups do not: flat, far, or huge ones."""
    return ~((scale >= _SMALLEST) & (scale <= _LARGEST) & (zero >= -_LARGEST_OFFSET) & (zero <= _LARGEST_OFFSET))


RAW: Final = Raw()
INT8: Final = Int8()

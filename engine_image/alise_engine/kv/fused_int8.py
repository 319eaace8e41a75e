"""INT8 on a GPU, one kernel each way: gather, quantize and pack; and the inverse. `int8` says what a row of bytes is and is the reference.

A program does the keys or the values of one block and head. It reads the cache where it lies, through strides, whatever the attention
backend made of the layout and however small it cut the blocks, and writes the row's bytes at once: the numbers cross the device's memory
once. The torch version takes a dozen passes, and looks at the scales from the host, which waits for the device.
"""

from dataclasses import replace
from typing import Any, Final

import torch
import triton
import triton.language as tl

from .int8 import Int8, LayerShape, split

Tensor = Any

# As in `int8.quantize`.
_STEPS: Final = tl.constexpr(255.0)
_SCALE_FACTOR: Final = tl.constexpr(16.0)
_LARGEST_OFFSET: Final = tl.constexpr(32_000.0)
_ROUNDS_UP: Final = tl.constexpr(16.0 * (1.0 + 2.0**-11))
_ROUNDS_UP_SUBNORMAL: Final = tl.constexpr(2.0**-25)
_FLOAT16_SMALLEST: Final = tl.constexpr(2.0**-24)
_FLOAT16_LARGEST: Final = tl.constexpr(65504.0)
# Added and taken away again, it leaves a float32 below 2^22 rounded to the nearest even integer.
_ROUNDER: Final = tl.constexpr(1.5 * 2.0**23)


class FusedInt8(Int8):
    """Writes and reads the rows of `Int8`."""

    def encode(self, layer: Tensor, index: Tensor, shape: LayerShape, valid_tokens: int, rows: Tensor) -> None:
        sides, views = _sides(layer, index, shape, rows)
        _encode[(len(rows), shape.heads, 2)](*sides, index, valid_tokens, **views)

    def decode(self, rows: Tensor, layer: Tensor, index: Tensor, shape: LayerShape) -> None:
        sides, views = _sides(layer, index, shape, rows)
        _decode[(len(rows), shape.heads, 2)](*sides, index, **views)


def _sides(layer: Tensor, index: Tensor, shape: LayerShape, rows: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What both kernels take: the cache and its strides, the row's three parts and its strides; and sizes that they are compiled for."""
    ratio = len(index) // len(rows)
    keys, values = split(layer, replace(shape, block_size=shape.block_size // ratio))
    groups = 2 * shape.heads * (shape.head_dim + shape.block_size)
    q = rows[:, : shape.elements].view(torch.int8)
    scale = rows[:, shape.elements : shape.elements + groups].view(torch.float16)
    zero = rows[:, shape.elements + groups :].view(torch.int16)
    # Strides as (block, head, channel, token).
    block, head, channel, token = keys.stride()
    value_block, value_head, value_token, value_channel = values.stride()
    arguments = (
        *(keys, block, head, channel, token),
        *(values, value_block, value_head, value_channel, value_token),
        *(q, q.stride(0), scale, zero, scale.stride(0)),
    )
    tokens, channels = shape.block_size, shape.head_dim
    sizes = {"tokens": tokens, "channels": channels, "cut": tokens // ratio}
    tile = {"T": triton.next_power_of_2(tokens), "C": triton.next_power_of_2(channels)}
    return arguments, {**sizes, **tile, "num_warps": 8 if tokens * channels >= 4096 else 4}


@triton.jit
def _encode(
    keys, key_block, key_head, key_channel, key_token,
    values, value_block, value_head, value_channel, value_token,
    q, q_row, scales, zeros, side_row,
    index, valid_tokens,
    tokens: tl.constexpr, channels: tl.constexpr, cut: tl.constexpr, T: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    row, head, is_value = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    t, c = tl.arange(0, T), tl.arange(0, C)
    inside = (t < tokens)[:, None] & (c < channels)[None, :]
    # What lies behind the valid tokens is their first one, or nothing.
    valid = valid_tokens - row * tokens
    source = tl.where(t < valid, t, 0)
    blocks = tl.load(index + row * (tokens // cut) + source // cut, mask=t < tokens, other=0)
    place = source % cut
    if is_value:
        at = blocks * value_block + head * value_head + place * value_token
        numbers = tl.load(values + at[:, None] + (c * value_channel)[None, :], mask=inside, other=0.0).to(tl.float32)
    else:
        at = blocks * key_block + head * key_head + place * key_token
        numbers = tl.load(keys + at[:, None] + (c * key_channel)[None, :], mask=inside, other=0.0).to(tl.float32)
    numbers = tl.where(valid > 0, numbers, 0.0)
    lows, highs = tl.where(inside, numbers, float("inf")), tl.where(inside, numbers, float("-inf"))
    side = scales + row * side_row + head * (channels + tokens)
    zero_side = zeros + row * side_row + head * (channels + tokens)
    packed = q + row * q_row + head * (2 * channels * tokens)
    if is_value:
        low, high = tl.min(lows, 1), tl.max(highs, 1)
        scale, zero = _grid(tl.where(t < tokens, low, 0.0), tl.where(t < tokens, high, 0.0))
        tl.store(side + channels + t, (scale * _SCALE_FACTOR).to(tl.float16), mask=t < tokens)
        tl.store(zero_side + channels + t, zero.to(tl.int16), mask=t < tokens)
        levels = _levels(numbers, scale[:, None], zero[:, None])
        tl.store(packed + channels * tokens + t[:, None] * channels + c[None, :], levels, mask=inside)
    else:
        low, high = tl.min(lows, 0), tl.max(highs, 0)
        scale, zero = _grid(tl.where(c < channels, low, 0.0), tl.where(c < channels, high, 0.0))
        tl.store(side + c, (scale * _SCALE_FACTOR).to(tl.float16), mask=c < channels)
        tl.store(zero_side + c, zero.to(tl.int16), mask=c < channels)
        levels = _levels(numbers, scale[None, :], zero[None, :])
        tl.store(packed + c[None, :] * tokens + t[:, None], levels, mask=inside)


@triton.jit
def _grid(low, high):
    wanted = tl.maximum(tl.div_rn(high - low, _STEPS), tl.div_rn(tl.maximum(tl.abs(low), tl.abs(high)), _LARGEST_OFFSET))
    rounded = tl.minimum(tl.maximum(wanted * _ROUNDS_UP + _ROUNDS_UP_SUBNORMAL, _FLOAT16_SMALLEST), _FLOAT16_LARGEST)
    scale = rounded.to(tl.float16).to(tl.float32) / _SCALE_FACTOR
    return scale, _nearest(-128.0 - tl.div_rn(low, scale))


@triton.jit
def _levels(numbers, scale, zero):
    scale, zero = tl.broadcast_to(scale, numbers.shape), tl.broadcast_to(zero, numbers.shape)
    level = _nearest(tl.div_rn(numbers, scale) + zero)
    return tl.minimum(tl.maximum(level, -128.0), 127.0).to(tl.int8)


@triton.jit
def _nearest(number):
    return (number + _ROUNDER) - _ROUNDER


@triton.jit
def _decode(
    keys, key_block, key_head, key_channel, key_token,
    values, value_block, value_head, value_channel, value_token,
    q, q_row, scales, zeros, side_row,
    index,
    tokens: tl.constexpr, channels: tl.constexpr, cut: tl.constexpr, T: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    row, head, is_value = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    t, c = tl.arange(0, T), tl.arange(0, C)
    inside = (t < tokens)[:, None] & (c < channels)[None, :]
    blocks = tl.load(index + row * (tokens // cut) + t // cut, mask=t < tokens, other=0)
    place = t % cut
    side = scales + row * side_row + head * (channels + tokens)
    zero_side = zeros + row * side_row + head * (channels + tokens)
    packed = q + row * q_row + head * (2 * channels * tokens)
    if is_value:
        level = tl.load(packed + channels * tokens + t[:, None] * channels + c[None, :], mask=inside, other=0).to(tl.float32)
        scale = tl.load(side + channels + t, mask=t < tokens, other=0.0).to(tl.float32) / _SCALE_FACTOR
        zero = tl.load(zero_side + channels + t, mask=t < tokens, other=0).to(tl.float32)
        numbers = (level - zero[:, None]) * scale[:, None]
        at = blocks * value_block + head * value_head + place * value_token
        tl.store(values + at[:, None] + (c * value_channel)[None, :], numbers.to(values.dtype.element_ty), mask=inside)
    else:
        level = tl.load(packed + c[None, :] * tokens + t[:, None], mask=inside, other=0).to(tl.float32)
        scale = tl.load(side + c, mask=c < channels, other=0.0).to(tl.float32) / _SCALE_FACTOR
        zero = tl.load(zero_side + c, mask=c < channels, other=0).to(tl.float32)
        numbers = (level - zero[None, :]) * scale[None, :]
        at = blocks * key_block + head * key_head + place * key_token
        tl.store(keys + at[:, None] + (c * key_channel)[None, :], numbers.to(keys.dtype.element_ty), mask=inside)

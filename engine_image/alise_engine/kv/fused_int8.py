"""INT8 on a GPU, one kernel each way: gather, quantize and pack; and the inverse. `int8` says what a row of bytes is and is the reference.

A program does the keys or the values of one block and head. It reads the cache where it lies, through strides, whatever the attention
backend made of the layout and however small it cut the blocks, and writes the row's bytes at once: the numbers cross the device's memory
once. The torch version takes a dozen passes, and looks at the scales from the host, which waits for the device. `compat/device.py` chooses
it on CUDA.
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
# A plain division is an approximation on a GPU; this product is exact.
_SCALE_UNIT: Final = tl.constexpr(1.0 / 16.0)
_LARGEST_OFFSET: Final = tl.constexpr(32_000.0)
_ROUNDS_UP: Final = tl.constexpr(16.0 * (1.0 + 2.0**-11))
_ROUNDS_UP_SUBNORMAL: Final = tl.constexpr(2.0**-25)
_FLOAT16_SMALLEST: Final = tl.constexpr(2.0**-24)
_FLOAT16_LARGEST: Final = tl.constexpr(65504.0)
# Added and taken away again, it leaves a float32 below 2^22 rounded to the nearest even integer.
_ROUNDER: Final = tl.constexpr(1.5 * 2.0**23)
# No product and sum in one instruction, which would round otherwise than the reference.
OPTIONS: Final = {"enable_fp_fusion": False}


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
    return arguments, {**sizes, **tile, **OPTIONS, "num_warps": 8 if tokens * channels >= 4096 else 4}


# One compilation for every number of valid tokens: it happens in a step of the engine.
@triton.jit(do_not_specialize=["valid_tokens"])
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
    side = scales + row * side_row + head * (channels + tokens)
    zero_side = zeros + row * side_row + head * (channels + tokens)
    packed = q + row * q_row + head * (2 * channels * tokens)
    if is_value:
        q_at = packed + channels * tokens + t[:, None] * channels + c[None, :]
        _write(numbers, inside, t < tokens, side + channels + t, zero_side + channels + t, q_at, 1)
    else:
        q_at = packed + c[None, :] * tokens + t[:, None]
        _write(numbers, inside, c < channels, side + c, zero_side + c, q_at, 0)


# Keys and values are groups along another axis. The two below are functions of their own because a variable may not have one shape in one
# branch of a kernel and another shape in the other: Triton's compiler refuses that, and its interpreter does not.
@triton.jit
def _write(numbers, inside, alive, scale_at, zero_at, q_at, axis: tl.constexpr):
    low, high = tl.min(tl.where(inside, numbers, float("inf")), axis), tl.max(tl.where(inside, numbers, float("-inf")), axis)
    scale, zero = _grid(tl.where(alive, low, 0.0), tl.where(alive, high, 0.0))
    tl.store(scale_at, (scale * _SCALE_FACTOR).to(tl.float16), mask=alive)
    tl.store(zero_at, zero.to(tl.int16), mask=alive)
    tl.store(q_at, _levels(numbers, tl.expand_dims(scale, axis), tl.expand_dims(zero, axis)), mask=inside)


@triton.jit
def _read(inside, alive, scale_at, zero_at, q_at, axis: tl.constexpr):
    level = tl.load(q_at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scale_at, mask=alive, other=0.0).to(tl.float32) * _SCALE_UNIT
    zero = tl.load(zero_at, mask=alive, other=0).to(tl.float32)
    return (level - tl.expand_dims(zero, axis)) * tl.expand_dims(scale, axis)


@triton.jit
def _grid(low, high):
    wanted = tl.maximum(tl.div_rn(high - low, _STEPS), tl.div_rn(tl.maximum(tl.abs(low), tl.abs(high)), _LARGEST_OFFSET))
    rounded = tl.minimum(tl.maximum(wanted * _ROUNDS_UP + _ROUNDS_UP_SUBNORMAL, _FLOAT16_SMALLEST), _FLOAT16_LARGEST)
    scale = rounded.to(tl.float16).to(tl.float32) * _SCALE_UNIT
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
        q_at = packed + channels * tokens + t[:, None] * channels + c[None, :]
        numbers = _read(inside, t < tokens, side + channels + t, zero_side + channels + t, q_at, 1)
        at = blocks * value_block + head * value_head + place * value_token
        tl.store(values + at[:, None] + (c * value_channel)[None, :], numbers.to(values.dtype.element_ty), mask=inside)
    else:
        q_at = packed + c[None, :] * tokens + t[:, None]
        numbers = _read(inside, c < channels, side + c, zero_side + c, q_at, 0)
        at = blocks * key_block + head * key_head + place * key_token
        tl.store(keys + at[:, None] + (c * key_channel)[None, :], numbers.to(keys.dtype.element_ty), mask=inside)

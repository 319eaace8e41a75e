"""How blocks of KV cache are written down."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_engine.kv.int8 import INT8, RAW, KeyLayout, LayerShape, dequantize, fill_invalid, join, quantize, split

HEADS, BLOCK, CHANNELS = 3, 32, 64


def shape(dtype: Any = torch.float32, keys: KeyLayout | None = KeyLayout.TRANSPOSED) -> LayerShape:
    return LayerShape(HEADS, BLOCK, CHANNELS, dtype, keys)


def blocks(count: int = 4, dtype: Any = torch.float32, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, HEADS, BLOCK, 2 * CHANNELS, generator=generator).to(dtype)


both_layouts = pytest.mark.parametrize("layout", list(KeyLayout), ids=lambda layout: layout.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_raw_gives_back_every_bit(dtype: Any) -> None:
    original = blocks(dtype=dtype)
    rows = RAW.encode(original, shape(dtype), 4 * BLOCK)
    assert rows.shape == (4, RAW.row_bytes(shape(dtype)))
    assert torch.equal(RAW.decode(rows, shape(dtype)).view_as(original), original)


@both_layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_int8_is_within_a_step_of_the_original(layout: KeyLayout, dtype: Any) -> None:
    original = blocks(dtype=dtype)
    rows = INT8.encode(original, shape(dtype, layout), 4 * BLOCK)
    decoded = INT8.decode(rows, shape(dtype, layout)).view_as(original)
    # Standard normal numbers: a group spans less than 9, a step is 1/255 of it.
    assert (decoded.float() - original.float()).abs().max() < 9 / 255


@both_layouts
def test_a_row_has_the_bytes_that_were_promised(layout: KeyLayout) -> None:
    assert INT8.encode(blocks(), shape(keys=layout), 4 * BLOCK).shape == (4, INT8.row_bytes(shape(keys=layout)))


def test_int8_takes_little_more_than_half_of_bf16() -> None:
    large = LayerShape(8, 32, 128, torch.bfloat16, KeyLayout.PER_TOKEN)
    assert INT8.row_bytes(large) / RAW.row_bytes(large) == pytest.approx(0.5 + 1 / 32 + 1 / 128)


@both_layouts
def test_keys_and_values_are_joined_as_they_were_split(layout: KeyLayout) -> None:
    original = blocks()
    assert torch.equal(join(*split(original, shape(keys=layout)), shape(keys=layout)), original)


def test_a_loud_channel_of_the_keys_does_not_cost_the_others_their_precision() -> None:
    original = blocks()
    keys = split(original, shape())[0]
    keys[..., 5] *= 1000
    loud = join(keys, split(original, shape())[1], shape())
    decoded = split(INT8.decode(INT8.encode(loud, shape(), 4 * BLOCK), shape()), shape())[0]
    quiet = torch.arange(CHANNELS) != 5
    assert (decoded - keys)[..., quiet].abs().max() < 9 / 255


def test_a_far_offset_is_not_clipped_by_rounded_scales() -> None:
    part = torch.linspace(100.3, 101.3, BLOCK).view(1, 1, BLOCK, 1)
    q, scale, low = quantize(part, dim=2)
    error = (dequantize(q, scale, low) - part).abs().max()
    assert error <= float(scale.max()) / 2 + 1e-4


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=32))
def test_the_grid_covers_every_number_of_its_group(numbers: list[float]) -> None:
    part = torch.tensor(numbers).view(1, 1, -1, 1)
    q, scale, low = quantize(part, dim=2)
    bound = float(scale.max()) / 2 + 1e-3 * float(part.abs().max()) / 255 + 1e-6
    assert float((dequantize(q, scale, low) - part).abs().max()) <= bound


def test_left_overs_behind_the_last_token_do_not_leak_into_the_scales() -> None:
    clean = blocks(2)
    dirty = clean.clone()
    keys, values = split(dirty, shape())
    keys[1, :, 10:] = 1e6
    values[1, :, 10:] = float("nan")
    dirty = join(keys, values, shape())
    decoded = split(INT8.decode(INT8.encode(dirty, shape(), BLOCK + 10), shape()), shape())
    expected = split(clean, shape())
    for got, want in zip(decoded, expected, strict=True):
        assert (got[1, :, :10] - want[1, :, :10]).abs().max() < 9 / 255
        assert got.isfinite().all()


def test_a_block_without_any_token_is_zero() -> None:
    assert torch.equal(fill_invalid(blocks(2), BLOCK)[1], torch.zeros(HEADS, BLOCK, 2 * CHANNELS))


def test_int8_refuses_a_layout_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="use the raw codec"):
        INT8.encode(blocks(), shape(keys=None), BLOCK)

"""How blocks of KV cache are written down."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alise_engine.compat import device
from alise_engine.kv.int8 import INT8, RAW, Codec, Int8, KeyLayout, LayerShape, RowQuantizer, fill_invalid, quantize, split

# vLLM's kernel is one of the quantizers.
pytestmark = pytest.mark.engine

HEADS, BLOCK, CHANNELS = 3, 32, 64
# Where the blocks of `stored` lie in the layer; the rest of it belongs to others.
PLACES = (5, 2, 6, 0)


def shape(dtype: Any = torch.float32, keys: KeyLayout | None = KeyLayout.TRANSPOSED, block_size: int = BLOCK) -> LayerShape:
    return LayerShape(HEADS, block_size, CHANNELS, dtype, keys)


def layer_of(wanted: LayerShape, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(8, wanted.heads, wanted.block_size, 2 * wanted.head_dim, generator=generator).to(wanted.dtype)


def stored(codec: Codec, layer: Any, wanted: LayerShape, valid_tokens: int = 10**6) -> Any:
    """The rows of the blocks at PLACES."""
    rows = torch.full((len(PLACES), codec.row_bytes(wanted)), 0xAA, dtype=torch.uint8)
    codec.encode(layer, torch.tensor(PLACES), wanted, valid_tokens, rows)
    return rows


def round_trip(codec: Codec, layer: Any, wanted: LayerShape, valid_tokens: int = 10**6) -> Any:
    """A layer of nans, into which the blocks at PLACES were put back."""
    back = torch.full_like(layer, float("nan"))
    codec.decode(stored(codec, layer, wanted, valid_tokens), back, torch.tensor(PLACES), wanted)
    return back


@pytest.fixture(params=["torch", "vllm"])
def quantizer(request: pytest.FixtureRequest) -> RowQuantizer:
    """Torch's own quantizer, and the kernel that vLLM brings along."""
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    fused = device.row_quantizer()
    assert fused is not None
    return quantize if request.param == "torch" else fused


both_layouts = pytest.mark.parametrize("layout", list(KeyLayout), ids=lambda layout: layout.value)
both_sizes = pytest.mark.parametrize("block_size", [32, CHANNELS], ids=["keys_and_values_apart", "keys_and_values_together"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_raw_gives_back_every_bit(dtype: Any) -> None:
    layer = layer_of(shape(dtype))
    back = round_trip(RAW, layer, shape(dtype))
    assert torch.equal(back[list(PLACES)], layer[list(PLACES)])


@pytest.mark.parametrize("codec", [RAW, INT8], ids=["raw", "int8"])
def test_blocks_of_others_are_left_alone(codec: Codec) -> None:
    back = round_trip(codec, layer_of(shape()), shape())
    others = [place for place in range(len(back)) if place not in PLACES]
    assert back[others].isnan().all()


@both_sizes
@both_layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_int8_is_within_half_a_step_of_the_original(quantizer: RowQuantizer, layout: KeyLayout, block_size: int, dtype: Any) -> None:
    wanted = shape(dtype, layout, block_size)
    layer = layer_of(wanted)
    back = round_trip(Int8(quantizer), layer, wanted)
    for got, original, dim in zip(split(back, wanted), split(layer, wanted), (3, 3), strict=True):
        got, original = got[list(PLACES)].float(), original[list(PLACES)].float()
        step = (original.amax(dim, keepdim=True) - original.amin(dim, keepdim=True)) / 255
        # float16 scales are off by 2**-11 of the number at most, and a 16-bit cache rounds what it is given.
        rounding = original.abs() * (2**-11 + (2**-8 if dtype != torch.float32 else 0))
        assert ((got - original).abs() <= 0.51 * step + rounding).all()


@both_layouts
def test_both_quantizers_write_the_same_format(layout: KeyLayout) -> None:
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    wanted = shape(keys=layout)
    layer = layer_of(wanted)
    reference, fused = round_trip(INT8, layer, wanted), round_trip(Int8(device.row_quantizer()), layer, wanted)
    assert (reference[list(PLACES)] - fused[list(PLACES)]).abs().max() < 9 / 255


@pytest.mark.parametrize(("block_size", "fraction"), [(64, 0.53), (128, 0.52)])
def test_int8_takes_little_more_than_half_of_bf16(block_size: int, fraction: float) -> None:
    large = LayerShape(8, block_size, 128, torch.bfloat16, KeyLayout.PER_TOKEN)
    assert INT8.row_bytes(large) / RAW.row_bytes(large) == pytest.approx(0.5 + 1 / block_size + 1 / 128)
    assert INT8.row_bytes(large) / RAW.row_bytes(large) < fraction


@both_sizes
def test_a_loud_channel_of_the_keys_does_not_cost_the_others_their_precision(quantizer: RowQuantizer, block_size: int) -> None:
    wanted = shape(block_size=block_size)
    layer = layer_of(wanted)
    keys, _ = split(layer, wanted)
    keys[:, :, 5] *= 1000
    decoded, _ = split(round_trip(Int8(quantizer), layer, wanted), wanted)
    quiet = torch.arange(CHANNELS) != 5
    assert (decoded - keys)[list(PLACES)][:, :, quiet].abs().max() < 9 / 255


def numbers_and_back(quantizer: RowQuantizer, numbers: Any) -> Any:
    """One group of numbers as the values of each of two tokens, written and read."""
    two = LayerShape(1, 2, len(numbers), torch.float32, KeyLayout.PER_TOKEN)
    token = torch.cat([torch.zeros(len(numbers)), numbers])
    layer = torch.stack([token, token]).view(1, 1, 2, -1)
    index, rows = torch.tensor([0]), torch.empty(1, INT8.row_bytes(two), dtype=torch.uint8)
    Int8(quantizer).encode(layer, index, two, 2, rows)
    layer = torch.full_like(layer, float("nan"))
    Int8(quantizer).decode(rows, layer, index, two)
    return layer[0, 0, 1, len(numbers) :]


@settings(max_examples=300, deadline=None)
@given(
    numbers=st.lists(st.floats(-1e5, 1e5, width=32), min_size=2, max_size=64),
    quantizer=st.sampled_from(["torch", "vllm"]),
    size=st.sampled_from([1.0, 1e-2, 1e-4]),
)
def test_every_number_of_a_group_comes_back_within_half_a_step(numbers: list[float], quantizer: str, size: float) -> None:
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    original = torch.tensor(numbers) * size
    fused = device.row_quantizer()
    assert fused is not None
    back = numbers_and_back(quantize if quantizer == "torch" else fused, original)
    # A flat group's step is 1/32000 of its numbers; tiny steps are 2**-28 apart.
    largest = float(original.abs().max())
    step = max(float(original.max() - original.min()) / 255, largest / 32_000) + 2.0**-28
    assert float((back - original).abs().max()) <= 0.51 * step + largest * 2**-10


@pytest.mark.parametrize(
    "numbers",
    [
        pytest.param([0.0] * 8, id="all zero"),
        pytest.param([3.7] * 8, id="all the same"),
        pytest.param([100.3, 100.5, 101.3], id="far from zero"),
        pytest.param([-1000.0, -1000.001], id="further than a zero of 16 bits reaches"),
        pytest.param([1e-7, 3e-7, -2e-7], id="tiny"),
    ],
)
def test_odd_groups_keep_their_numbers(quantizer: RowQuantizer, numbers: list[float]) -> None:
    original = torch.tensor(numbers)
    back = numbers_and_back(quantizer, original)
    assert (back - original).abs().max() <= original.abs().max() / 1000 + 1e-8


def test_a_nan_spoils_its_own_group_only(quantizer: RowQuantizer) -> None:
    layer = layer_of(shape())
    _, values = split(layer, shape())
    values[PLACES[0], 0, 3, 7] = float("nan")
    _, back = split(round_trip(Int8(quantizer), layer, shape()), shape())
    untouched = torch.ones(HEADS, BLOCK, dtype=torch.bool)
    untouched[0, 3] = False
    assert (back - values)[PLACES[0]][untouched].abs().max() < 9 / 255


@both_sizes
@both_layouts
@settings(max_examples=20, deadline=None)
@given(valid_tokens=st.integers(1, 4 * 64))
def test_what_lies_behind_the_last_token_changes_no_byte(layout: KeyLayout, block_size: int, valid_tokens: int) -> None:
    wanted = shape(keys=layout, block_size=block_size)
    valid_tokens = min(valid_tokens, len(PLACES) * block_size)
    clean, dirty = layer_of(wanted), layer_of(wanted)
    keys, values = split(dirty, wanted)
    for number, place in enumerate(PLACES):
        behind = max(0, valid_tokens - number * block_size)
        keys[place, :, :, behind:] = 1e6
        values[place, :, behind:] = float("nan")
    assert torch.equal(stored(INT8, dirty, wanted, valid_tokens), stored(INT8, clean, wanted, valid_tokens))


def test_the_cache_is_not_written_to_when_it_is_read(quantizer: RowQuantizer) -> None:
    wanted = shape(block_size=CHANNELS)
    layer = layer_of(wanted)
    stored(Int8(quantizer), layer, wanted, valid_tokens=CHANNELS + 1)
    assert torch.equal(layer, layer_of(wanted))


def test_a_block_without_any_token_is_zero() -> None:
    numbers = layer_of(shape())
    fill_invalid(numbers, 2, BLOCK)
    assert torch.equal(numbers[1:], torch.zeros_like(numbers[1:]))


def test_int8_refuses_a_layout_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="use the raw codec"):
        stored(INT8, layer_of(shape()), shape(keys=None))

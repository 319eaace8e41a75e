"""KV that is 8 bits wide on the device goes to the host and back as it is.

vLLM computes with it on GPUs and on CPUs with AVX-512 or AMX. What is tested here needs neither: which codecs there are, and the bytes.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alise_engine.compat import geometry
from alise_engine.kv.int8 import INT8, RAW, LayerShape
from alise_engine.kv.slabs import Geometry
from alise_engine.kv.work import AliseMetadata, Load, Save
from alise_engine.kv.worker import WorkerSide

pytestmark = pytest.mark.engine

LAYERS, BLOCKS, HEADS, BLOCK_SIZE, HEAD_SIZE = 3, 16, 2, 32, 64
FP8 = [pytest.param(torch.float8_e4m3fn, id="e4m3"), pytest.param(torch.float8_e5m2, id="e5m2"), pytest.param(torch.uint8, id="bytes")]


def shape_of(dtype: Any, cache_dtype: str) -> LayerShape:
    """The shape of a layer as alise reads it off vLLM's configuration."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    spec = FullAttentionSpec(block_size=BLOCK_SIZE, num_kv_heads=HEADS, head_size=HEAD_SIZE, dtype=dtype)
    config: Any = SimpleNamespace(model_config=SimpleNamespace(dtype=torch.float32), cache_config=SimpleNamespace(cache_dtype=cache_dtype))
    return geometry.layer_shape(config, SimpleNamespace(kv_cache_groups=[SimpleNamespace(kv_cache_spec=spec, layer_names=["a"])]))


@pytest.mark.parametrize("dtype", FP8)
def test_eight_bit_kv_is_kept_as_it_is_and_never_as_int8(dtype: Any) -> None:
    shape = shape_of(dtype, "fp8")
    assert (shape.keys, shape.dtype) == (None, torch.uint8)


def test_a_block_of_eight_bits_takes_half_the_bytes_of_one_of_sixteen() -> None:
    eight, sixteen = (RAW.row_bytes(shape_of(dtype, name)) for dtype, name in ((torch.uint8, "fp8"), (torch.bfloat16, "auto")))
    assert sixteen == 2 * eight == 2 * HEADS * BLOCK_SIZE * 2 * HEAD_SIZE


@pytest.mark.parametrize("dtype", FP8)
def test_every_byte_comes_back_into_other_blocks(dtype: Any) -> None:
    shape = shape_of(dtype, "fp8")
    row_bytes = RAW.row_bytes(shape)
    side = WorkerSide(shape, row_bytes, Geometry.of(64 * LAYERS * row_bytes, {"raw": row_bytes}), {"raw": RAW, "int8": INT8})
    # Every pattern of bits, those included that are no number.
    bits = torch.arange(BLOCKS * HEADS * BLOCK_SIZE * 2 * HEAD_SIZE).remainder(256).to(torch.uint8)
    layers = {f"l{number}": bits.roll(number).view(BLOCKS, HEADS, BLOCK_SIZE, 2 * HEAD_SIZE).view(dtype) for number in range(LAYERS)}
    side.register(layers, BLOCKS)
    before = {name: layer.view(torch.uint8)[[1, 5, 9]].clone() for name, layer in layers.items()}
    step(side, AliseMetadata([Save("r", (1, 5, 9), 0, 3 * BLOCK_SIZE, "raw")], []))
    for layer in layers.values():
        layer.view(torch.uint8).zero_()
    step(side, AliseMetadata([], [Load("r", (2, 3, 14), 0)]))
    assert side.take_errors() == set()
    for name, layer in layers.items():
        assert torch.equal(layer.view(torch.uint8)[[2, 3, 14]], before[name])


def step(side: WorkerSide, work: AliseMetadata) -> None:
    side.begin_step(work)
    side.start_loads(work)

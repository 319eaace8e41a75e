"""The shape of vLLM's KV cache: layers, blocks, bytes and bits, as its configuration describes them on one worker.

`kv/connector.py` and `enginecore/report.py` call it.
"""

from typing import Any

import torch

from ..kv.int8 import KeyLayout, LayerShape
from .device import is_cpu

VllmConfig = Any


def layer_shape(config: VllmConfig, kv_cache_config: Any) -> LayerShape:
    """Returns the shape of one layer's blocks on one worker. `keys` is None where channels have no known place: only raw works there."""
    spec = kv_cache_config.kv_cache_groups[0].kv_cache_spec
    # One-byte dtypes have few operators; their bytes are moved as bytes.
    dtype = spec.dtype if spec.dtype.itemsize > 1 else torch.uint8
    return LayerShape(int(spec.num_kv_heads), int(spec.block_size), int(spec.head_size), dtype, _key_layout(config, spec))


def _key_layout(config: VllmConfig, spec: Any) -> KeyLayout | None:
    from vllm.v1.kv_cache_interface import MLAAttentionSpec

    if isinstance(spec, MLAAttentionSpec) or spec.dtype.itemsize < 2 or spec.head_size_v not in (None, spec.head_size):
        return None
    if not is_cpu():
        return KeyLayout.PER_TOKEN
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    isa = _get_attn_isa(config.model_config.dtype, spec.block_size, spec.head_size, str(config.cache_config.cache_dtype))
    return KeyLayout.TRANSPOSED if isa == "vec" else None


def layer_count(kv_cache_config: Any) -> int:
    return len(kv_cache_config.kv_cache_groups[0].layer_names)


def raw_layer_block_bytes(kv_cache_config: Any) -> int:
    """Returns the bytes of one block of one layer on one worker."""
    return int(kv_cache_config.kv_cache_groups[0].kv_cache_spec.unpadded_page_size_bytes)


def group_count(kv_cache_config: Any) -> int:
    """Returns the number of KV cache groups; a request has blocks in each of them."""
    return max(1, len(kv_cache_config.kv_cache_groups))


def kv_bits(kv_cache_config: Any) -> int:
    """Returns the bits of one number of the KV cache; 8 for packed types, 0 without a cache."""
    for group in kv_cache_config.kv_cache_groups:
        layers = getattr(group.kv_cache_spec, "kv_cache_specs", None) or {"": group.kv_cache_spec}
        dtype = getattr(next(iter(layers.values())), "dtype", None)
        if dtype is not None:
            return int(dtype.itemsize) * 8
    return 0


def block_bytes(kv_cache_config: Any) -> int:
    """Returns the bytes of one block over all layers that share it, on one worker."""

    def bytes_of(group: Any) -> int:
        layers = getattr(group.kv_cache_spec, "kv_cache_specs", None)
        if layers is not None:
            return sum(int(spec.page_size_bytes) for spec in layers.values())
        return len(group.layer_names) * int(group.kv_cache_spec.page_size_bytes)

    return max(map(bytes_of, kv_cache_config.kv_cache_groups), default=0)

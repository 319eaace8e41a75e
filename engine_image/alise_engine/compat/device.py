"""Which device vLLM runs on, and the INT8 kernels that it has for it."""

import torch

from ..kv.int8 import Int8, RowQuantizer


def is_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def row_quantizer() -> RowQuantizer | None:
    """vLLM's compiled kernel that quantizes rows, asymmetrically, with a scale each; None where this build of vLLM has none."""
    return getattr(torch.ops._C, "dynamic_scaled_int8_quant", None)


def int8_codec() -> Int8:
    """The fastest INT8 codec of this device: fused kernels on CUDA, vLLM's row quantizer elsewhere, torch's operators without either."""
    from vllm.platforms import current_platform

    if current_platform.is_cuda():
        from ..kv.fused_int8 import FusedInt8

        return FusedInt8()
    return Int8(row_quantizer())

"""Which device vLLM runs on, and the INT8 kernels that it has for it.

`kv/connector.py` chooses the codec with it, `geometry.py` and `refusals.py` ask for the device. torch is imported where it is needed: the
commands `drain` and `status` import this file, and importing torch takes seconds.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..kv.int8 import Int8, RowQuantizer


def is_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def row_quantizer() -> "RowQuantizer | None":
    """Returns vLLM's compiled kernel for asymmetric quantization with a scale per row; None if this build has none."""
    import torch

    return getattr(torch.ops._C, "dynamic_scaled_int8_quant", None)


def int8_codec() -> "Int8":
    """Returns the fastest INT8 codec of this device: fused kernels on CUDA, vLLM's row quantizer elsewhere, else torch's operators."""
    from vllm.platforms import current_platform

    from ..kv.int8 import Int8

    if current_platform.is_cuda():
        from ..kv.fused_int8 import FusedInt8

        return FusedInt8()
    return Int8(row_quantizer())

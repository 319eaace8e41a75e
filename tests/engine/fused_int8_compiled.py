"""Compiles the fused kernels for GPUs, on a machine without one: what Triton's interpreter runs its compiler may refuse.

Prints a JSON object: for each kernel, shape and GPU the instructions whose results a GPU may round otherwise than the reference does.
`test_fused_int8.py` starts it.
"""

import json
import re
import sys
from typing import Any, Final

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from alise_engine.kv import fused_int8

# (compute capability, type, tokens, tokens of a kernel's block, channels): A100; H100 and H200; B200.
CASES: Final = ((80, "bf16", 16, 16, 128), (90, "fp16", 48, 48, 80), (90, "fp32", 32, 16, 128), (100, "bf16", 16, 16, 128))
POINTERS: Final = {"q": "*i8", "scales": "*fp16", "zeros": "*i16", "index": "*i64"}
INEXACT: Final = re.compile(r"\b(?:fma|div\.full|div\.approx|rcp\.approx)[.\w]*|\w+\.ftz[.\w]*")


def instructions(kernel: Any, capability: int, dtype: str, tokens: int, cut: int, channels: int) -> list[str]:
    tile = {"T": triton.next_power_of_2(tokens), "C": triton.next_power_of_2(channels)}
    # A stride of one is known when the kernel is compiled.
    sizes = {"tokens": tokens, "channels": channels, "cut": cut, **tile, "key_channel": 1, "value_channel": 1}
    types = POINTERS | {"keys": f"*{dtype}", "values": f"*{dtype}"} | dict.fromkeys(sizes, "constexpr")
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    places = {(place,): sizes[name] for place, name in enumerate(kernel.arg_names) if name in sizes}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=fused_int8.OPTIONS)
    return sorted(set(INEXACT.findall(compiled.asm["ptx"])))


if __name__ == "__main__":
    kernels = {"encode": fused_int8._encode, "decode": fused_int8._decode}
    found = {
        f"{name} {dtype} {tokens}x{channels} for sm_{capability}": instructions(kernel, capability, dtype, tokens, cut, channels)
        for name, kernel in kernels.items()
        for capability, dtype, tokens, cut, channels in CASES
    }
    json.dump(found, sys.stdout)

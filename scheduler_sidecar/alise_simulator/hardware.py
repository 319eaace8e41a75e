"""Engines on hardware that people have: a model on a device, what its steps cost and how much KV it holds.

The numbers are in `hardware.json` beside this file, which `make hardware` makes from NVIDIA's measured tables. Each profile says where its
numbers come from and how far the linear step model is from them. One profile stands for the whole engine: with several devices, bytes per
token, host memory and links are the sums over them. `__main__.py`, the benchmarks of `tests/bench` and the emulated device of
`tests/emulated` read them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.reports import EngineShape

from .model import EngineModel

KV_BITS: Final = (16, 8)
DEFAULT_HARDWARE: Final = "h100-qwen3-32b"
_INT8_SHARE: Final = EngineModel().int8_share
# Of `spec.kvOffload.hostMemory`, for each device.
_MOST_HOST_BYTES: Final = 8 << 30


@dataclass(frozen=True, slots=True)
class Kv:
    """The KV cache at one precision: bytes of a token, tokens that the device holds, and what steps cost with it."""

    token_bytes: int
    room_tokens: int
    step: Coefficients
    # Mean absolute error of `step` against the source's step times, as a share of them: of all steps (three of four only decode), and of
    # those that prefill. 0 where there is nothing to compare with.
    fit_error: float
    prefill_fit_error: float


@dataclass(frozen=True, slots=True)
class Hardware:
    """A model on a device."""

    name: str
    # For a person, one sentence.
    description: str
    model: str
    device: str
    devices: int
    kv16: Kv
    kv8: Kv
    # vLLM's own defaults for this device: max_num_seqs, max_num_batched_tokens and the block size.
    slots: int
    max_num_batched_tokens: int
    block_size: int
    async_scheduling: bool
    # The model's own limit, or what the KV room holds where that is less.
    max_model_len: int
    to_host_bytes_per_second: float
    from_host_bytes_per_second: float
    source: str
    version: str
    # How the KV room was derived.
    room: str

    @property
    def host_memory_bytes(self) -> int:
        """Host memory for parked KV by the resource's default: as much as the KV cache takes, at most 8 GiB for each device."""
        return min(self.kv16.room_tokens * self.kv16.token_bytes, self.devices * _MOST_HOST_BYTES)

    def kv(self, bits: int = 16) -> Kv:
        """The KV cache at 16 or 8 bits. Raises ValueError for others."""
        if bits not in KV_BITS:
            raise ValueError(f"KV of {bits} bits is not modelled; there are {' and '.join(str(one) for one in KV_BITS)}")
        return self.kv16 if bits == 16 else self.kv8

    @property
    def step(self) -> Coefficients:
        """What steps cost with KV in 16 bits, in seconds."""
        return self.kv16.step


def _kv(row: Mapping[str, Any]) -> Kv:
    return Kv(row["token_bytes"], row["room_tokens"], Coefficients(**row["step"]), row["fit_error"], row["prefill_fit_error"])


def _hardware(name: str, row: Mapping[str, Any]) -> Hardware:
    return Hardware(name=name, **{**row, "kv16": _kv(row["kv16"]), "kv8": _kv(row["kv8"])})


def _read(path: Path) -> Mapping[str, Hardware]:
    rows = json.loads(path.read_text())
    return MappingProxyType({name: _hardware(name, row) for name, row in rows.items()})


HARDWARE: Final[Mapping[str, Hardware]] = _read(Path(__file__).with_name("hardware.json"))


def engine_model(name: str, kv_bits: int = 16) -> EngineModel:
    """The engine of a profile with vLLM's own defaults. Raises ValueError for an unknown name or precision."""
    hardware = HARDWARE.get(name)
    if hardware is None:
        raise ValueError(f"no hardware {name!r}; there are {', '.join(HARDWARE)}")
    kv = hardware.kv(kv_bits)
    shape = EngineShape(
        max_num_seqs=hardware.slots,
        max_num_batched_tokens=hardware.max_num_batched_tokens,
        max_model_len=hardware.max_model_len,
        block_size=hardware.block_size,
        num_device_blocks=kv.room_tokens // hardware.block_size,
        block_bytes=hardware.block_size * kv.token_bytes,
        host_limit_bytes=hardware.host_memory_bytes,
        model=hardware.model,
    )
    return EngineModel(
        shape=shape,
        cost=kv.step,
        save_seconds_per_byte=1 / hardware.to_host_bytes_per_second,
        restore_seconds_per_byte=1 / hardware.from_host_bytes_per_second,
        # KV that is in 8 bits on the device is parked as it is.
        int8_share=_INT8_SHARE if kv_bits == 16 else 1.0,
        async_scheduling=hardware.async_scheduling,
    )


def hardware_table() -> str:
    """The hardware profiles as text."""
    lines: list[str] = []
    for name, hardware in HARDWARE.items():
        step, kv = hardware.step, hardware.kv16
        errors = f"; mean error of the step model {kv.fit_error:.1%}, of steps with prefill {kv.prefill_fit_error:.1%}"
        lines += [
            f"{name}{' (default)' if name == DEFAULT_HARDWARE else ''}",
            f"    {hardware.description}",
            f"    a step takes {step.step_seconds * 1e3:.1f} ms, and {step.prefill_seconds * 1e6:.0f} us per prefill token, "
            f"{step.decode_seconds * 1e6:.0f} us per decoding request, {step.context_seconds * 1e9:.0f} ns per context token",
            f"    KV for {kv.room_tokens:,} tokens in 16 bits, {hardware.kv8.room_tokens:,} in 8; {hardware.slots} slots, "
            f"{hardware.max_num_batched_tokens:,} tokens a step; {hardware.host_memory_bytes / 2**30:.1f} GiB of host memory at "
            f"{hardware.to_host_bytes_per_second / 1e9:.0f} GB/s",
            f"    from: {hardware.source} ({hardware.version}){errors if kv.fit_error else ''}",
        ]
    return "\n".join(lines)

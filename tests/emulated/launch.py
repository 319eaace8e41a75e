"""Which device is emulated, and what `vllm serve` and `alise-engine serve` get for it: flags and environment, the same for both.

DEVICE       a profile of the simulator, such as h100-qwen3-32b; `:8bit` behind it keeps KV in 8 bits
TIME_SCALE   wall seconds per second of the device, where the cores cannot carry the rate

`serving_emulated.py`, `clients.py` and `tests/tools/serve.py` call it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alise_simulator.hardware import HARDWARE, Hardware
from tests.emulated import model
from tests.emulated.lengths import LENGTHS_ENV
from tests.emulated.pacing import DEVICE_ENV, Device, DeviceError

ROOT: Final = Path(__file__).resolve().parents[2]
EXECUTOR: Final = "tests.emulated.executor.EmulatedExecutor"
# A GPU has 16 by default; alise's INT8 codec has no layout for blocks of less than 32 on a CPU.
BLOCK_SIZE: Final = 32
# What a GPU's pod gives the sidecar, in the device's time.
ADMIT_MILLISECONDS: Final = 50
EIGHT_BITS: Final = ":8bit"


@dataclass(frozen=True, slots=True)
class Emulation:
    """A device, and the engine's settings for it."""

    device: Device
    slots: int
    step_tokens: int
    max_model_len: int
    # A number in the connector's books; no memory is taken for it.
    host_bytes: int
    # How long the answers to a data set's prompts are; only the model reads it.
    lengths: Path | None = None

    def flags(self) -> list[str]:
        """Returns flags of `vllm serve`, for stock vLLM and alise."""
        wanted = {
            "--distributed-executor-backend": EXECUTOR,
            "--block-size": BLOCK_SIZE,
            "--dtype": "float16",
            "--max-model-len": self.max_model_len,
            "--max-num-seqs": self.slots,
            "--max-num-batched-tokens": self.step_tokens,
        }
        return ["--enforce-eager", *(word for flag, value in wanted.items() for word in (flag, str(value)))]

    def own_flags(self) -> list[str]:
        """Returns flags of `alise-engine serve` alone."""
        return ["--alise-host-memory", str(self.host_bytes)]

    def environ(self, base: Mapping[str, str]) -> dict[str, str]:
        """Returns the environment of the server on top of `base`."""
        path = os.pathsep.join(filter(None, (str(ROOT), base.get("PYTHONPATH"))))
        return {
            "ALISE_ADMIT_DEADLINE_MS": str(round(ADMIT_MILLISECONDS * self.device.time_scale)),
            "OMP_NUM_THREADS": "1",
            **base,
            DEVICE_ENV: self.device.to_json(),
            **({LENGTHS_ENV: str(self.lengths)} if self.lengths else {}),
            "PYTHONPATH": path,
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_USE_V2_MODEL_RUNNER": "0",
        }


def emulation_from(name: str, time_scale: str = "") -> Emulation:
    """Returns the device of this name. Raises DeviceError."""
    bare = name.removesuffix(EIGHT_BITS)
    if bare not in HARDWARE:
        raise DeviceError(f"DEVICE={name}: there is no such hardware; there are {', '.join(HARDWARE)}")
    try:
        scale = float(time_scale or 1.0)
    except ValueError:
        scale = 0.0
    if not 0.1 <= scale <= 1000:
        raise DeviceError(f"TIME_SCALE={time_scale}: expected a number from 0.1 to 1000, as 2 for half as fast")
    return emulation_of(HARDWARE[bare], 16 if name == bare else 8, scale)


def emulation_of(hardware: Hardware, kv_bits: int, time_scale: float) -> Emulation:
    """Returns a profile as it is emulated."""
    kv = hardware.kv(kv_bits)
    device = Device(
        hardware.name,
        kv.step.step_seconds,
        kv.step.prefill_seconds,
        kv.step.decode_seconds,
        kv.step.context_seconds,
        kv.token_bytes,
        kv.room_tokens,
        hardware.to_host_bytes_per_second,
        hardware.from_host_bytes_per_second,
        kv_bits,
        time_scale,
    )
    # vLLM keeps one block for itself.
    room = (kv.room_tokens // BLOCK_SIZE - 1) * BLOCK_SIZE
    longest = min(hardware.max_model_len, room, model.MAX_POSITION)
    return Emulation(device, hardware.slots, hardware.max_num_batched_tokens, longest, hardware.host_memory_bytes)


def model_folder() -> Path:
    """Returns the model to serve: a tokenizer and a configuration."""
    return model.folder()

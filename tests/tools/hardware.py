"""Writes the hardware profiles of the simulator: `make hardware`.

NVIDIA publishes measured step times as the PyPI package `aisimulate` (Apache-2.0). Its requirements are large and pinned, so it gets a
virtual environment of its own in the cache, with only what its tables need, and nothing of it enters our locks. The linear step model of
the core is fitted to those times. Three of four steps that count are decoding steps, as in a serving engine; the others prefill 16 to 2,048
tokens beside them. The least squares are of relative errors, and no coefficient is negative.

What no table has is derived, and the profile says so in `source`. The RTX 4090 is fitted to one half of a published run (ALISE_DATA);
without that data its present profile stays.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.optimize import nnls

from alise_scheduler.core.exec_time import Coefficients
from alise_scheduler.core.lengths import Floats

VERSION: Final = "0.13.0.dev202610270000000085"
_NEEDS: Final = (
    f"aisimulate=={VERSION}", "numpy==2.2.6", "pandas==2.3.3", "pyarrow==21.0.0", "pydantic==2.12.3", "pydantic-core==2.41.4",
    "annotated-types==0.8.0", "typing-extensions==4.16.0", "typing-inspection==0.4.5", "scipy==1.16.2", "PyYAML==6.0.4", "packaging==26.4",
    "python-dateutil==2.9.0.post0", "pytz==2026.6", "tzdata==2026.6", "six==1.17.0", "tqdm==4.70.1", "munch==4.0.0",
)  # fmt: skip
_RESULT: Final = Path(__file__).resolve().parents[2] / "scheduler_sidecar/alise_simulator/hardware.json"
_CACHE: Final = Path(os.environ.get("ALISE_CACHE", Path.home() / ".cache/alise")) / "hardware-tables"
_GIB: Final = 2**30
# vLLM's --gpu-memory-utilization.
_UTILIZATION: Final = 0.9
# CUDA context, graphs and libraries on each device: what the published run of Llama-3.1-8B on an RTX 4090 (41,408 tokens of room) leaves
# after weights, activations and logits.
_RESERVED_BYTES: Final = 734_000_000
# Buffers of the collectives with several devices.
_COLLECTIVE_BYTES: Final = 411_000_000
_DECODE_SHARE: Final = 0.75
# Link to host memory: this share of the data sheet's bytes/s in one direction.
_LINK_SHARE: Final = 0.8
_BLOCK: Final = 16


@dataclass(frozen=True, slots=True)
class Model:
    """What decides a model's memory; 16-bit weights."""

    name: str
    parameters: int
    kv_token_bytes: int
    intermediate: int
    vocabulary: int
    max_len: int


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU as CUDA reports it, and its link in one direction."""

    name: str
    memory_bytes: int
    link_bytes_per_second: float
    is_a100: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A profile to generate; `system` is the tables' name of the device."""

    description: str
    model: Model
    device: Device
    devices: int
    system: str
    # The model's name in the tables, where it is another one.
    table_model: str = ""
    note: str = ""


QWEN_32B: Final = Model("Qwen/Qwen3-32B", 32_762_123_264, 64 * 2 * 8 * 128 * 2, 25_600, 151_936, 40_960)
QWEN_8B: Final = Model("Qwen/Qwen3-8B", 8_190_735_360, 36 * 2 * 8 * 128 * 2, 12_288, 151_936, 40_960)
LLAMA_70B: Final = Model("meta-llama/Llama-3.1-70B-Instruct", 70_553_706_496, 80 * 2 * 8 * 128 * 2, 28_672, 128_256, 131_072)
LLAMA_8B: Final = Model("meta-llama/Llama-3.1-8B", 8_030_261_248, 32 * 2 * 8 * 128 * 2, 14_336, 128_256, 131_072)
OPT_13B: Final = Model("facebook/opt-13b", 12_853_473_280, 40 * 2 * 40 * 128 * 2, 20_480, 50_272, 2_048)
H100: Final = Device("H100 SXM 80 GB", 81_559 * 2**20, 64e9)
H200: Final = Device("H200 SXM 141 GB", 143_771 * 2**20, 64e9)
A100: Final = Device("A100 SXM 40 GB", 40_339 * 2**20, 32e9, is_a100=True)
L40S: Final = Device("L40S 48 GB", 46_068 * 2**20, 32e9)
RTX_4090: Final = Device("RTX 4090 24 GB", 25_250_627_584, 32e9)
V100: Final = Device("V100 SXM2 32 GB", 32_510 * 2**20, 16e9)

TABLES: Final = {
    "h100-qwen3-32b": Wanted("Qwen3-32B on one H100 80 GB: KV memory is what is short", QWEN_32B, H100, 1, "h100_sxm"),
    "a100-qwen3-8b": Wanted(
        "Qwen3-8B on one A100 40 GB", QWEN_8B, A100, 1, "a100_sxm",
        note="; the tables name the device A100 SXM with the 80 GB model's bandwidth, so steps of a 40 GB device may take longer",
    ),
    "h200-qwen3-8b": Wanted("Qwen3-8B on one H200: KV memory to spare", QWEN_8B, H200, 1, "h200_sxm"),
    "h100x4-llama-70b": Wanted(
        "Llama-3.1-70B on four H100 80 GB", LLAMA_70B, H100, 4, "h100_sxm", "meta-llama/Meta-Llama-3.1-70B"
    ),
    "l40s-llama-8b": Wanted("Llama-3.1-8B on one L40S 48 GB", LLAMA_8B, L40S, 1, "l40s", "meta-llama/Meta-Llama-3.1-8B"),
}  # fmt: skip
RTX_4090_NAME: Final = "rtx4090-llama-8b"
_RTX_4090: Final = Wanted("Llama-3.1-8B on one RTX 4090 24 GB", LLAMA_8B, RTX_4090, 1, "")
_V100: Final = Wanted("OPT-13B on one V100 32 GB, the paper's engine: derived from the data sheet, not measured", OPT_13B, V100, 1, "")


# --- vLLM's defaults and the KV room ------------------------------------------------------------------------------------------------------


def defaults(device: Device) -> tuple[int, int]:
    """Returns vLLM's own (max_num_seqs, max_num_batched_tokens) of its API server on this device (EngineArgs.get_batch_defaults)."""
    large = device.memory_bytes >= 70 * _GIB and not device.is_a100
    return (1024, 8192) if large else (256, 2048)


def room_of(wanted: Wanted) -> tuple[int, str]:
    """Returns the tokens of 16-bit KV that fit and the derivation in words."""
    model, devices = wanted.model, wanted.devices
    slots, budget = defaults(wanted.device)
    usable = wanted.device.memory_bytes * _UTILIZATION
    weights = model.parameters * 2 / devices
    # The MLP's two inner activations and its product, 16 bits each; logits once in 16 and twice in 32 bits.
    working = budget * model.intermediate / devices * 6 + slots * model.vocabulary * 10
    reserved = _RESERVED_BYTES + (_COLLECTIVE_BYTES if devices > 1 else 0)
    left = usable - weights - working - reserved
    parts = {"memory x 0.9": usable, "weights": -weights, "activations and logits": -working, "CUDA and libraries": -reserved}
    said = ", ".join(f"{name} {value / 1e9:.2f} GB" for name, value in parts.items())
    each = f" on each of {devices} devices" if devices > 1 else ""
    return int(left / (model.kv_token_bytes / devices)) // _BLOCK * _BLOCK, f"derived{each}: {said}; {left / 1e9:.2f} GB are left for KV"


# --- the linear step model ----------------------------------------------------------------------------------------------------------------

Point = tuple[int, int, int]


def points(wanted: Wanted, room_tokens: int) -> list[Point]:
    """Returns (prefill tokens, decoding requests, context of each) that the engine can hold."""
    slots, budget = defaults(wanted.device)
    found: list[Point] = []
    for context in (128, 256, 512, 1024, 2048, 4096):
        for decoding in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            if decoding <= slots and decoding * context <= room_tokens and context < wanted.model.max_len:
                found.append((0, decoding, context))
                chunks = [chunk for chunk in (16, 32, 64, 128, 256, 512, 1024, 2048) if chunk + decoding <= budget]
                found += [(chunk, decoding, context) for chunk in chunks]
    return found


def fit(steps: Sequence[Point], milliseconds: Sequence[float]) -> tuple[Coefficients, float, float]:
    """Returns the step model, its mean absolute relative error as weighted, and the error of the steps that prefill."""
    took = np.array(milliseconds) / 1000
    table: Floats = np.array([[1, chunk, n, n * (context + 1) + min(chunk, context)] for chunk, n, context in steps], dtype=float)
    decode = table[:, 1] == 0
    weight = np.where(decode, _DECODE_SHARE / decode.sum(), (1 - _DECODE_SHARE) / (~decode).sum())
    relative = table / took[:, None]
    scale = relative.max(axis=0)
    root = np.sqrt(weight)
    solved, _ = nnls(relative / scale * root[:, None], root)
    found = solved / scale
    error = np.abs(table @ found / took - 1)
    return Coefficients(*(float(f"{one:.4g}") for one in found)), round(float(error @ weight), 4), round(float(error[~decode].mean()), 4)


# --- profiles -----------------------------------------------------------------------------------------------------------------------------


def kv_row(token_bytes: int, room: int, step: Coefficients, error: float, prefill_error: float) -> dict[str, Any]:
    """Returns the KV part of a profile as JSON holds it."""
    return {"token_bytes": token_bytes, "room_tokens": room, "step": asdict(step), "fit_error": error, "prefill_fit_error": prefill_error}


def profile(wanted: Wanted, kv16: dict[str, Any], kv8: dict[str, Any], source: str, version: str, room: str) -> dict[str, Any]:
    """Returns a profile as JSON holds it."""
    slots, budget = defaults(wanted.device)
    link = wanted.device.link_bytes_per_second * _LINK_SHARE * wanted.devices
    return {
        "description": wanted.description,
        "model": wanted.model.name,
        "device": wanted.device.name,
        "devices": wanted.devices,
        "kv16": kv16,
        "kv8": kv8,
        "slots": slots,
        "max_num_batched_tokens": budget,
        "block_size": _BLOCK,
        "async_scheduling": True,
        "max_model_len": min(wanted.model.max_len, kv16["room_tokens"] - _BLOCK),
        "to_host_bytes_per_second": link,
        "from_host_bytes_per_second": link,
        "source": source,
        "version": version,
        "room": room,
    }


def half_context(step: Coefficients) -> Coefficients:
    """Returns the step model with 8-bit KV where it was not measured: attention reads half the bytes."""
    return Coefficients(step.step_seconds, step.prefill_seconds, step.decode_seconds, step.context_seconds / 2)


def _python() -> Path:
    """Makes the virtual environment of the tables, once."""
    python = _CACHE / "bin/python"
    done = _CACHE / f"installed-{VERSION}"
    if not done.exists():
        venv.create(_CACHE, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:", "--no-deps", *_NEEDS], check=True
        )
        done.touch()
    return python


def from_tables() -> dict[str, dict[str, Any]]:
    """Returns the profiles whose step times NVIDIA measured."""
    asked: list[dict[str, Any]] = []
    rooms = {name: room_of(wanted) for name, wanted in TABLES.items()}
    for name, wanted in TABLES.items():
        for bits in (16, 8):
            model = wanted.table_model or wanted.model.name
            steps = points(wanted, rooms[name][0] * (16 // bits))
            asked.append({"model": model, "system": wanted.system, "devices": wanted.devices, "kv": bits, "points": steps})
    script = Path(__file__).with_name("hardware_tables.py")
    answer = subprocess.run([_python(), script], input=json.dumps(asked), capture_output=True, text=True, check=True).stdout
    answers = iter(zip(asked, json.loads(answer.splitlines()[-1]), strict=True))
    found: dict[str, dict[str, Any]] = {}
    for name, wanted in TABLES.items():
        (of16, ms16), (of8, ms8) = next(answers), next(answers)
        room, words = rooms[name]
        step, error, of_prefill = fit(of16["points"], ms16)
        step8, error8, of_prefill8 = fit(of8["points"], ms8) if ms8 is not None else (half_context(step), error, of_prefill)
        derived = "" if ms8 is not None else "; 8-bit KV: derived, attention reads half the bytes"
        bytes16 = wanted.model.kv_token_bytes
        found[name] = profile(
            wanted, kv_row(bytes16, room, step, error, of_prefill),
            kv_row(bytes16 // 2, 2 * room, step8, error8, of_prefill8),
            f"NVIDIA's measured tables of vLLM, PyPI aisimulate, system {wanted.system}{derived}{wanted.note}", VERSION, words,
        )  # fmt: skip
    return found


def v100() -> dict[str, Any]:
    """Returns the paper's engine: three quarters of the data sheet's 900 GB/s and 125 TFLOP/s, which is what the tables show of an H100."""
    bandwidth, flops = 0.75 * 900e9, 0.75 * 125e12
    model = OPT_13B
    step = Coefficients(
        float(f"{model.parameters * 2 / bandwidth:.4g}"), float(f"{model.parameters * 2 / flops:.4g}"), 5e-5,
        float(f"{model.kv_token_bytes / bandwidth:.4g}"),
    )  # fmt: skip
    room, words = room_of(_V100)
    bytes16 = model.kv_token_bytes
    return profile(
        _V100, kv_row(bytes16, room, step, 0.0, 0.0), kv_row(bytes16 // 2, 2 * room, half_context(step), 0.0, 0.0),
        "derived, not measured: weights and KV read at 0.75 of 900 GB/s, prefill at 0.75 of 125 TFLOP/s, 0.05 ms per decoding request", "1",
        words,
    )  # fmt: skip


def rtx4090(data: Path) -> dict[str, Any]:
    """Returns the RTX 4090's profile, its step model fitted to one half of the published run."""
    from tests.bench.replay_fit import fitted
    from tests.bench.replay_runs import read_run

    run = read_run(data / "vllm_runs", "RTX4090_Llama-3.1-8B")
    step, error = fitted(run)
    bytes16, room = LLAMA_8B.kv_token_bytes, run.room_tokens
    row = profile(
        _RTX_4090, kv_row(bytes16, room, step, error, error), kv_row(bytes16 // 2, 2 * room, half_context(step), error, error),
        "fitted to the first half of a published run of vLLM 0.19 (LLMServingSim's repository); 8-bit KV: derived, attention reads half",
        "2026-08-20", "published with the run",
    )  # fmt: skip
    return row | {"max_model_len": 32_768}


def main() -> int:
    """Writes the profiles; --check only compares. Returns 1 when they differ."""
    parser = argparse.ArgumentParser(prog="python -m tests.tools.hardware", description="Writes the hardware profiles of the simulator.")
    parser.add_argument("--check", action="store_true", help="compare with the committed profiles and write nothing")
    options = parser.parse_args()
    before = json.loads(_RESULT.read_text())
    tables, data = from_tables(), os.environ.get("ALISE_DATA")
    rows = {"slots32": before["slots32"]} | tables
    rows[RTX_4090_NAME] = rtx4090(Path(data)) if data else before[RTX_4090_NAME]
    rows["v100-opt-13b"] = v100()
    text = json.dumps(rows, indent=1) + "\n"
    if options.check:
        return 0 if text == _RESULT.read_text() else 1
    _RESULT.write_text(text)
    for name, row in rows.items():
        print(f"{name:18} {row['kv16']['step']} room {row['kv16']['room_tokens']} fit error {row['kv16']['fit_error']:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

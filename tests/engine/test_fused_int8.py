"""The fused kernels of the INT8 codec: the same bytes as their torch reference, in Triton's interpreter."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from alise_engine.kv.int8 import INT8, Int8
from tests.engine.fused_int8_cases import CASES
from tests.engine.triton_folder import triton_folder

pytestmark = pytest.mark.engine

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": f"{triton_folder()}:{ROOT}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.engine.fused_int8_cases"]
    done = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=400)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("name", [pytest.param(name, id=name) for name in CASES])
def test_the_kernels_write_the_references_bytes_and_read_them_as_it_does(compared: dict[str, Any], name: str) -> None:
    found = compared[name]
    assert found["bytes"] == 0
    assert found["units"] <= (1.0 if CASES[name].dtype is torch.bfloat16 else 0.0)


@pytest.fixture(scope="module")
def compiled() -> dict[str, list[str]]:
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"PYTHONPATH": f"{triton_folder()}:{ROOT}", "TRITON_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.engine.fused_int8_compiled"]
        done = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=400)
    return dict(json.loads(done.stdout))


def test_the_kernels_compile_for_gpus_to_instructions_that_round_as_the_reference_does(compiled: dict[str, list[str]]) -> None:
    assert compiled
    assert {name: inexact for name, inexact in compiled.items() if inexact} == {}


def test_without_a_gpu_the_codec_is_vllms_quantizer_and_no_kernel_is_compiled() -> None:
    from alise_engine.compat import device

    assert type(device.int8_codec()) is Int8
    assert INT8.name == device.int8_codec().name

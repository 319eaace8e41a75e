"""The environment that real engines need, and the application and sidecar with which several files test the middleware."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

# These import no vLLM, which reads the variables below when it is imported.
from tests.engine.api_fakes import FakeAdmission, admission_server
from tests.engine.middleware_server import Server, serving

os.environ.update(
    {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as server:
        yield server


@pytest.fixture
async def sidecar(tmp_path: Path) -> AsyncIterator[FakeAdmission]:
    async with admission_server(tmp_path / "admission.sock") as sidecar:
        yield sidecar

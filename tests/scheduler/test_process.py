"""The sidecar as a process: its threads, what it reports to the engine, and what its commands `top` and `explain` print beside it."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alise_contract.v1 import engine_control_pb2 as engine_pb
from tests.scheduler.engine_server import EngineServer

pytestmark = pytest.mark.process

_COUNT = """
import alise_scheduler.state
import numpy, os
numpy.ones((400, 400), "f") @ numpy.ones((400, 400), "f")
print(len(os.listdir("/proc/self/task")))
"""


def test_numpy_computes_with_one_thread() -> None:
    env = {key: value for key, value in os.environ.items() if key not in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    said = subprocess.run([sys.executable, "-c", _COUNT], env=env, capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.strip() == "1"


async def test_an_encoder_that_cannot_be_used_is_reported_to_the_engine(tmp_path: Path) -> None:
    """A whole sidecar with a folder that has no encoder serves, and reports what is missing."""
    engine = await EngineServer(str(tmp_path / "control.sock")).start()
    env = {
        **os.environ, "ALISE_SOCKET_DIR": str(tmp_path), "ALISE_HTTP_PORT": "0", "ALISE_HTTP_HOST": "127.0.0.1",
        "ALISE_ENCODER": str(tmp_path / "nothing here"),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "alise_scheduler", "run", env=env, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while engine.encoder != engine_pb.ENCODER_STATE_MISSING:  # noqa: ASYNC110 it is another process that tells
                await asyncio.sleep(0.02)
    finally:
        process.terminate()
        assert await process.wait() == 0
        await engine.stop()


async def test_a_person_in_the_container_asks_the_running_scheduler(tmp_path: Path) -> None:
    """The commands as `kubectl exec` runs them, in processes of their own, beside the scheduler process."""
    engine = await EngineServer(str(tmp_path / "control.sock")).start()
    engine.report(request_id="cmpl-abc-0-1a2b3c4d", job_id="job-1", phase=engine_pb.PHASE_RUNNING, prompt_tokens=3)
    env = {**os.environ, "ALISE_SOCKET_DIR": str(tmp_path), "ALISE_HTTP_PORT": "0", "ALISE_HTTP_HOST": "127.0.0.1"}

    async def ended(*words: str) -> tuple[int | None, str]:
        command = [sys.executable, "-m", "alise_scheduler", *words]
        one = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
        output, _ = await one.communicate()
        return one.returncode, output.decode()

    missing = await ended("top")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "alise_scheduler", "run", env=env, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while (found := await ended("explain", "cmpl-abc"))[0] != 0:  # noqa: ASYNC110 it is another process that begins to answer
                await asyncio.sleep(0.02)
        listed = await ended("top")
    finally:
        process.terminate()
        assert await process.wait() == 0
        await engine.stop()
    assert (missing[0], "the scheduler process does not answer" in missing[1]) == (1, True)
    assert "It runs: 0 tokens so far" in found[1]
    assert [row.split()[:3] for row in listed[1].splitlines()[2:]] == [["1", "job-1", "running"]]

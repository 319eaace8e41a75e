"""A real `alise-engine serve` on the tiny model, as a child process, and what the tests do to it.

`test_served_engine.py` and the other tests of a served engine start it.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import openai

from alise_contract.names import ADMISSION_SOCKET, CONTRACT_VERSION, CONTROL_SOCKET
from alise_contract.v1 import engine_control_pb2 as pb
from alise_contract.v1 import engine_control_pb2_grpc as pb_grpc

START_SECONDS = 240.0
STOP_SECONDS = 60.0
HTTP_SECONDS = 30.0
API_KEY = "secret"
MAX_MODEL_LEN = 2048


@dataclass(frozen=True)
class ServedEngine:
    port: int
    socket_dir: Path
    process: "subprocess.Popen[bytes]"
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admission_socket(self) -> Path:
        return self.socket_dir / ADMISSION_SOCKET

    def openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=API_KEY, max_retries=0, timeout=HTTP_SECONDS)

    def http(self, api_key: str | None = API_KEY) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=HTTP_SECONDS)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(f"unix:{self.socket_dir / CONTROL_SOCKET}")

    async def status(self) -> dict[str, Any]:
        async with self.http(api_key=None) as client:
            report: dict[str, Any] = (await client.get("/alise/v1/status")).raise_for_status().json()
            return report

    async def metric(self, name: str) -> float:
        """A sample of /metrics by its name with labels."""
        async with self.http() as client:
            text = (await client.get("/metrics")).raise_for_status().text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert found is not None, f"no {name} in /metrics"
        return float(found[1])

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """`alise-engine …` beside it."""
        environ = {**os.environ, "ALISE_SOCKET_DIR": str(self.socket_dir)}
        command = [sys.executable, "-m", "alise_engine.serve.cli", *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)


@contextlib.contextmanager
def serving(model: Path, *flags: str, **environment: str) -> Iterator[ServedEngine]:
    """`environment` comes on top of what a user's shell has."""
    with tempfile.TemporaryDirectory(prefix="alise-") as directory, held_port() as port:
        sockets, log = Path(directory) / "sock", Path(directory) / "engine.log"
        command = [sys.executable, "-m", "alise_engine.serve.cli", "serve", str(model), "--port", str(port), *flags]
        # Other tests run engines inside this process and set vLLM up for that; the child gets what a user's shell has.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
        # The machine may be busy: nothing in these tests is about the sidecar answering within 50 ms.
        environ |= {"ALISE_SOCKET_DIR": str(sockets), "ALISE_ADMIT_DEADLINE_MS": "2000", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
        environ |= environment
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            engine = ServedEngine(port, sockets, process, log)
            _wait_until_healthy(engine)
            yield engine
        finally:
            end(process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """vLLM's own shutdown takes 16 s; what is left of the process group is killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(STOP_SECONDS)


def _wait_until_healthy(engine: ServedEngine) -> None:
    deadline_seconds = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline_seconds:
        assert engine.process.poll() is None, f"the engine ended while starting:\n{_tail(engine.log)}"
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{engine.url}/health", timeout=2).status_code == 200:
                return
        time.sleep(0.5)
    raise AssertionError(f"the engine is not healthy after {START_SECONDS:.0f} s:\n{_tail(engine.log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """A free TCP port that the kernel gives to no other process, inside.

    A server that sets SO_REUSEADDR, as most do, can listen on it.
    """
    with socket.socket() as holder:
        # The second is for gRPC, whose servers set both.
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            holder.setsockopt(socket.SOL_SOCKET, option, 1)
        holder.bind(("127.0.0.1", 0))
        yield int(holder.getsockname()[1])


class Observer:
    """Follows a Watch and remembers all its messages."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: Any = pb_grpc.EngineControlStub(channel)
        self.rows: dict[str, list[pb.EngineRequest]] = {}
        self.finished: dict[str, pb.Finished] = {}
        self.session_id = ""
        self.draining = False
        self._sequence = 0

    async def follow(self) -> None:
        """Until cancelled or the stream ends."""
        async for message in self.stub.Watch(pb.WatchRequest(contract_version=CONTRACT_VERSION, client="tests"), timeout=300):
            if message.WhichOneof("event") == "snapshot":
                self.session_id = message.snapshot.session_id
                self._remember(message.snapshot.requests)
            else:
                self._remember(message.update.requests)
                self.finished.update({end.job_id: end for end in message.update.finished})
                self.draining = message.update.draining

    async def apply(self, *ranks: pb.Rank) -> pb.ApplyResponse:
        """As the sidecar would: in this session, with the next number. Makes the plan fresh for 2 s, with no ranks too."""
        self._sequence += 1
        request = pb.ApplyRequest(contract_version=CONTRACT_VERSION, session_id=self.session_id, sequence=self._sequence, ranks=ranks)
        response: pb.ApplyResponse = await self.stub.Apply(request, timeout=HTTP_SECONDS)
        return response

    @contextlib.asynccontextmanager
    async def planning(self, *ranks: pb.Rank) -> AsyncIterator[None]:
        """The plan holds, and stays fresh, inside."""
        await self.apply(*ranks)

        async def refresh() -> None:
            while True:
                await asyncio.sleep(0.3)
                await self.apply(*ranks)

        refreshing = asyncio.create_task(refresh())
        try:
            yield
        finally:
            refreshing.cancel()
            await asyncio.gather(refreshing, return_exceptions=True)

    def _remember(self, rows: Any) -> None:
        for row in rows:
            self.rows.setdefault(row.job_id, []).append(row)

    def phases(self, job_id: str) -> list[int]:
        """Without repetitions."""
        seen = [row.phase for row in self.rows.get(job_id, [])]
        return [phase for at, phase in enumerate(seen) if at == 0 or seen[at - 1] != phase]

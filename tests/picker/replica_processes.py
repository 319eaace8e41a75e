"""Replicas, the picker and Envoy as processes of this machine, and what a test does with them.

`test_envoy_picker.py`, `test_holding.py` and `tests/bench/picker.py` start them.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import grpc

from alise_contract.names import CONTRACT_VERSION, CONTROL_SOCKET, WAITING_PATH
from alise_contract.v1 import engine_control_pb2, lengths_pb2
from alise_contract.v1.engine_control_pb2_grpc import EngineControlStub
from alise_contract.v1.lengths_pb2_grpc import LengthsStub
from tests.cluster.control_plane import free_port

READY_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass
class ReplicaProcess:
    """A replica: an engine with a paced core, and the real sidecar."""

    folder: Path
    port: int
    lengths_port: int
    engine: "subprocess.Popen[bytes]"
    sidecar: "subprocess.Popen[bytes]"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def target(self) -> str:
        """As `alise-picker --endpoints` takes it."""
        return f"{self.address}=127.0.0.1:{self.lengths_port}"

    def hang(self) -> None:
        """Stops both processes in their tracks, as a node does that is out of memory."""
        for process in (self.engine, self.sidecar):
            process.send_signal(signal.SIGSTOP)

    async def drain(self) -> None:
        """Begins a drain, as the pod's preStop does."""
        async with grpc.aio.insecure_channel(f"unix:{self.folder}/{CONTROL_SOCKET}") as channel:
            request = engine_control_pb2.DrainRequest(contract_version=CONTRACT_VERSION, accept_seconds=600, timeout_seconds=0.1)
            await EngineControlStub(channel).Drain(request, timeout=10)

    async def load(self) -> lengths_pb2.LoadReport:
        """What it reports now."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.lengths_port}") as channel:
            reports = LengthsStub(channel).WatchLoad(lengths_pb2.WatchLoadRequest(), timeout=READY_SECONDS)
            report: lengths_pb2.LoadReport = await anext(aiter(reports))
            return report


@dataclass
class PickerProcess:
    """The picker."""

    process: "subprocess.Popen[bytes]"
    port: int
    http_port: int
    log: Path

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of the series with these labels."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        total = 0.0
        for line in (await self.get("/metrics")).splitlines():
            if line.startswith((f"{name} ", f"{name}{{")) and all(one in line for one in wanted):
                total += float(line.rsplit(" ", 1)[1])
        return total

    async def waiting(self) -> str:
        return await self.get(WAITING_PATH)

    async def get(self, path: str) -> str:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.http_port}{path}") as answer:
            return await answer.text()


@dataclass
class Started:
    """Every process of a block, ended with it."""

    folder: Path
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def replicas(
        self, count: int, *, slots: int = 2, step_ms: float = 20.0, predictor: str = "light", **settings: str
    ) -> list[ReplicaProcess]:
        """Starts replicas; `settings` are the sidecar's."""
        return [self._replica(number, slots, step_ms, predictor, settings) for number in range(count)]

    def _replica(self, number: int, slots: int, step_ms: float, predictor: str, settings: dict[str, str]) -> ReplicaProcess:
        folder = self.folder / f"replica-{len(self.processes)}-{number}"
        folder.mkdir(mode=0o700)
        port, lengths_port = free_port(), free_port()
        named = {f"ALISE_{key.upper()}": value for key, value in settings.items()}
        variables = {"ALISE_SOCKET_DIR": str(folder), "ALISE_HTTP_PORT": "0", "ALISE_LENGTHS_PORT": str(lengths_port),
                     "ALISE_PREDICTOR": predictor, "ALISE_ENCODER": "", "ALISE_HTTP_HOST": "127.0.0.1", **named}  # fmt: skip
        sidecar = self.start([sys.executable, "-m", "alise_scheduler", "run"], folder / "sidecar.log", variables)
        command = [sys.executable, "-m", "tests.picker.paced_replica", "--port", str(port), "--folder", str(folder)]
        engine = self.start([*command, "--slots", str(slots), "--step-ms", str(step_ms)], folder / "engine.log")
        return ReplicaProcess(folder, port, lengths_port, engine, sidecar)

    def picker(self, replicas: Sequence[ReplicaProcess], *more: str, port: int = 0) -> PickerProcess:
        """Starts the picker before these replicas."""
        port, http_port = port or free_port(), free_port()
        command = [sys.executable, "-m", "alise_picker", "--resource", "default/tiny", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--http-port", str(http_port), *more]
        if replicas:
            command += ["--endpoints", ",".join(one.target for one in replicas)]
        log = self.folder / f"picker-{port}.log"
        return PickerProcess(self.start(command, log), port, http_port, log)

    def start(self, command: Sequence[str], log: Path, variables: dict[str, str] | None = None) -> "subprocess.Popen[bytes]":
        with log.open("ab") as out:
            environ = {**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})}
            process = subprocess.Popen(command, env=environ, stdout=out, stderr=out, start_new_session=True)
        self.processes.append(process)
        return process

    def stop(self) -> None:
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        for process in self.processes:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Started]:
    """Processes that end with the block."""
    block = Started(folder)
    try:
        yield block
    finally:
        block.stop()


async def until(condition: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> None:
    """Awaits the coroutine function until it says yes. Raises AssertionError past the deadline; a refused connection is a no."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with contextlib.suppress(OSError, aiohttp.ClientError, grpc.aio.AioRpcError, TimeoutError):
            if await condition():
                return
        await asyncio.sleep(0.02)
    raise AssertionError(f"did not happen within {seconds:.0f} s: {what}")


async def ready(replicas: Sequence[ReplicaProcess], picker: PickerProcess | None = None) -> None:
    """Until every replica's sidecar has a session with its engine, and the picker has figures of all."""

    async def connected() -> bool:
        return all([(await one.load()).connected for one in replicas])

    await until(connected, "every sidecar is connected with its engine")
    if picker is not None:

        async def fresh() -> bool:
            return await picker.metric("alise_picker_replicas", state="fresh") == len(replicas)

        await until(fresh, "the picker has fresh figures of every replica")

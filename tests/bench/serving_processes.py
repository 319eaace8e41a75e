"""alise and stock vLLM as processes of their own: started, ready, and what each of their processes took of the CPU.

`serving.py`, `serving_emulated.py` and `clients.py` start them.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alise_engine.serve.compose import IN_PROCESS_EXECUTOR
from tests.bench import models
from tests.cluster.control_plane import free_port
from tests.emulated import launch
from tests.emulated.launch import Emulation
from tests.emulated.pacing import LOG_ENV, TALLY_ENV, Tally, tally_in
from tests.tools import encoder as encoders

READY_SECONDS: Final = 300.0
STOP_SECONDS: Final = 60.0
SLOTS: Final = 8
FLAGS: Final = ("--max-model-len", "2048", "--max-num-seqs", str(SLOTS), "--enforce-eager", "--logits-processors")
ENGINE_ENV: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}
# What vLLM calls the process that runs the model; the rest of the engine's processes are the API server and its helpers.
CORE_TITLE: Final = "EngineCore"
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Running:
    """A system that serves. Each of its programs leads a session, which all of its processes are in."""

    url: str
    engine: int
    sidecar: int | None
    # With the sockets, and what an emulated device writes.
    folder: Path = Path()

    @property
    def socket_dir(self) -> Path:
        return self.folder / "sock"

    @property
    def requests_log(self) -> Path:
        """What an emulated device says of each request."""
        return self.folder / "requests.jsonl"

    def tally(self) -> Tally:
        """How busy an emulated device was."""
        return tally_in(self.folder / "tally.json")

    def cpu_seconds(self, proc: Path = Path("/proc")) -> dict[str, float]:
        """CPU so far of the engine core, the API server and the sidecar, with the children that they have waited for."""
        spent = {"engine_core": 0.0, "api_server": 0.0, "sidecar": 0.0}
        for stat in proc.glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                session, seconds = parse_stat(stat.read_text())
                if session == self.engine:
                    core = CORE_TITLE in stat.with_name("cmdline").read_text(errors="replace")
                    spent["engine_core" if core else "api_server"] += seconds
                elif session == self.sidecar:
                    spent["sidecar"] += seconds
        return spent


def parse_stat(text: str) -> tuple[int, float]:
    """The session and the CPU seconds in /proc/PID/stat: its own and those of its children that have ended."""
    # The name, in brackets, may hold anything.
    fields = text.rpartition(")")[2].split()
    return int(fields[3]), sum(map(int, fields[11:15])) / _TICKS


@contextlib.contextmanager
def serving(system: str, encoder: Path | None, emulation: Emulation | None = None) -> Iterator[Running]:
    """The system, from ready to ended. Raises RuntimeError with the end of the log when it does not start."""
    port = free_port()
    bin_folder = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="alise-") as folder:
        environ = {
            **os.environ, "ALISE_SOCKET_DIR": f"{folder}/sock", "ALISE_HTTP_PORT": "0", encoders.VARIABLE: encoders.setting(encoder),
        }  # fmt: skip
        if emulation is None:
            environ |= {**ENGINE_ENV, "PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), environ.get("PYTHONPATH"))))}
            flags = [str(models.wide()), *FLAGS, "tests.bench.stop_after:StopAfter"]
            # Both get the same blocks, and the model in EngineCore's own process: stock's defaults on a CPU are others, and slower.
            flags += ["--block-size", "32", "--distributed-executor-backend", IN_PROCESS_EXECUTOR]
        else:
            environ = emulation.environ(environ) | {TALLY_ENV: f"{folder}/tally.json", LOG_ENV: f"{folder}/requests.jsonl"}
            flags = [str(launch.model_folder()), *emulation.flags()]
            if system == "alise":
                flags += emulation.own_flags()
        program = str(bin_folder / ("alise-engine" if system == "alise" else "vllm"))
        command = [program, "serve", *flags, "--served-model-name", "tiny", "--port", str(port)]
        with contextlib.ExitStack() as stack:
            sidecar = None
            if system == "alise":
                supervise = [str(bin_folder / "alise-scheduler"), "supervise"]
                sidecar = stack.enter_context(process(supervise, environ, Path(folder) / "scheduler.log")).pid
            log = Path(folder) / "engine.log"
            engine = stack.enter_context(process(command, environ, log))
            wait_healthy(port, engine, log)
            yield Running(f"http://127.0.0.1:{port}", engine.pid, sidecar, Path(folder))


@contextlib.contextmanager
def process(command: Sequence[str], environ: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A child with a session of its own, which is ended whole."""
    with log.open("wb") as out:
        child = subprocess.Popen(command, env=dict(environ), stdout=out, stderr=out, start_new_session=True)
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(STOP_SECONDS)


def wait_healthy(port: int, engine: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + READY_SECONDS
    while time.monotonic() < ends:
        if engine.poll() is not None:
            break
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200:
                return
        time.sleep(0.3)
    raise RuntimeError(f"the engine did not become ready within {READY_SECONDS:.0f} s:\n{log.read_text(errors='replace')[-3000:]}")

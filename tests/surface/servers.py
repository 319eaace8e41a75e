"""Starts stock vLLM and ours on this machine with comparable flags. `__main__.py` and `tests/bench/hostile.py` start them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from alise_engine.serve.compose import CPU_BLOCK_SIZE, IN_PROCESS_EXECUTOR
from tests.surface.row import MAX_MODEL_LEN, MODEL
from tests.surface.run import OURS, STOCK, Server, ServerDown

START_SECONDS: Final = 300.0
STOP_SECONDS: Final = 60.0
LOG_TAIL_LINES: Final = 30

# Of both servers. float32, so that texts do not depend on the last bits; the others enable routes and parameters.
FLAGS: Final = (
    "--dtype=float32",
    "--enable-auto-tool-choice",
    "--tool-call-parser=hermes",
    "--enable-scale-out",
)
MAX_NUM_SEQS: Final = 8
SIZES: Final = (f"--served-model-name={MODEL}", f"--max-model-len={MAX_MODEL_LEN}", f"--max-num-seqs={MAX_NUM_SEQS}")
# `alise-engine serve` sets these on a CPU; stock needs them as flags: the same kernels, the same block size, and priorities allowed.
STOCK_FLAGS: Final = (
    "--enforce-eager",
    f"--block-size={CPU_BLOCK_SIZE}",
    f"--distributed-executor-backend={IN_PROCESS_EXECUTOR}",
    "--scheduling-policy=priority",
)
OUR_FLAGS: Final = ("--alise-host-memory=256Mi", "--alise-kv-codec=none")
# Previous responses and background responses need the store.
ENVIRON: Final = {"VLLM_ENABLE_RESPONSES_API_STORE": "1"}
# No plugins: alise's are installed beside it, and vLLM loads all of them unless some are named.
STOCK_ENVIRON: Final = {"VLLM_PLUGINS": "", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}


@contextlib.contextmanager
def both(model: Path) -> Iterator[tuple[Server, Server]]:
    """Serve the model with both; each is restarted when its engine dies."""
    with tempfile.TemporaryDirectory(prefix="alise-") as folder:
        # There is no sidecar: every request is admitted without one.
        own = {"ALISE_SOCKET_DIR": f"{folder}/sock", "ALISE_HTTP_PORT": "0"}
        stock_command = ("vllm.entrypoints.cli.main", "serve", str(model), *SIZES, *FLAGS, *STOCK_FLAGS)
        our_command = ("alise_engine.serve.cli", "serve", str(model), *SIZES, *FLAGS, *OUR_FLAGS)
        with _served(STOCK, stock_command, STOCK_ENVIRON, Path(folder)) as stock, _served(OURS, our_command, own, Path(folder)) as ours:
            yield stock, ours


@dataclass(slots=True)
class _Process:
    command: Sequence[str]
    environ: Mapping[str, str]
    port: int
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start or restart it and return when it is healthy. Raises ServerDown with the end of its log."""
        self.end()
        # Tests that run engines in this process set vLLM up for that; the child gets what a user's shell has.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("VLLM_")}
        environ = {**inherited, "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1", **ENVIRON, **self.environ}
        argv = [sys.executable, "-m", *self.command, "--port", str(self.port)]
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(argv, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=2).status_code == 200:
                    return
            time.sleep(0.5)
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise ServerDown(f"{self.command[0]} did not start:\n{tail}")

    def end(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)


@contextlib.contextmanager
def _served(name: str, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> Iterator[Server]:
    process = _Process(command, environ, _free_port(), folder / f"{name}.log")
    try:
        process.start()
        yield Server(name, f"http://127.0.0.1:{process.port}", revive=process.start)
    finally:
        process.end()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

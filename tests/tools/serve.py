"""`make serve`: engine and sidecar on this machine, without Kubernetes; the OpenAI API on localhost.

    PORT=8000 MODEL=path-or-hub-id ARGS="any flag of vllm serve" python -m tests.tools.serve

Without MODEL the tiny random-weight model is served (built once under $ALISE_CACHE). The sidecar predicts with the sentence encoder that
the image has (built once as well; ALISE_ENCODER=none: without, or a folder with another). Ctrl-C ends both; a second one kills.

    DEVICE=h100-qwen3-32b TIME_SCALE=1 python -m tests.tools.serve

serves on an emulated device (tests/emulated): everything is real but the model, whose steps last as long as that GPU's, and whose text is
noise.
"""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.emulated import launch
from tests.emulated.launch import Emulation
from tests.emulated.pacing import DeviceError
from tests.tools import encoder

READY_SECONDS: Final = 600.0
# vLLM ends its worker process with two grace periods of its own.
STOP_SECONDS: Final = 45.0
HTTP_SECONDS: Final = 2.0
PROGRESS_SECONDS: Final = 1.0
LOG_TAIL_LINES: Final = 25


@dataclass(frozen=True, slots=True)
class Wanted:
    port: int
    # A folder or a hub id.
    model: str
    served_name: str
    # Further flags of `vllm serve`.
    args: tuple[str, ...]
    emulation: Emulation | None = None


class ServeError(Exception):
    """Serving is not possible; the message says why."""


def main() -> int:
    cache = Path(os.environ.get("ALISE_CACHE") or Path.home() / ".cache" / "alise")
    try:
        wanted = wanted_from(os.environ, cache)
        refuse_busy_port(wanted.port)
        _ensure_tiny(wanted, cache)
        return _serve(wanted, cache / "serve")
    except ServeError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ended", flush=True)
        return 0


def wanted_from(environ: Mapping[str, str], cache: Path) -> Wanted:
    port = environ.get("PORT") or "8000"
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ServeError(f"PORT is {port!r}: expected a port number")
    args = tuple(shlex.split(environ.get("ARGS", "")))
    if device := environ.get("DEVICE"):
        return _emulated(int(port), device, args, environ)
    if model := environ.get("MODEL"):
        return Wanted(int(port), model, Path(model).name if Path(model).is_dir() else model, args)
    return Wanted(int(port), str(_tiny(cache)), "tiny", args)


def _emulated(port: int, device: str, args: tuple[str, ...], environ: Mapping[str, str]) -> Wanted:
    if environ.get("MODEL"):
        raise ServeError(f"MODEL is {environ['MODEL']!r} and DEVICE is {device!r}: an emulated device computes no model, leave MODEL out")
    try:
        emulation = launch.emulation_from(device, environ.get("TIME_SCALE", ""))
    except DeviceError as error:
        raise ServeError(str(error)) from error
    flags = (*emulation.flags(), *emulation.own_flags(), *args)
    return Wanted(port, str(launch.model_folder()), "tiny", flags, emulation)


def _tiny(cache: Path) -> Path:
    return cache / "models" / "tiny"


def refuse_busy_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServeError(f"port {port} is taken ({error.strerror}): choose another with PORT=") from error


def _ensure_tiny(wanted: Wanted, cache: Path) -> None:
    if wanted.model != str(_tiny(cache)) or (_tiny(cache) / "model.safetensors").exists():
        return
    print("building the tiny model (random weights: its text is noise, its scheduling is real)", flush=True)
    subprocess.run([sys.executable, "-m", "alise_engine.serve.tiny_model", str(_tiny(cache))], check=True)


def _encoder(environ: Mapping[str, str]) -> Path | None:
    """The folder of the encoder; without it lengths are predicted less well, which is no reason not to serve."""
    try:
        return encoder.wanted(environ)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"serve: no sentence encoder, lengths are predicted without it ({error})", file=sys.stderr, flush=True)
        return None


def _serve(wanted: Wanted, log_dir: Path) -> int:
    log_dir.mkdir(parents=True, exist_ok=True)
    # Short: the kernel allows a socket's path 107 bytes.
    sockets = Path(tempfile.mkdtemp(prefix="alise-"))
    environ = {**os.environ, "ALISE_SOCKET_DIR": str(sockets), "PYTHONUNBUFFERED": "1"}
    # Otherwise two servers on one machine would fight for the pod's port; the log names the one it got.
    environ.setdefault("ALISE_HTTP_PORT", "0")
    environ[encoder.VARIABLE] = encoder.setting(_encoder(os.environ))
    if wanted.emulation is not None:
        environ = wanted.emulation.environ(environ)
    flags = ["--port", str(wanted.port), "--served-model-name", wanted.served_name, *wanted.args]
    with _signals_interrupt(), contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, sockets, ignore_errors=True)
        scheduler = stack.enter_context(_running([_command("alise-scheduler"), "supervise"], environ, log_dir / "scheduler.log"))
        engine = stack.enter_context(_running([_command("alise-engine"), "serve", wanted.model, *flags], environ, log_dir / "engine.log"))
        _wait_until_ready(wanted, engine, log_dir / "engine.log")
        print(_try_it(wanted, sockets, log_dir), flush=True)
        told = False
        while engine.poll() is None:
            if not told and scheduler.poll() is not None:
                # The engine goes on without it: first come, first served.
                print(f"the sidecar ended with {scheduler.returncode}; see {log_dir / 'scheduler.log'}", file=sys.stderr, flush=True)
                told = True
            time.sleep(PROGRESS_SECONDS)
        raise ServeError(_ended(engine, log_dir / "engine.log"))


def _command(name: str) -> str:
    """The project's own script, beside the Python that runs this."""
    script = Path(sys.executable).parent / name
    if not script.exists():
        raise ServeError(f"{script} is missing: run `make install`")
    return str(script)


@contextlib.contextmanager
def _running(command: Sequence[str], environ: Mapping[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A child in its own process group (Ctrl-C reaches this program alone), ended when the context is."""
    with log.open("wb") as output:
        child = subprocess.Popen(command, env=dict(environ), stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        yield child
    finally:
        _end(child, Path(command[0]).name)


def _end(child: "subprocess.Popen[bytes]", name: str) -> None:
    if child.poll() is None:
        print(f"\nending {name} (vLLM takes about 15 s)" if name == "alise-engine" else f"ending {name}", flush=True)
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            print("killing what is left", file=sys.stderr, flush=True)
    # vLLM's workers are in the group too.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # SIGINT as well: a shell starts what it puts in the background with that ignored.
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_ready(wanted: Wanted, engine: "subprocess.Popen[bytes]", log: Path) -> None:
    started = time.monotonic()
    tty = sys.stdout.isatty()
    while not _healthy(wanted.port):
        waited = time.monotonic() - started
        if engine.poll() is not None:
            raise ServeError(_ended(engine, log))
        if waited > READY_SECONDS:
            raise ServeError(f"not ready after {waited:.0f} s; see {log}")
        line = f"starting {wanted.served_name}: {waited:3.0f} s (about 30 s on a CPU; log: {log})"
        if tty:
            print(f"\r\033[K{line}", end="", flush=True)
        elif int(waited) % 10 == 0:
            print(line, flush=True)
        time.sleep(PROGRESS_SECONDS)
    print("\r\033[K" if tty else "", end="")
    print(f"ready after {time.monotonic() - started:.0f} s", flush=True)


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=HTTP_SECONDS) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _ended(engine: "subprocess.Popen[bytes]", log: Path) -> str:
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
    return f"the engine ended with {engine.returncode}; the end of {log}:\n{tail}"


def _try_it(wanted: Wanted, sockets: Path, log_dir: Path) -> str:
    url = f"http://localhost:{wanted.port}"
    return f"""
Try:
  curl -iN {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "{wanted.served_name}", "messages": [{{"role": "user", "content": "hello"}}], "max_tokens": 40, "stream": true}}'
  curl {url}/alise/v1/status
  curl {url}/metrics | grep alise_
Which requests wait, and why one of them waited, by the x-request-id of its answer:
  {_command("alise-scheduler")} top --socket-dir {sockets}
  {_command("alise-scheduler")} explain ID --socket-dir {sockets}
Logs: {log_dir}. Ctrl-C ends engine and sidecar."""


if __name__ == "__main__":
    sys.exit(main())

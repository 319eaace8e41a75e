"""Runs kubectl, the only way from the plugin to a cluster: so every setting, login and proxy of the person's kubectl counts.

Every call has a deadline, except `start`, whose caller `forward.py` ends the process. Every failure is a PluginError that says what to do
(`refusals.py`). `cli.py` creates it.
"""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol

from .errors import KubectlError, NoClusterError, NoKubectlError
from .refusals import refusal

CALL_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Target:
    """Where to look. None: as kubectl is configured."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None


class Cluster(Protocol):
    """What the commands need of a cluster."""

    def get(self, *arguments: str) -> Any:
        """The JSON that `kubectl get` prints. Raises PluginError."""

    def text(self, *arguments: str, text_in: str | None = None, timeout_seconds: float = CALL_SECONDS) -> str:
        """What kubectl prints. Raises PluginError."""

    def run_in(self, pod: str, container: str, command: Sequence[str]) -> tuple[int, str, str]:
        """Runs a command in a container: its exit status, its standard output and its standard error. Raises PluginError."""


class Kubectl:
    """The cluster that the person's kubectl talks to."""

    def __init__(self, target: Target, call_seconds: float = CALL_SECONDS) -> None:
        """`call_seconds`: the deadline of a call that names none. Raises NoKubectlError."""
        self._call_seconds = call_seconds
        program = shutil.which("kubectl")
        if program is None:
            raise NoKubectlError("kubectl is not on your PATH: install it, or add its folder to PATH")
        options = {"--namespace": target.namespace, "--context": target.context, "--kubeconfig": target.kubeconfig}
        self._start = [program, *(f"{name}={value}" for name, value in options.items() if value is not None)]

    def get(self, *arguments: str) -> Any:
        return json.loads(self.text("get", *arguments, "--output=json", timeout_seconds=self._call_seconds))

    def text(self, *arguments: str, text_in: str | None = None, timeout_seconds: float = CALL_SECONDS) -> str:
        done = self._run(arguments, text_in, timeout_seconds)
        if done.returncode:
            raise refusal(done.stderr)
        return done.stdout

    def run_in(self, pod: str, container: str, command: Sequence[str]) -> tuple[int, str, str]:
        done = self._run(("exec", pod, f"--container={container}", "--", *command), None, self._call_seconds)
        # kubectl ends with the status of the command, and with 1 if it could not run it.
        if done.returncode and "command terminated with exit code" not in done.stderr:
            raise refusal(done.stderr)
        return done.returncode, done.stdout, done.stderr

    def start(self, *arguments: str, errors: IO[str]) -> "subprocess.Popen[str]":
        """Starts kubectl for a call that lasts, with what it prints in a pipe and its errors in a file. Raises KubectlError."""
        try:
            return subprocess.Popen(
                [*self._start, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
            )
        except OSError as error:
            raise KubectlError(f"kubectl cannot be started: {error}") from error

    def _run(self, arguments: Sequence[str], text_in: str | None, timeout_seconds: float) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                [*self._start, *arguments],
                input=text_in,
                stdin=subprocess.DEVNULL if text_in is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NoClusterError(
                f"kubectl {arguments[0]} took longer than {timeout_seconds:.0f} s: check the network and `kubectl cluster-info`"
            ) from None
        except OSError as error:
            raise KubectlError(f"kubectl cannot be started: {error}") from error

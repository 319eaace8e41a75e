"""The supervisor of the scheduler's container: starts the scheduler process, and restarts it when it dies or hangs.

A container that stops makes its pod NotReady and removes it from the Service. So this process ends on SIGTERM or SIGINT only. It restarts
the child when it dies, with a pause that doubles while the child dies young, and kills it when its heartbeat stops. It reaps every process
below it. It is synchronous and small on purpose, so that it has few ways to fail.

The heartbeat is a pipe. The child writes a byte about once a second while its dispatcher turns. If writing fails, the supervisor is gone,
and the child ends. If the supervisor itself is killed, the kernel kills the child (`parent.py`), also one that hangs. `__main__.py` runs it
for `alise-scheduler supervise`.
"""

import contextlib
import logging
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

HEARTBEAT_FD_ENV: Final = "ALISE_HEARTBEAT_FD"
RESTARTS_ENV: Final = "ALISE_RESTARTS"
# Defaults for the C library: one heap for all threads takes a fifth less memory, and huge pages, where the kernel provides them on request,
# save page-table look-ups while the encoder's weights are read.
_TUNABLES_ENV: Final = "GLIBC_TUNABLES"
_TUNABLES: Final = "glibc.malloc.arena_max=1:glibc.malloc.hugetlb=1"
FIRST_PAUSE_SECONDS: Final = 0.1
# A child that has lived this long is not in a crash loop.
HEALTHY_SECONDS: Final = 10.0
# Time allowed for imports and sockets before the first heartbeat.
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
_OUT_OF_MEMORY: Final = "killed by the kernel, probably for memory; raise the container's limit (spec.scheduling.resources.limits.memory)"
_POLL_SECONDS: Final = 0.5
_ENDS: Final = (signal.SIGTERM, signal.SIGINT)
_FORWARDED: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def next_pause(previous_seconds: float, lived_seconds: float, longest_seconds: float) -> float:
    """The pause before the next start: short after a healthy life, else twice the last one, up to the longest."""
    if lived_seconds >= HEALTHY_SECONDS or previous_seconds <= 0:
        return min(FIRST_PAUSE_SECONDS, longest_seconds)
    return min(previous_seconds * 2, longest_seconds)


def child_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: this one without the supervisor's own variables, with defaults for the C library."""
    return {_TUNABLES_ENV: _TUNABLES} | {key: value for key, value in environ.items() if key not in (HEARTBEAT_FD_ENV, RESTARTS_ENV)}


@dataclass(slots=True)
class _Child:
    pid: int
    pipe: int
    started_at: float
    beat_at: float
    beating: bool = False
    killed: bool = False


class Supervisor:
    """Keeps a command running. `run()` returns the exit status for this process."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], hang_seconds: float, longest_pause_seconds: float) -> None:
        self._command = list(command)
        self._env = dict(env)
        self._hang_seconds = hang_seconds
        self._longest_pause = longest_pause_seconds
        self._child: _Child | None = None
        self._restarts = 0
        self._pause = 0.0
        self._start_at = 0.0
        self._ending = False
        self._deadline = 0.0
        self._wake_read, self._wake_write = os.pipe()
        for fd in (self._wake_read, self._wake_write):
            os.set_blocking(fd, False)

    def run(self) -> int:
        """Supervises until SIGTERM or SIGINT, then ends the child. Returns 0."""
        old = {number: signal.signal(number, self._on_signal) for number in (*_ENDS, *_FORWARDED, signal.SIGCHLD)}
        wakeup = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        try:
            while not (self._ending and self._child is None):
                self._reap()
                self._act(time.monotonic())
                self._wait()
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in old.items():
                signal.signal(number, handler)
            os.close(self._wake_read)
            os.close(self._wake_write)
        log.info("supervisor ends", extra={"restarts": self._restarts})
        return 0

    def _on_signal(self, number: int, _: object) -> None:
        if number == signal.SIGCHLD:
            return
        if number in _ENDS:
            if not self._ending:
                self._ending, self._deadline = True, time.monotonic() + STOP_SECONDS
            number = signal.SIGTERM
        self._kill(number)

    def _kill(self, number: int) -> None:
        """Sends a signal to the child's whole process group, which includes the processes it has started."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def _reap(self) -> None:
        """Reaps every dead process, both the child and orphans."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._child is not None and pid == self._child.pid:
                self._after_death(self._child, os.waitstatus_to_exitcode(status))

    def _after_death(self, child: _Child, code: int) -> None:
        self._child = None
        os.close(child.pipe)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        if self._ending:
            return
        now = time.monotonic()
        self._restarts += 1
        self._pause = next_pause(self._pause, now - child.started_at, self._longest_pause)
        self._start_at = now + self._pause
        # Where the kernel kills single processes, the container does not end, and no status of the pod says OOMKilled.
        cause = {"cause": _OUT_OF_MEMORY} if code == -signal.SIGKILL and not child.killed else {}
        log.error(
            "scheduler died, starting it again",
            extra={
                "exit": code, "hung": child.killed, "lived_seconds": round(now - child.started_at, 3),
                "pause_seconds": self._pause, "restarts": self._restarts, **cause,
            },
        )  # fmt: skip

    def _act(self, now: float) -> None:
        child = self._child
        if child is None:
            if not self._ending and now >= self._start_at:
                self._start(now)
            return
        if self._ending:
            if now >= self._deadline and not child.killed:
                child.killed = True
                log.error("scheduler did not end in time, killing it", extra={"seconds": STOP_SECONDS})
                self._kill(signal.SIGKILL)
            return
        allowed = self._hang_seconds if child.beating else max(START_SECONDS, self._hang_seconds)
        if now - child.beat_at > allowed and not child.killed:
            child.killed = True
            log.error("scheduler hangs, killing it", extra={"seconds_without_heartbeat": round(now - child.beat_at, 1)})
            self._kill(signal.SIGKILL)

    def _start(self, now: float) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_inheritable(write, True)
        env = {**self._env, HEARTBEAT_FD_ENV: str(write), RESTARTS_ENV: str(self._restarts)}
        handled = (*_ENDS, *_FORWARDED, signal.SIGCHLD)
        try:
            pid = os.posix_spawn(self._command[0], self._command, env, setpgroup=0, setsigdef=handled)
        except OSError as error:
            os.close(read)
            self._pause = next_pause(self._pause, 0.0, self._longest_pause)
            self._start_at = now + self._pause
            log.error("scheduler cannot be started", extra={"command": self._command[0], "detail": str(error)})
            return
        finally:
            os.close(write)
        self._child = _Child(pid, read, started_at=now, beat_at=now)
        log.info("scheduler process started", extra={"pid": pid, "restarts": self._restarts})

    def _wait(self) -> None:
        """Sleeps until a signal, a heartbeat or the next check."""
        pipes = [self._wake_read] + ([self._child.pipe] if self._child is not None else [])
        pause = _POLL_SECONDS
        if self._child is None and not self._ending:
            pause = min(pause, max(0.0, self._start_at - time.monotonic()))
        ready, _, _ = select.select(pipes, [], [], pause)
        for fd in ready:
            data = b""
            with contextlib.suppress(BlockingIOError):
                data = os.read(fd, 4096)
            if self._child is not None and fd == self._child.pipe:
                if data:
                    self._child.beat_at, self._child.beating = time.monotonic(), True
                else:
                    # The child has closed its end and is dying. Do not spin until it is reaped.
                    time.sleep(0.01)


class Heartbeat:
    """The child's end of the heartbeat. Call it often; it writes about once a second, and nothing without a supervisor."""

    def __init__(self, fd: int | None, now: Callable[[], float] = time.monotonic) -> None:
        self._fd = fd
        self._now = now
        self._last = -1.0
        if fd is not None:
            os.set_blocking(fd, False)

    def __call__(self) -> None:
        now = self._now()
        if self._fd is None or now - self._last < 1.0:
            return
        self._last = now
        try:
            os.write(self._fd, b".")
        except BlockingIOError:
            return
        except OSError:
            log.error("the supervisor is gone; ending")
            os.kill(os.getpid(), signal.SIGTERM)
            self._fd = None


def scheduler_command(flags: Sequence[str]) -> list[str]:
    """The command of the child: the same interpreter and package."""
    return [sys.executable, "-m", "alise_scheduler", "run", *flags]

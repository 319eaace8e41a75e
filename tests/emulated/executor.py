"""`--distributed-executor-backend tests.emulated.executor.EmulatedExecutor`: a device whose steps last as long as a real one's.

vLLM's engine submits a step and gets a future; the thread that waits for it sleeps until the device's step has ended (`pacing.py`). With
asynchronous scheduling, which GPUs have by default and which this turns on here, the engine schedules the next step meanwhile. `launch.py`
names it to vLLM.
"""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from vllm.v1.executor.uniproc_executor import UniProcExecutor

from tests.emulated import pacing
from tests.emulated.worker import EmulatedWorker

TALLY_SECONDS: Final = 0.5


def is_emulated(backend: Any) -> bool:
    """Whether vLLM was asked for this executor, by its name or by the class."""
    return str(getattr(backend, "__name__", backend)).endswith("EmulatedExecutor")


def keep_async_scheduling() -> None:
    """Has vLLM keep asynchronous scheduling for this executor, though it turns it off on a CPU: the emulated device is none.

    Engines with other executors in the same process are left as they are. Harmless when called twice.
    """
    from vllm.platforms.cpu import CpuPlatform

    check = CpuPlatform.check_and_update_config.__func__
    if hasattr(check, "keeps_async_scheduling"):
        return

    def keeping(cls: Any, vllm_config: Any) -> None:
        wanted = vllm_config.scheduler_config.async_scheduling
        check(cls, vllm_config)
        if is_emulated(vllm_config.parallel_config.distributed_executor_backend):
            vllm_config.scheduler_config.async_scheduling = wanted

    keeping.keeps_async_scheduling = True  # type: ignore[attr-defined]
    CpuPlatform.check_and_update_config = classmethod(keeping)


# vLLM imports this module while it makes its configuration, before the platform changes it.
keep_async_scheduling()


class Result(Future[Any]):
    """A step's output, which is there when the device's step has ended; a thread that asks for it sleeps until then."""

    def __init__(self, output: Any, ready_at: float, before_sleep: Callable[[], None]) -> None:
        super().__init__()
        self._output, self._ready_at, self._before_sleep = output, ready_at, before_sleep

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self._before_sleep()
            time.sleep(max(0.0, self._ready_at - time.monotonic()))
            self.set_result(self._output)
        return super().result(timeout)


class EmulatedExecutor(UniProcExecutor):
    """The device is in the environment (`tests.emulated.launch` puts it there)."""

    def _init_executor(self) -> None:
        self._device = pacing.device_from(os.environ)
        self.driver_worker: Any = EmulatedWorker(self.vllm_config, self._device)
        self._timeline = pacing.Timeline()
        self._tally = pacing.Tally()
        self._tally_path = Path(os.environ[pacing.TALLY_ENV]) if pacing.TALLY_ENV in os.environ else None
        self._told_at = 0.0
        self._sampled: Result | None = None

    def execute_model(self, scheduler_output: Any, non_block: bool = False) -> Any:
        output, work, goes_on = self.driver_worker.step(scheduler_output)
        now, idle_from = time.monotonic(), self._timeline.idle_from
        self._timeline = pacing.submitted(self._timeline, self._device, work, now)
        result = Result(output, self._timeline.computed_at, self._tell)
        if work.computes:
            idle_seconds = max(0.0, now - idle_from) if goes_on else 0.0
            self._tally = self._tally.step(pacing.step_seconds(self._device, work), idle_seconds)
            # As vLLM's model runners: the tokens are asked for by `sample_tokens`.
            self._sampled, result = result, Result(None, now, lambda: None)
        return result if non_block else result.result()

    def sample_tokens(self, grammar_output: Any, non_block: bool = False) -> Any:
        sampled, self._sampled = self._sampled, None
        assert sampled is not None, "no step was submitted"
        return sampled if non_block else sampled.result()

    def take_draft_token_ids(self) -> None:
        return None

    def shutdown(self) -> None:
        self._told_at = 0.0
        self._tell()

    def _tell(self) -> None:
        """Writes the tally while the thread would sleep anyway."""
        now = time.monotonic()
        if self._tally_path is not None and now - self._told_at > TALLY_SECONDS:
            self._told_at = now
            aside = self._tally_path.with_suffix(".new")
            aside.write_text(json.dumps(asdict(self._tally)))
            aside.replace(self._tally_path)

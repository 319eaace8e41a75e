"""An engine that a test steps by hand. The tests of `tests/engine` and the benchmarks of the engine in `tests/bench` step it."""

import gc
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alise_contract.pod_key import pod_key
from alise_engine.wire.calls import (
    ApplyAnswer,
    ApplyCall,
    Counters,
    LimitsRow,
    PollAnswer,
    PollCall,
    RankRow,
    SnapshotAnswer,
    SnapshotCall,
    decode_answer,
    encode,
)
from alise_engine.wire.stamp import Stamp, stamp_key, stamped_args
from tests.engine.crowd import Crowd

BLOCK_SIZE = 32
HOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class EngineOptions:
    prefix_caching: bool = False
    asynchronous: bool = False
    max_num_seqs: int = 2
    blocks: int = 65
    max_model_len: int = 1024
    max_num_batched_tokens: int | None = None
    tensor_parallel_size: int = 1
    codec: str = "none"
    block_size: int = BLOCK_SIZE
    dtype: str = "float32"
    # Copies beside the step; None: where there is a core for it.
    copy_thread: bool | None = None
    # vLLM as it is, for comparison.
    stock: bool = False
    # `dummy`: the model's folder has no weights, and random ones are generated where they are needed.
    load_format: str = "auto"
    # 0: no host store, as `alise-engine --alise-host-memory 0` has it.
    # None: as large as the KV cache on the device.
    host_bytes: int | None = HOST_BYTES
    # Changes to the model's configuration.
    hf_overrides: Mapping[str, Any] = field(default_factory=dict)
    # An executor's path; None: vLLM's own choice.
    executor: str | None = None
    # LoRA adapters that run at the same time; 0: no LoRA.
    adapters: int = 0


@dataclass
class Answer:
    """The answer of one request so far."""

    tokens: list[int] = field(default_factory=list)
    finished: bool = False
    # Tokens of the prompt that the prefix cache had.
    cached_tokens: int = 0
    # vLLM's own, by index: texts, log-probabilities, parallel samples.
    completions: dict[int, Any] = field(default_factory=dict)


class Clock:
    """The engine's monotonic clock, moved by the test."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Engine:
    """One vLLM engine in this process, with alise in it."""

    def __init__(self, model: Path, options: EngineOptions) -> None:
        from vllm import LLM
        from vllm.config import KVTransferConfig

        self.options = options
        # The pod's key, as the API server and EngineCore have it.
        self._run = tempfile.TemporaryDirectory(prefix="alise-")
        self.stamp_key = stamp_key(pod_key(self._run.name))
        from vllm.platforms import current_platform

        if options.asynchronous and current_platform.is_cpu():
            _allow_async_scheduling_on_cpu()
        ours: dict[str, Any] = {
            "scheduler_cls": "alise_engine.enginecore.scheduler.make_scheduler",
            "additional_config": {"alise": {"codec": options.codec, "socket_dir": self._run.name}},
        }
        if options.host_bytes != 0:
            size = {} if options.host_bytes is None else {"host_bytes": options.host_bytes}
            ours["kv_transfer_config"] = KVTransferConfig(
                kv_connector="AliseKVConnector",
                kv_connector_module_path="alise_engine.kv.connector",
                kv_role="kv_both",
                kv_connector_extra_config={**size, "copy_thread": options.copy_thread},
            )
        with _in_this_process():
            self.llm: Any = LLM(
                model=str(model),
                dtype=options.dtype,
                block_size=options.block_size,
                enforce_eager=True,
                load_format=options.load_format,
                max_model_len=options.max_model_len,
                max_num_seqs=options.max_num_seqs,
                max_num_batched_tokens=options.max_num_batched_tokens,
                tensor_parallel_size=options.tensor_parallel_size,
                num_gpu_blocks_override=options.blocks,
                enable_prefix_caching=options.prefix_caching,
                hf_overrides=dict(options.hf_overrides),
                distributed_executor_backend=options.executor,
                **_lora(options),
                **({} if current_platform.is_cpu() else {"async_scheduling": options.asynchronous}),
                **({} if options.stock else ours),
            )
        self.core: Any = self.llm.llm_engine.engine_core.engine_core
        self.scheduler: Any = self.core.scheduler
        self.clock = Clock()
        self.scheduler.clock = self.clock
        self.answers: dict[str, Answer] = {}
        self.crowd = Crowd(self)
        self._count = 0

    # --- requests -------------------------------------------------------------------------------------------------------------------
    def ask(
        self, prompt: list[int], tokens: int, job: str = "", hint: str = "", priority: int = 0, adapter: Any = None, **sampling: Any
    ) -> str:
        """Adds a greedy request for exactly `tokens` tokens and returns the id that the test knows it by. `adapter`: a LoRARequest."""
        from vllm import SamplingParams

        self._count += 1
        name = f"r{self._count}"
        extra = self.stamped(job, hint, priority) if job else {}
        parameters = SamplingParams(**{"temperature": 0.0, "max_tokens": tokens, "ignore_eos": True, "extra_args": extra} | sampling)
        self.answers[name] = Answer()
        self.llm.llm_engine.add_request(name, {"prompt_token_ids": prompt}, parameters, priority=priority, lora_request=adapter)
        return name

    def stamped(self, job: str, hint: str = "", priority: int = 0) -> dict[str, Any]:
        """Extra arguments as the API server signs them."""
        return stamped_args(None, Stamp(job, priority, hint), self.stamp_key)

    def abort(self, name: str) -> None:
        self.llm.llm_engine.abort_request([name])

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            for output in self.llm.llm_engine.step():
                answer = self.answers[output.request_id]
                answer.tokens = list(output.outputs[0].token_ids)
                answer.finished = output.finished
                answer.completions.update({completion.index: completion for completion in output.outputs})
                answer.cached_tokens = output.num_cached_tokens or 0

    def run_until(self, done: Callable[[], bool], max_steps: int = 3000) -> None:
        """Steps until it is so; fails after `max_steps`."""
        for _ in range(max_steps):
            if done():
                return
            self.step()
        raise AssertionError(f"not so after {max_steps} steps")

    def finish(self, *names: str) -> None:
        self.run_until(lambda: all(self.answers[name].finished for name in names))

    def tokens(self, name: str) -> list[int]:
        return self.answers[name].tokens

    def grown(self, name: str, tokens: int) -> Callable[[], bool]:
        return lambda: len(self.answers[name].tokens) >= tokens

    # --- the plan -------------------------------------------------------------------------------------------------------------------
    def apply(self, *ranks: RankRow, limits: LimitsRow | None = None) -> ApplyAnswer:
        return decode_answer(ApplyAnswer, self.scheduler(encode(ApplyCall(ranks, limits))))

    def set_codec(self, codec: str) -> None:
        """As if the engine had been started with this codec."""
        self.scheduler.codec = codec

    def snapshot(self) -> SnapshotAnswer:
        return decode_answer(SnapshotAnswer, self.scheduler(encode(SnapshotCall())))

    def poll(self) -> PollAnswer:
        return decode_answer(PollAnswer, self.scheduler(encode(PollCall())))

    def counters(self) -> Counters:
        return self.poll().counters

    @contextmanager
    def slots(self, count: int) -> Iterator[None]:
        """Has the engine run this many requests at a time, inside."""
        before = self.scheduler.max_num_active_reqs
        self.scheduler.max_num_active_reqs = count
        try:
            yield
        finally:
            self.scheduler.max_num_active_reqs = before

    # --- what a test wants to know --------------------------------------------------------------------------------------------------
    def running_jobs(self) -> list[str]:
        return [self.scheduler.tracker.requests[request.request_id].job_id for request in self.scheduler.running]

    @property
    def pool(self) -> Any:
        """The worker's host store."""
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        return get_kv_transfer_group().pool

    def fresh(self) -> "Engine":
        """As after the start: nothing in flight, no plan, counters at zero, codec as configured."""
        from alise_engine.enginecore import decide

        for name, answer in self.answers.items():
            if not answer.finished:
                self.abort(name)
        self.step(4)
        self.llm.reset_prefix_cache()
        self.answers.clear()
        self.scheduler.plan = decide.EMPTY_PLAN
        self.scheduler.max_num_active_reqs = self.options.max_num_seqs
        self.crowd = Crowd(self)
        self.scheduler.tally.clear()
        self.set_codec({"none": "raw"}.get(self.options.codec, self.options.codec))
        self.poll()
        return self

    def forget_names(self) -> None:
        """The next request is the first one again."""
        self._count = 0

    def close(self) -> None:
        self.core.shutdown()
        self.llm = self.core = self.scheduler = None
        self._run.cleanup()
        gc.collect()


def _lora(options: EngineOptions) -> dict[str, Any]:
    if not options.adapters:
        return {}
    return {"enable_lora": True, "max_loras": options.adapters, "max_lora_rank": 8}


@contextmanager
def _in_this_process() -> Iterator[None]:
    """EngineCore and the worker where the test can reach them; only for engines that are started inside."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _allow_async_scheduling_on_cpu() -> None:
    """vLLM turns asynchronous scheduling off on CPU; GPUs have it by default, and its scheduler is what we want to see."""
    from vllm.platforms.cpu import CpuPlatform

    original = CpuPlatform.check_and_update_config.__func__

    def check_and_update_config(cls: Any, vllm_config: Any) -> None:
        original(cls, vllm_config)
        vllm_config.scheduler_config.async_scheduling = True
        CpuPlatform.check_and_update_config = classmethod(original)

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)

"""vLLM's own scheduler without an engine: a step takes a given time, and every sampled token is there at its end.

`test_against_vllm.py` compares the simulator with it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from vllm.config import CacheConfig, DeviceConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request
from vllm.v1.structured_output import StructuredOutputManager

from alise_scheduler.core.job import Ints
from alise_scheduler.core.lengths import Floats
from alise_scheduler.core.reports import EngineShape
from alise_simulator.model import EngineModel
from tests.simulation.builders import Row

BLOCK = 16
# Ends an answer, as a model's end-of-sequence token does; every other token is below it.
END = 1000


@dataclass(frozen=True, slots=True)
class Served:
    """When each request had its first and its last token, and how often it was preempted."""

    first_seconds: Floats
    end_seconds: Floats
    preemptions: Ints


def make_scheduler(folder: Path, shape: EngineShape, policy: str, model: EngineModel) -> Any:
    """A scheduler for an engine of this shape; `folder` holds any small model's configuration."""
    init_none_hash(sha256)
    config = VllmConfig(
        model_config=ModelConfig(model=str(folder), skip_tokenizer_init=True, max_model_len=shape.max_model_len, dtype="float32"),
        scheduler_config=SchedulerConfig(
            max_num_seqs=shape.max_num_seqs, max_num_batched_tokens=shape.max_num_batched_tokens, max_model_len=shape.max_model_len,
            enable_chunked_prefill=True, is_encoder_decoder=False, policy=policy, async_scheduling=model.async_scheduling,
        ),
        cache_config=CacheConfig(block_size=BLOCK, enable_prefix_caching=model.prefix_caching),
        device_config=DeviceConfig("cpu"),
    )  # fmt: skip
    # One block more: vLLM keeps the first one for itself.
    blocks = shape.num_device_blocks + 1
    config.cache_config.num_gpu_blocks = blocks
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.float32)
    cache = KVCacheConfig(num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)])
    made = AsyncScheduler if model.async_scheduling else Scheduler
    return made(
        vllm_config=config, kv_cache_config=cache, structured_output_manager=StructuredOutputManager(config), block_size=BLOCK,
        hash_block_size=BLOCK,
    )  # fmt: skip


def serve(rows: Sequence[Row], scheduler: Any, priorities: Sequence[int], step_seconds: float, ahead: bool, capped: bool = False) -> Served:
    """Drives the scheduler as EngineCore does, with one step in flight or, `ahead`, with the next one scheduled while it runs.

    An answer ends with a stop token, or, `capped`, at its max_tokens, which the scheduler knows from the start.
    """
    rng, hasher = np.random.default_rng(0), get_request_block_hasher(BLOCK, sha256)
    requests: dict[str, Any] = {}
    flying: deque[tuple[Any, list[str], list[bool], float]] = deque()
    first: dict[int, float] = {}
    end: dict[int, float] = {}
    now = busy_until = 0.0
    while len(end) < len(rows):
        while len(requests) < len(rows) and rows[len(requests)][0] <= now + 1e-12:
            arrival, prompt, output = rows[len(requests)]
            request = Request(
                request_id=str(len(requests)), prompt_token_ids=rng.integers(0, END, prompt).tolist(), pooling_params=None,
                sampling_params=SamplingParams(max_tokens=output if capped else 10 * output + 100, stop_token_ids=[END]),
                arrival_time=arrival,
                priority=priorities[len(requests)], block_hasher=hasher,
            )  # fmt: skip
            requests[request.request_id] = request
            scheduler.add_request(request)
        if not flying and not scheduler.has_requests():
            now = max(now, rows[len(requests)][0])
            continue
        if len(flying) < (2 if ahead else 1) and scheduler.has_requests():
            output_of = scheduler.schedule()
            names = list(output_of.num_scheduled_tokens)
            busy_until = max(busy_until, now) + (step_seconds if names else 0.0)
            flying.append((output_of, names, [_samples(requests[name]) for name in names], busy_until))
            if ahead and names and len(flying) < 2:
                continue
        output_of, names, samples, ready = flying.popleft()
        now = max(now, ready)
        stops_at = [len(rows) * END if capped else rows[int(name)][2] for name in names]
        tokens = [[_token(requests[n], at, rng)] if sampled else [] for n, at, sampled in zip(names, stops_at, samples, strict=True)]
        places = {name: place for place, name in enumerate(names)}
        scheduler.update_from_output(
            output_of,
            ModelRunnerOutput(
                req_ids=names, req_id_to_index=places, sampled_token_ids=tokens, logprobs=None, prompt_logprobs_dict={}, pooler_output=[]
            ),
        )
        for name in names:
            if requests[name].num_output_tokens:
                first.setdefault(int(name), now)
            if requests[name].is_finished():
                end.setdefault(int(name), now)
    each = range(len(rows))
    preemptions = np.array([requests[str(index)].num_preemptions for index in each])
    return Served(np.array([first[index] for index in each]), np.array([end[index] for index in each]), preemptions)


def _token(request: Any, output_tokens: int, rng: np.random.Generator) -> int:
    return END if request.num_output_tokens + 1 >= output_tokens else int(rng.integers(0, END))


def _samples(request: Any) -> bool:
    """Whether its prefill ends with this step, so that a token comes out of it."""
    return bool(request.num_computed_tokens >= request.num_tokens + max(0, request.num_output_placeholders - 1))

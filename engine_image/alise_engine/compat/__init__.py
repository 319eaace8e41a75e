"""vLLM's private names, all of them, for the one version that this was written against.

Everything else in this package uses what vLLM documents as an extension point, and overrides of the scheduler's and the connector's
methods; all of these are listed in `compat_names.py`. What alise cannot work with is refused in `checks.py`.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from .core_protocol import FINISH_ABORT, FINISH_ERROR, FINISH_LENGTH, FINISH_STOP
from .kv.int8 import Int8, KeyLayout, LayerShape, RowQuantizer

VLLM_VERSION: Final = "0.32.0"

Request = Any
Scheduler = Any
VllmConfig = Any


def is_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


# --- the KV cache's shape -----------------------------------------------------------------------------------------------------------
def layer_shape(config: VllmConfig, kv_cache_config: Any) -> LayerShape:
    """One layer's blocks on one worker. `keys` is None where the place of a channel is unknown, which leaves the raw codec only."""
    spec = kv_cache_config.kv_cache_groups[0].kv_cache_spec
    # One-byte dtypes have few operators; their bytes are moved as bytes.
    dtype = spec.dtype if spec.dtype.itemsize > 1 else torch.uint8
    return LayerShape(int(spec.num_kv_heads), int(spec.block_size), int(spec.head_size), dtype, _key_layout(config, spec))


def _key_layout(config: VllmConfig, spec: Any) -> KeyLayout | None:
    from vllm.v1.kv_cache_interface import MLAAttentionSpec

    if isinstance(spec, MLAAttentionSpec) or spec.dtype.itemsize < 2 or spec.head_size_v not in (None, spec.head_size):
        return None
    if not is_cpu():
        return KeyLayout.PER_TOKEN
    from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

    isa = _get_attn_isa(config.model_config.dtype, spec.block_size, spec.head_size, str(config.cache_config.cache_dtype))
    return KeyLayout.TRANSPOSED if isa == "vec" else None


def layer_count(kv_cache_config: Any) -> int:
    return len(kv_cache_config.kv_cache_groups[0].layer_names)


def raw_layer_block_bytes(kv_cache_config: Any) -> int:
    """Bytes of one block of one layer on one worker."""
    return int(kv_cache_config.kv_cache_groups[0].kv_cache_spec.unpadded_page_size_bytes)


def group_count(kv_cache_config: Any) -> int:
    """Kinds of KV caches that a request has blocks of: one of every kind for each stretch of its tokens."""
    return max(1, len(kv_cache_config.kv_cache_groups))


def kv_bits(kv_cache_config: Any) -> int:
    """Bits of one number of the KV cache; of packed types those of the byte that holds several; 0 where there is no cache."""
    for group in kv_cache_config.kv_cache_groups:
        layers = getattr(group.kv_cache_spec, "kv_cache_specs", None) or {"": group.kv_cache_spec}
        dtype = getattr(next(iter(layers.values())), "dtype", None)
        if dtype is not None:
            return int(dtype.itemsize) * 8
    return 0


def block_bytes(kv_cache_config: Any) -> int:
    """Bytes of one block of all the layers that share it on one worker."""

    def bytes_of(group: Any) -> int:
        layers = getattr(group.kv_cache_spec, "kv_cache_specs", None)
        if layers is not None:
            return sum(int(spec.page_size_bytes) for spec in layers.values())
        return len(group.layer_names) * int(group.kv_cache_spec.page_size_bytes)

    return max(map(bytes_of, kv_cache_config.kv_cache_groups), default=0)


def row_quantizer() -> RowQuantizer | None:
    """vLLM's compiled kernel that quantizes rows, asymmetrically, with a scale each; None where this build of vLLM has none."""
    return getattr(torch.ops._C, "dynamic_scaled_int8_quant", None)


def int8_codec() -> Int8:
    """The fastest INT8 codec of this device: fused kernels on CUDA, vLLM's row quantizer elsewhere, torch's operators without either."""
    from vllm.platforms import current_platform

    if current_platform.is_cuda():
        from .kv.fused_int8 import FusedInt8

        return FusedInt8()
    return Int8(row_quantizer())


# --- requests -----------------------------------------------------------------------------------------------------------------------
def extra_args(request: Request) -> dict[str, Any]:
    """What came with the parameters of generation or pooling beside vLLM's own."""
    if request.sampling_params is not None:
        return request.sampling_params.extra_args or {}
    return (request.pooling_params.extra_kwargs if request.pooling_params is not None else None) or {}


def may_be_saved(request: Request) -> bool:
    """Whether the KV of a request may outlive its blocks.

    Not so for pooling, for streaming sessions (their tokens are rewritten) and for prompt log-probabilities (vLLM recomputes those).
    """
    return request.sampling_params is not None and not request.resumable and not request.skip_reading_prefix_cache


def is_running(request: Request) -> bool:
    from vllm.v1.request import RequestStatus

    return bool(request.status == RequestStatus.RUNNING)


def can_be_admitted(request: Request) -> bool:
    """Whether the base class would admit this waiting request now, slots and blocks granted."""
    from vllm.v1.request import RequestStatus

    return request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED) and not request.num_stale_output_tokens


def finish_reason(request: Request) -> str:
    from vllm.v1.request import RequestStatus

    return {
        RequestStatus.FINISHED_STOPPED: FINISH_STOP,
        RequestStatus.FINISHED_ABORTED: FINISH_ABORT,
        RequestStatus.FINISHED_ERROR: FINISH_ERROR,
    }.get(request.status, FINISH_LENGTH)


def make_private(request: Request, first_token: int, hash_block_size: int) -> None:
    """No other request finds this one's blocks from that token on in the prefix cache.

    Block hashes are chained, so those from there on are salted with the request's id, and so is every one that is still to be made.
    """
    hasher = request._block_hasher
    if hasher is None:
        return
    first = first_token // hash_block_size
    if not isinstance(hasher, _PrivateHasher):
        hasher = request._block_hasher = _PrivateHasher(hasher, request.request_id.encode(), len(request.block_hashes))
    # What lies behind `first_private` is salted already.
    for index in range(first, hasher.first_private):
        request.block_hashes[index] = hasher.salted(request.block_hashes[index])
    hasher.first_private = min(first, hasher.first_private)


class _PrivateHasher:
    """Wraps the block hasher of one request; its hashes from `first_private` on are nobody else's."""

    def __init__(self, hasher: Any, salt: bytes, first_private: int) -> None:
        self.first_private = first_private
        self._hasher, self._salt = hasher, salt

    def __call__(self, request: Request) -> list[bytes]:
        return [self.salted(block_hash) for block_hash in self._hasher(request)]

    def salted(self, block_hash: bytes) -> bytes:
        return hashlib.sha256(self._salt + block_hash).digest()


# --- the scheduler ------------------------------------------------------------------------------------------------------------------
def block_ids(scheduler: Scheduler, request_id: str) -> list[int]:
    return list(scheduler.kv_cache_manager.get_block_ids(request_id)[0])


def own_blocks(scheduler: Scheduler, request_id: str) -> int:
    """Blocks of all groups that become free when this request is preempted."""
    groups = scheduler.kv_cache_manager.get_blocks(request_id).blocks
    return sum(1 for blocks in groups for block in blocks if block.ref_cnt == 1 and not block.is_null)


def free_blocks(scheduler: Scheduler) -> int:
    """Free device blocks, those included that a prefetch reserves."""
    reserved = sum(own_blocks(scheduler, request_id) for request_id in prefetched(scheduler))
    return int(scheduler.kv_cache_manager.block_pool.get_num_free_blocks()) + reserved


def prefetched(scheduler: Scheduler) -> tuple[str, ...]:
    """Waiting requests for whose KV blocks are reserved."""
    return tuple(scheduler.connector.prefetched) if scheduler.connector is not None else ()


def needed_blocks(scheduler: Scheduler, request: Request) -> int:
    """Free blocks that admitting this request takes: all its tokens, less what others that hold blocks share with it, and the watermark.

    Blocks that a prefetch has reserved for it count as needed, and as free (see `own_blocks`).
    """
    manager = scheduler.kv_cache_manager
    if len(scheduler.kv_cache_config.kv_cache_groups) != 1:
        return _needed_blocks_of_groups(scheduler, request)
    shared = 0
    if manager.enable_caching:
        held = manager.get_blocks(request.request_id).blocks[0]
        found, own = (held, 1) if held else (manager.get_computed_blocks(request)[0].blocks[0], 0)
        shared = sum(1 for block in found if block.ref_cnt > own)
    tokens = min(request.num_tokens, scheduler.max_model_len)
    return int(-(-tokens // scheduler.block_size) - shared + manager.watermark_blocks)


def _needed_blocks_of_groups(scheduler: Scheduler, request: Request) -> int:
    """Counts as vLLM does when it admits: windows need no blocks for what lies before them. Without a connector nothing is reserved."""
    manager = scheduler.kv_cache_manager
    found, computed, _ = manager.get_computed_blocks(request)
    tokens = min(request.num_tokens, scheduler.max_model_len)
    needed = manager.coordinator.get_num_blocks_to_allocate(
        request_id=request.request_id,
        num_tokens=tokens,
        new_computed_blocks=found.blocks,
        num_encoder_tokens=0,
        total_computed_tokens=computed,
        num_local_computed_tokens=computed,
        num_tokens_main_model=tokens,
        apply_admission_cap=True,
        prefill_end=max(request.num_prompt_tokens, request.num_tokens - 1),
    )
    return int(needed + manager.watermark_blocks)


def spare_blocks(scheduler: Scheduler) -> int:
    """Free device blocks now, less the watermark and one for each running request, which may need it in the next step."""
    manager = scheduler.kv_cache_manager
    return int(manager.block_pool.get_num_free_blocks()) - int(manager.watermark_blocks) - len(scheduler.running)


def reserve_blocks(scheduler: Scheduler, request: Request) -> int | None:
    """Device blocks for a waiting request's KV, what the prefix cache has of it included; None when there is nothing to load or no room.

    Returns the tokens that the connector is to load. From then on the request counts as computed so far, and the base class admits it with
    these blocks, as it does a request whose asynchronous load is over. They enter the prefix cache at the admission and not before.
    """
    manager = scheduler.kv_cache_manager
    blocks, local_tokens, _ = manager.get_computed_blocks(request)
    if local_tokens % scheduler.block_size:
        local_tokens -= local_tokens % scheduler.block_size
        blocks = manager.truncate_computed_blocks(blocks, local_tokens)
    load_tokens, _ = scheduler.connector.get_num_new_matched_tokens(request, local_tokens)
    if not load_tokens:
        return None
    reserved = manager.allocate_slots(
        request,
        0,
        num_new_computed_tokens=local_tokens,
        new_computed_blocks=blocks,
        num_external_computed_tokens=load_tokens,
        delay_cache_blocks=True,
        full_sequence_must_fit=True,
    )
    if reserved is None:
        return None
    request.num_computed_tokens = local_tokens + load_tokens
    return int(load_tokens)


def release_blocks(scheduler: Scheduler, request: Request) -> None:
    """Undoes `reserve_blocks`. At once: no step in flight computes with them, and the workers do one step's loads after the other."""
    scheduler.kv_cache_manager.free(request)
    request.num_computed_tokens = 0


def take_load_errors(model_runner_output: Any) -> set[int]:
    """Device blocks that the workers could not fill. Taken out of the output, so that the base class does not recover from it too."""
    output = model_runner_output.kv_connector_output
    if output is None or not output.invalid_block_ids:
        return set()
    errors, output.invalid_block_ids = set(output.invalid_block_ids), set()
    return errors


def forget_cached_blocks(scheduler: Scheduler, request_id: str) -> None:
    """No other request finds this one's blocks in the prefix cache from now on."""
    scheduler.kv_cache_manager.evict_blocks(set(block_ids(scheduler, request_id)))


def free_at_once(scheduler: Scheduler) -> None:
    """Blocks of a request that is preempted or ends are free at once, as without a connector.

    vLLM keeps them until the step in flight is over, because another connector may load into a block that this step still writes. With
    them it cannot preempt for memory while a step is in flight: from the first running request that lacks a block on, none makes a step,
    and a full KV cache is a fifth empty. Our workers copy in the order of the steps (`kv/staged.py`), so nothing is written too late.
    """
    scheduler.defer_block_free = False


def ask_when_full(scheduler: Scheduler, make_room: Callable[[Request], bool]) -> None:
    """Whenever blocks are short for a request, `make_room` may free some, until it answers False."""
    manager = scheduler.kv_cache_manager
    allocate_slots = manager.allocate_slots

    def allocate_or_make_room(request: Request, *args: Any, **kwargs: Any) -> Any:
        while (blocks := allocate_slots(request, *args, **kwargs)) is None and make_room(request):
            pass
        return blocks

    manager.allocate_slots = allocate_or_make_room


def notice_when_full(scheduler: Scheduler, notice: Callable[[], None]) -> None:
    """Calls `notice` whenever blocks are short for a request and none were freed for it. To be called after `ask_when_full`."""
    manager = scheduler.kv_cache_manager
    allocate_slots = manager.allocate_slots

    def allocate_and_notice(request: Request, *args: Any, **kwargs: Any) -> Any:
        blocks = allocate_slots(request, *args, **kwargs)
        if blocks is None:
            notice()
        return blocks

    manager.allocate_slots = allocate_and_notice


def keep_in_rank(scheduler: Scheduler, request_ids: Iterable[str]) -> None:
    """The base class moves a waiting request that holds blocks, and that it skipped, to a queue which is served first; these go back."""
    ids = set(request_ids)
    moved = [request for request in scheduler.kv_holding_waiting if request.request_id in ids]
    scheduler.kv_holding_waiting.remove_requests(moved)
    for request in moved:
        scheduler.waiting.add_request(request)


def free_slots(scheduler: Scheduler) -> int:
    return int(scheduler.max_num_active_reqs) - len(scheduler.running) - int(scheduler.num_waiting_for_streaming_input)


def admits(scheduler: Scheduler) -> bool:
    """False while the engine is paused."""
    from vllm.v1.core.sched.interface import PauseState

    return bool(scheduler.pause_state == PauseState.UNPAUSED)


def use_priorities(scheduler: Scheduler, waiting: Any) -> None:
    """The base class picks victims by `Request.priority` and admits in the order of our queue."""
    from vllm.v1.core.sched.request_queue import PriorityRequestQueue, SchedulingPolicy

    scheduler.policy = SchedulingPolicy.PRIORITY
    scheduler.waiting = waiting
    scheduler.kv_holding_waiting = PriorityRequestQueue()
    # A copy that cannot be read is recomputed, whatever the connector's configuration says.
    scheduler.recompute_kv_load_failures = True


def admitted_in(output: Any) -> list[str]:
    """Requests that got their slot in this step, for the first time or again."""
    return [*(new.req_id for new in output.scheduled_new_reqs), *output.scheduled_cached_reqs.resumed_req_ids]


def blocks_given_in(output: Any) -> set[int]:
    """Device blocks that requests got for this step; whatever else is written in it belongs to whoever ran before."""
    cached = output.scheduled_cached_reqs
    given = [new.block_ids for new in output.scheduled_new_reqs] + [ids for ids in cached.new_block_ids if ids is not None]
    return {block for groups in given for group in groups for block in group}


def context_tokens(output: Any) -> int:
    """Tokens that the requests of this step will have computed when it is over."""
    before = sum(new.num_computed_tokens for new in output.scheduled_new_reqs) + sum(output.scheduled_cached_reqs.num_computed_tokens)
    return int(before + output.total_num_scheduled_tokens)


def forget_last_step(scheduler: Scheduler, request_id: str) -> None:
    """A preempted request's next step must carry all of its tokens to the worker (model runner V1)."""
    scheduler.prev_step_scheduled_req_ids.discard(request_id)


@contextmanager
def reordered_heaps(scheduler: Scheduler) -> Iterator[None]:
    """Priorities may be rewritten inside; every queue is put in order again afterwards."""
    yield
    blocked = list(scheduler.kv_holding_waiting)
    scheduler.kv_holding_waiting.remove_requests(blocked)
    for request in blocked:
        scheduler.kv_holding_waiting.add_request(request)
    scheduler.waiting.rebuild()
    scheduler.running.sort()

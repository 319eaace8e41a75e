"""Access to the KV blocks of vLLM's scheduler: counting, reserving and freeing them, and noticing when they run out.

Used by `enginecore/scheduler.py`, `prefetch.py` and `report.py`.
"""

from collections.abc import Callable
from typing import Any

Request = Any
Scheduler = Any


def block_ids(scheduler: Scheduler, request_id: str) -> list[int]:
    return list(scheduler.kv_cache_manager.get_block_ids(request_id)[0])


def own_blocks(scheduler: Scheduler, request_id: str) -> int:
    """Returns the number of blocks, over all groups, that become free when this request is preempted."""
    groups = scheduler.kv_cache_manager.get_blocks(request_id).blocks
    return sum(1 for blocks in groups for block in blocks if block.ref_cnt == 1 and not block.is_null)


def free_blocks(scheduler: Scheduler) -> int:
    """Returns the number of free device blocks, including those that a prefetch has reserved."""
    reserved = sum(own_blocks(scheduler, request_id) for request_id in prefetched(scheduler))
    return int(scheduler.kv_cache_manager.block_pool.get_num_free_blocks()) + reserved


def prefetched(scheduler: Scheduler) -> tuple[str, ...]:
    """Returns the waiting requests that have blocks reserved for their KV."""
    return tuple(scheduler.connector.prefetched) if scheduler.connector is not None else ()


def needed_blocks(scheduler: Scheduler, request: Request) -> int:
    """Returns the free blocks needed to admit this request: those of all its tokens, less shared blocks in use, and the watermark.

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
    """Counts needed blocks as vLLM does: windows need none for earlier tokens. Without a connector nothing is reserved."""
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
    """Returns the number of free device blocks, less the watermark and one for each running request's next step."""
    manager = scheduler.kv_cache_manager
    return int(manager.block_pool.get_num_free_blocks()) - int(manager.watermark_blocks) - len(scheduler.running)


def reserve_blocks(scheduler: Scheduler, request: Request) -> int | None:
    """Reserves device blocks for a waiting request's KV, including those that the prefix cache has. Returns the number of tokens to load.

    Returns None when there is nothing to load or no room. From then on the request counts as computed so far, and the base class admits it
    with these blocks, like a request whose asynchronous load has ended. They enter the prefix cache only at the admission.
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
    """Undoes `reserve_blocks`, at once: no step in flight computes with these blocks, and the workers load in the order of the steps."""
    scheduler.kv_cache_manager.free(request)
    request.num_computed_tokens = 0


def forget_cached_blocks(scheduler: Scheduler, request_id: str) -> None:
    """Removes this request's blocks from the prefix cache."""
    scheduler.kv_cache_manager.evict_blocks(set(block_ids(scheduler, request_id)))


def free_at_once(scheduler: Scheduler) -> None:
    """Makes vLLM free the blocks of a request that is preempted or ends at once, as without a connector.

    vLLM keeps them until the step in flight has ended, because another connector may load into a block that this step still writes. With
    them it cannot preempt for memory while a step is in flight: from the first running request that lacks a block on, none makes a step,
    and a full KV cache is a fifth empty. Our workers copy in the order of the steps (`kv/staged.py`), so nothing is written too late.
    """
    scheduler.defer_block_free = False


def ask_when_full(scheduler: Scheduler, make_room: Callable[[Request], bool]) -> None:
    """Calls `make_room` whenever a request lacks blocks, until there are enough or it returns False."""
    manager = scheduler.kv_cache_manager
    allocate_slots = manager.allocate_slots

    def allocate_or_make_room(request: Request, *args: Any, **kwargs: Any) -> Any:
        while (blocks := allocate_slots(request, *args, **kwargs)) is None and make_room(request):
            pass
        return blocks

    manager.allocate_slots = allocate_or_make_room


def notice_when_full(scheduler: Scheduler, notice: Callable[[], None]) -> None:
    """Calls `notice` whenever a request lacks blocks and none were freed for it. To be called after `ask_when_full`."""
    manager = scheduler.kv_cache_manager
    allocate_slots = manager.allocate_slots

    def allocate_and_notice(request: Request, *args: Any, **kwargs: Any) -> Any:
        blocks = allocate_slots(request, *args, **kwargs)
        if blocks is None:
            notice()
        return blocks

    manager.allocate_slots = allocate_and_notice

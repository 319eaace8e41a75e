"""Access to the KV blocks of vLLM's scheduler: counting, reserving and freeing them, and noticing when they run out."""

from collections.abc import Callable
from typing import Any

Request = Any
Scheduler = Any


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

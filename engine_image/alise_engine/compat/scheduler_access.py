"""Access to the queues, the state and the outputs of vLLM's scheduler; its KV blocks are in `kv_blocks`.

`scheduler.py`, `prefetch.py` and `kv/connector.py` call it.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

Request = Any
Scheduler = Any


def use_priorities(scheduler: Scheduler, waiting: Any) -> None:
    """Has the base class pick victims by `Request.priority` and admit in the order of our queue."""
    from vllm.v1.core.sched.request_queue import PriorityRequestQueue, SchedulingPolicy

    scheduler.policy = SchedulingPolicy.PRIORITY
    scheduler.waiting = waiting
    scheduler.kv_holding_waiting = PriorityRequestQueue()
    # A copy that cannot be read is recomputed, whatever the connector's configuration says.
    scheduler.recompute_kv_load_failures = True


def keep_in_rank(scheduler: Scheduler, request_ids: Iterable[str]) -> None:
    """Moves these requests back to the ranked queue: vLLM puts a skipped request with blocks into a queue that is served first."""
    ids = set(request_ids)
    moved = [request for request in scheduler.kv_holding_waiting if request.request_id in ids]
    scheduler.kv_holding_waiting.remove_requests(moved)
    for request in moved:
        scheduler.waiting.add_request(request)


@contextmanager
def reordered_heaps(scheduler: Scheduler) -> Iterator[None]:
    """Restores the order of every queue on exit; inside, priorities may be changed."""
    yield
    blocked = list(scheduler.kv_holding_waiting)
    scheduler.kv_holding_waiting.remove_requests(blocked)
    for request in blocked:
        scheduler.kv_holding_waiting.add_request(request)
    scheduler.waiting.rebuild()
    scheduler.running.sort()


def free_slots(scheduler: Scheduler) -> int:
    return int(scheduler.max_num_active_reqs) - len(scheduler.running) - int(scheduler.num_waiting_for_streaming_input)


def max_adapters(scheduler: Scheduler) -> int:
    """Returns how many LoRA adapters may run in one step; 0 without LoRA."""
    return int(scheduler.lora_config.max_loras) if scheduler.lora_config is not None else 0


def admits(scheduler: Scheduler) -> bool:
    """Returns False while the engine is paused."""
    from vllm.v1.core.sched.interface import PauseState

    return bool(scheduler.pause_state == PauseState.UNPAUSED)


def admitted_in(output: Any) -> list[str]:
    """Returns the requests that got a slot in this step, for the first time or again."""
    return [*(new.req_id for new in output.scheduled_new_reqs), *output.scheduled_cached_reqs.resumed_req_ids]


def blocks_given_in(output: Any) -> set[int]:
    """Returns the device blocks that requests got for this step; all other blocks written in it belong to requests that ran before."""
    cached = output.scheduled_cached_reqs
    given = [new.block_ids for new in output.scheduled_new_reqs] + [ids for ids in cached.new_block_ids if ids is not None]
    return {block for groups in given for group in groups for block in group}


def context_tokens(output: Any) -> int:
    """Returns the number of tokens that the requests of this step will have computed after it."""
    before = sum(new.num_computed_tokens for new in output.scheduled_new_reqs) + sum(output.scheduled_cached_reqs.num_computed_tokens)
    return int(before + output.total_num_scheduled_tokens)


def take_load_errors(model_runner_output: Any) -> set[int]:
    """Removes from the output the device blocks that the workers could not fill, and returns them: the base class must not handle them."""
    output = model_runner_output.kv_connector_output
    if output is None or not output.invalid_block_ids:
        return set()
    errors, output.invalid_block_ids = set(output.invalid_block_ids), set()
    return errors


def forget_last_step(scheduler: Scheduler, request_id: str) -> None:
    """Has a preempted request's next step carry all of its tokens to the worker (model runner V1)."""
    scheduler.prev_step_scheduled_req_ids.discard(request_id)

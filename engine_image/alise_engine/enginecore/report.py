"""Reports the engine's shape, its counters since boot, and how much KV memory is in use now. `scheduler.py` calls it."""

from typing import Any

from ..compat import geometry, kv_blocks
from ..wire.calls import Counters, EngineShape
from ..wire.terms import CODEC_INT8, CODEC_RAW

Scheduler = Any


def shape(scheduler: Scheduler) -> EngineShape:
    config, connector = scheduler.vllm_config, scheduler.connector
    workers = int(config.parallel_config.tensor_parallel_size)
    cache = scheduler.kv_cache_config
    return EngineShape(
        max_num_seqs=int(scheduler.max_num_active_reqs),
        max_num_batched_tokens=int(config.scheduler_config.max_num_batched_tokens),
        max_model_len=int(scheduler.max_model_len),
        block_size=int(scheduler.block_size),
        # A request takes a block of every group: what is left for windows that end is not counted.
        num_device_blocks=int(cache.num_blocks) // geometry.group_count(cache),
        block_bytes=geometry.block_bytes(cache) * workers if connector is None else connector.block_bytes[CODEC_RAW],
        host_limit_bytes=0 if connector is None else connector.host_bytes,
        model=str(config.model_config.served_model_name or config.model_config.model),
        kv_bits=geometry.kv_bits(cache),
    )


def counters(scheduler: Scheduler) -> Counters:
    ledger = None if scheduler.connector is None else scheduler.connector.ledger
    sizes = {
        codec: 0 if ledger is None or codec not in ledger.block_bytes else ledger.used_bytes(codec) for codec in (CODEC_RAW, CODEC_INT8)
    }
    return Counters(
        **scheduler.tally,
        host_raw_bytes=sizes[CODEC_RAW],
        host_int8_bytes=sizes[CODEC_INT8],
        free_device_blocks=kv_blocks.free_blocks(scheduler) // geometry.group_count(scheduler.kv_cache_config),
    )

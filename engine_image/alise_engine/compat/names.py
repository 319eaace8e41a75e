"""Lists the names of vLLM 0.32.0 that this package uses, public and private.

The upstream-compatibility test calls `missing`, so that it fails first when upstream moves, and `refusals.py` compares the version.
"""

import importlib
import inspect
from typing import Any, Final

VLLM_VERSION: Final = "0.32.0"

# "module:Class.name" -> parameters that we pass or receive by name.
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "vllm.v1.core.sched.scheduler:Scheduler.__init__": ("vllm_config", "kv_cache_config"),
    "vllm.v1.core.sched.scheduler:Scheduler.schedule": ("throttle_prefills",),
    "vllm.v1.core.sched.scheduler:Scheduler.update_from_output": ("scheduler_output", "model_runner_output"),
    "vllm.v1.core.sched.scheduler:Scheduler.add_request": ("request",),
    "vllm.v1.core.sched.scheduler:Scheduler.reset_prefix_cache": ("reset_running_requests", "reset_connector"),
    "vllm.v1.core.sched.scheduler:Scheduler._preempt_request": ("request", "timestamp", "drop_stale_output"),
    "vllm.v1.core.sched.scheduler:Scheduler._free_request": ("request", "delay_free_blocks"),
    "vllm.v1.core.sched.async_scheduler:AsyncScheduler._update_after_schedule": ("scheduler_output",),
    "vllm.v1.core.kv_cache_manager:KVCacheManager.get_blocks": ("request_id",),
    "vllm.v1.core.kv_cache_manager:KVCacheManager.get_block_ids": ("request_id",),
    "vllm.v1.core.kv_cache_manager:KVCacheManager.get_computed_blocks": ("request",),
    "vllm.v1.core.kv_cache_manager:KVCacheManager.truncate_computed_blocks": (),
    "vllm.v1.core.kv_cache_manager:KVCacheManager.evict_blocks": ("block_ids",),
    "vllm.v1.core.kv_cache_manager:KVCacheManager.free": ("request",),
    "vllm.v1.core.kv_cache_manager:KVCacheManager.allocate_slots": (
        "request",
        "num_new_computed_tokens",
        "new_computed_blocks",
        "num_external_computed_tokens",
        "delay_cache_blocks",
        "full_sequence_must_fit",
    ),
    "vllm.v1.core.sched.output:SchedulerOutput.has_sync_kv_loads": (),
    "vllm.v1.core.block_pool:BlockPool.get_num_free_blocks": (),
    "vllm.v1.request:Request.__lt__": ("other",),
    "vllm.v1.request:Request.update_block_hashes": (),
    "vllm.v1.core.kv_cache_coordinator:KVCacheCoordinator.get_num_blocks_to_allocate": (
        "request_id",
        "num_tokens",
        "new_computed_blocks",
        "num_encoder_tokens",
        "total_computed_tokens",
        "num_local_computed_tokens",
        "num_tokens_main_model",
        "apply_admission_cap",
        "prefill_end",
    ),
    "vllm.config.model:ModelConfig.get_sliding_window": (),
    "vllm.config.model:ModelConfig.is_hybrid": (),
    "vllm.config.model:ModelConfig.is_attention_free": (),
    "vllm.config.model:ModelConfig.is_encoder_decoder": (),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1.handle_preemptions": ("kv_connector_metadata",),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1.start_load_kv": ("forward_context",),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1.register_kv_caches": ("kv_caches",),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1.get_num_new_matched_tokens": ("request", "num_computed_tokens"),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1.update_state_after_alloc": (
        "request",
        "blocks",
        "num_external_tokens",
    ),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1.build_connector_meta": ("scheduler_output",),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1.get_block_ids_with_load_errors": (),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1.reset_cache": (),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:KVConnectorBase_V1.requires_kv_delivery": (),
    "vllm.distributed.kv_transfer.kv_connector.v1.base:SupportsHMA.request_finished_all_groups": ("request", "block_ids"),
    "vllm.distributed.kv_transfer.kv_connector.factory:KVConnectorFactory.register_connector": ("name", "module_path", "class_name"),
    "vllm.distributed.kv_transfer.kv_connector.factory:KVConnectorFactory._registry": (),
    "vllm.v1.core.sched.request_queue:RequestQueue.prepend_requests": ("requests",),
    "vllm.v1.engine.core:EngineCoreProc._handle_client_request": (),
    "vllm.v1.engine.async_llm:AsyncLLM.add_request": ("request_id", "prompt", "params", "priority", "trace_headers"),
    "vllm.v1.engine.async_llm:AsyncLLM.errored": (),
    "vllm.v1.engine.async_llm:AsyncLLM.shutdown": ("timeout",),
    # What `patches.py` replaces.
    "vllm.v1.engine.core:EngineCoreProc._send_engine_dead": (),
    "vllm.engine.arg_utils:EngineArgs.create_engine_config": ("usage_context",),
    "vllm.entrypoints.launchers.api_server.entry:signal.signal": (),
    "vllm.sampling_params:SamplingParams._validate_structured_outputs": (),
    "vllm.v1.worker.worker_base:WorkerWrapperBase.init_device": (),
    "vllm.lora.request:LoRARequest.__eq__": (),
    # What `served_adapters.py` changes.
    "vllm.lora.request:LoRARequest": ("lora_name", "lora_int_id", "lora_path"),
    "vllm.v1.engine.async_llm:AsyncLLM.add_lora": ("lora_request",),
    "vllm.v1.engine.async_llm:AsyncLLM.__init__": ("vllm_config",),
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels.is_base_model": ("model_name",),
    "vllm.utils.counter:AtomicCounter.inc": ("num",),
    "vllm.v1.worker.cpu_model_runner:CPUModelRunner._sample": (),
    "vllm.v1.worker.cpu_model_runner:CPUModelRunner._bookkeeping_sync": (),
    "vllm.v1.worker.gpu_input_batch:InputBatch.num_reqs": (),
}
# Attributes that exist on instances only; looked for in the source of the class.
REQUIRED_ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "vllm.v1.core.sched.scheduler:Scheduler": (
        "policy",
        "waiting",
        "kv_holding_waiting",
        "running",
        "requests",
        "connector",
        "current_step",
        "max_num_active_reqs",
        "num_waiting_for_streaming_input",
        "prev_step_scheduled_req_ids",
        "defer_block_free",
        "recompute_kv_load_failures",
        "requires_kv_delivery",
        "kv_cache_manager",
        "kv_cache_config",
        "hash_block_size",
        "finished_req_ids",
        "lora_config",
    ),
    "vllm.v1.request:Request": (
        "priority",
        "arrival_time",
        "status",
        "lora_request",
        "num_computed_tokens",
        "num_stale_output_tokens",
        "num_preemptions",
        "num_in_flight_tokens",
        "drop_stale_output",
        "max_tokens",
        "block_hashes",
        "_block_hasher",
        "resumable",
        "skip_reading_prefix_cache",
        "sampling_params",
        "trace_headers",
    ),
    "vllm.v1.engine.async_llm:AsyncLLM": ("observability_config",),
    "vllm.config.observability:ObservabilityConfig": ("otlp_traces_endpoint",),
    "vllm.v1.core.kv_cache_manager:KVCacheManager": ("block_pool", "coordinator", "watermark_blocks"),
    "vllm.config.model:ModelConfig": ("attention_chunk_size", "hf_text_config"),
    "vllm.v1.worker.gpu_model_runner:GPUModelRunner": ("input_batch", "discard_request_mask"),
    "vllm.v1.worker.gpu_input_batch:InputBatch": ("generators",),
    "vllm.entrypoints.openai.models.serving:OpenAIServingModels": ("lora_requests", "lora_id_counter", "lora_resolver_lock"),
}


def missing() -> list[str]:
    """Returns what the installed vLLM lacks of `REQUIRED` and `REQUIRED_ATTRIBUTES`, one phrase each."""
    lacking = []
    for path, parameters in REQUIRED.items():
        found = _resolve(path)
        if found is None:
            lacking.append(f"{path} does not exist")
        elif parameters and not set(parameters) <= set(inspect.signature(found).parameters):
            lacking.append(f"{path} does not take {', '.join(parameters)}")
    for path, names in REQUIRED_ATTRIBUTES.items():
        owner = _resolve(path)
        source = "" if owner is None else inspect.getsource(owner)
        lacking += [f"{path} does not set {name}" for name in names if f"self.{name}" not in source]
    return lacking


def _resolve(path: str) -> Any:
    module_name, _, names = path.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in names.split("."):
        found = getattr(found, name, None)
    return found

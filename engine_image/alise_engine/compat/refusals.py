"""Refuses configurations that alise does not support, at start, in one sentence that names the setting and what to do.

`patches.py`, the scheduler and the connector call it when they start.
"""

from typing import Any

from ..errors import ConfigError, UnsupportedVllm
from .device import is_cpu
from .names import VLLM_VERSION

VllmConfig = Any


def check_version(version: str) -> None:
    """Raises UnsupportedVllm unless this is the version that the plugin was written against (a local part as in +cpu is ignored)."""
    if version.partition("+")[0] != VLLM_VERSION:
        raise UnsupportedVllm(f"vLLM is {version}, and alise_engine needs {VLLM_VERSION}: install vllm=={VLLM_VERSION}")


def check_config(config: VllmConfig) -> None:
    """Raises ConfigError with the first setting that alise cannot work with, its value and what to do."""
    parallel = config.parallel_config
    sizes = {
        "data-parallel-size": parallel.data_parallel_size,
        "pipeline-parallel-size": parallel.pipeline_parallel_size,
        "decode-context-parallel-size": parallel.decode_context_parallel_size,
        "prefill-context-parallel-size": parallel.prefill_context_parallel_size,
    }
    for name, size in sizes.items():
        if size > 1:
            raise ConfigError(f"--{name} is {size}, and alise supports 1 only: run more replicas instead")
    if config.speculative_config is not None:
        raise ConfigError("speculative decoding is on, and alise cannot preempt with it: remove --speculative-config")
    cache_dtype = str(config.cache_config.cache_dtype)
    allowed = cache_dtypes(config)
    if allowed and cache_dtype not in allowed:
        raise ConfigError(f"--kv-cache-dtype is {cache_dtype}, which this device does not support: use one of {', '.join(allowed)}")
    if is_cpu() and cache_dtype.startswith("fp8") and not cpu_computes_fp8_kv():
        # vLLM refuses it as well, but only once the weights are loaded.
        raise ConfigError(
            f"--kv-cache-dtype is {cache_dtype}, and this CPU has neither AVX-512 nor AMX, without which vLLM cannot compute with it: "
            "set spec.engine.kvCacheDtype to auto (leave --kv-cache-dtype out), or use nodes whose CPUs have them"
        )
    check_model_runner(config)


def cpu_computes_fp8_kv() -> bool:
    """Returns whether vLLM's attention on this CPU supports an 8-bit KV cache."""
    # Here, because the commands `drain` and `status` import this file.
    import torch

    return bool(torch.cpu._is_avx512_supported() or torch.cpu._is_amx_tile_supported())


def check_model_runner(config: VllmConfig) -> None:
    """Raises ConfigError for V2 with the KV connector: there `bench-gpu` has not passed (RUNNER=2 runs it)."""
    if config.kv_transfer_config is not None and config.use_v2_model_runner:
        raise ConfigError("the KV connector of alise works with model runner V1: set VLLM_USE_V2_MODEL_RUNNER=0")


def check_offload(config: VllmConfig) -> None:
    """Raises ConfigError when KV is to be offloaded and the model's own configuration says that its KV cache is of several kinds.

    For the API server: it knows the configuration before EngineCore loads the weights. `check_kv_cache` sees the cache itself, afterwards.
    """
    if config.kv_transfer_config is not None and (kind := _mixed_cache(config.model_config)) is not None:
        raise _no_offload(kind)


def _mixed_cache(model: Any) -> str | None:
    """Returns the kind of KV that the model keeps in addition to full attention, as vLLM reads its configuration; None if there is none."""
    if model.is_attention_free or model.is_hybrid:
        return "state-space or linear attention layers"
    if model.is_encoder_decoder:
        return "cross attention"
    if model.attention_chunk_size is not None:
        return "chunked attention"
    layer_types = getattr(model.hf_text_config, "layer_types", None)
    if model.get_sliding_window() is not None and (layer_types is None or "sliding_attention" in layer_types):
        return "sliding-window attention"
    return None


def check_kv_cache(kv_cache_config: Any) -> None:
    """Raises ConfigError unless the KV cache is one group of full attention, all of whose layers have the same shape."""
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1:
        raise _no_offload(f"{len(groups)} KV cache groups (hybrid attention)" if groups else "no KV cache")
    spec = groups[0].kv_cache_spec
    if not isinstance(spec, FullAttentionSpec):
        raise _no_offload(f"a KV cache of type {type(spec).__name__}")
    if spec.sliding_window is not None or spec.attention_chunk_size is not None:
        raise _no_offload(f"a KV cache of type {type(spec).__name__} with a window")


def _no_offload(kind: str) -> ConfigError:
    return ConfigError(
        f"this model has {kind}, and only KV caches of full attention can be kept on the host: set spec.kvOffload.hostMemory to 0 "
        "(--alise-host-memory 0); requests that are preempted are then recomputed"
    )


def cache_dtypes(config: VllmConfig) -> tuple[str, ...]:
    """Returns the KV cache dtypes that the device supports; empty where vLLM's own check is reliable."""
    if not is_cpu():
        return ()
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    return (*CPUAttentionBackend.supported_kv_cache_dtypes, str(config.model_config.dtype).removeprefix("torch."))

"""Flags of `vllm serve` in `spec.engine.args`: those that the operator sets, those that alise does not work with, and values it can check.

The engine refuses the same once more (alise_engine/compose.py), with vLLM's own parser; here they are refused before a pod is made.
"""

from collections.abc import Iterator
from typing import Final

from alise_contract.names import ENGINE_PORT
from alise_operator.errors import Problem
from alise_operator.spec import Engine

# vLLM accepts others on CPU without a word and answers wrongly.
CPU_KV_CACHE_DTYPES: Final = ("auto", "fp8", "fp8_e4m3", "fp8_e5m2")
# vLLM 0.32's CacheDType. Which of them a GPU and a model have, the engine says when it starts.
CUDA_KV_CACHE_DTYPES: Final = (
    "auto",
    "float16",
    "bfloat16",
    "fp8",
    "fp8_e4m3",
    "fp8_e5m2",
    "fp8_inc",
    "fp8_ds_mla",
    "nvfp4_ds_mla",
    "turboquant_k8v4",
    "turboquant_4bit_nc",
    "turboquant_k3v4_nc",
    "turboquant_3bit_nc",
    "ultraquant_4bit",
    "int4_per_token_head",
    "int8_per_token_head",
    "fp8_per_token_head",
    "nvfp4",
    "nvfp4_4over6",
)
# SIGTERM comes when the drain is over. vLLM then has less than the margin of the grace period (build/pod.py) to end what is left.
MAX_SHUTDOWN_TIMEOUT_SECONDS: Final = 25
# Flags that the operator sets, with the field to use instead.
_OWNED_FLAGS: Final = {
    "model": "spec.model.uri",
    "served-model-name": "spec.model.servedName",
    "revision": "spec.model.revision",
    "hf-token": "spec.model.tokenSecretRef",
    "alise-host-memory": "spec.kvOffload.hostMemory",
    "alise-kv-codec": "spec.kvOffload.quantization",
    "tensor-parallel-size": "spec.engine.tensorParallelSize",
}
# Flags that alise sets for its own working.
_RESERVED_FLAGS: Final = {
    "host": "the pod listens on all its addresses",
    "port": f"the pod listens on {ENGINE_PORT}",
    "uds": f"the pod listens on port {ENGINE_PORT}",
    "scheduler-cls": "alise brings its own scheduler",
    "kv-transfer-config": "alise brings its own KV connector",
    "scheduling-policy": "alise orders requests by priority",
    "alise-socket-dir": "the operator mounts it",
    "ssl-keyfile": "TLS ends at the route",
    "ssl-certfile": "TLS ends at the route",
    "headless": "every pod serves its own API",
    "config": "give the flags themselves, so that they can be checked",
}
# What does not work yet, with the reason in one clause.
_UNSUPPORTED_FLAGS: Final = {
    "data-parallel-size": "data parallel engines are not supported; use spec.replicas",
    "data-parallel-rank": "data parallel engines are not supported; use spec.replicas",
    "data-parallel-size-local": "data parallel engines are not supported; use spec.replicas",
    "data-parallel-start-rank": "data parallel engines are not supported; use spec.replicas",
    "data-parallel-address": "data parallel engines are not supported; use spec.replicas",
    "data-parallel-backend": "data parallel engines are not supported; use spec.replicas",
    "data-parallel-hybrid-lb": "data parallel engines are not supported; use spec.replicas",
    "data-parallel-external-lb": "data parallel engines are not supported; use spec.replicas",
    "data-parallel-multi-port-external-lb": "data parallel engines are not supported; use spec.replicas",
    "pipeline-parallel-size": "pipeline parallel engines are not supported; use spec.engine.tensorParallelSize",
    "decode-context-parallel-size": "context parallel engines are not supported; use spec.engine.tensorParallelSize",
    "prefill-context-parallel-size": "context parallel engines are not supported; use spec.engine.tensorParallelSize",
    "speculative-config": "speculative decoding is not supported",
    "spec-method": "speculative decoding is not supported",
    "spec-model": "speculative decoding is not supported",
    "spec-tokens": "speculative decoding is not supported",
    "api-server-count": "only one API server per pod is supported; use spec.replicas",
    "grpc": "only the OpenAI HTTP server is supported",
}
_SHORT_FLAGS: Final = {
    "-tp": "tensor-parallel-size",
    "-dp": "data-parallel-size",
    "-dpr": "data-parallel-start-rank",
    "-dpn": "data-parallel-rank",
    "-dpl": "data-parallel-size-local",
    "-dpa": "data-parallel-address",
    "-dpb": "data-parallel-backend",
    "-dph": "data-parallel-hybrid-lb",
    "-dpe": "data-parallel-external-lb",
    "-dpm": "data-parallel-multi-port-external-lb",
    "-pp": "pipeline-parallel-size",
    "-dcp": "decode-context-parallel-size",
    "-pcp": "prefill-context-parallel-size",
    "-sc": "speculative-config",
    "-asc": "api-server-count",
}
# A value of 1 turns these off: harmless.
_HARMLESS_AT_ONE: Final = frozenset(
    {
        "data-parallel-size",
        "data-parallel-size-local",
        "api-server-count",
        "pipeline-parallel-size",
        "decode-context-parallel-size",
        "prefill-context-parallel-size",
    }
)
# Flags whose value is looked at.
_CHECKED_FLAGS: Final = frozenset({"kv-cache-dtype", "shutdown-timeout"})
_FIELD_FLAGS: Final = {"max-model-len": "max_model_len", "max-num-seqs": "max_num_seqs", "kv-cache-dtype": "kv_cache_dtype"}


def kv_cache_dtypes(engine: Engine) -> tuple[str, ...]:
    """Those that the engine's device has."""
    return CPU_KV_CACHE_DTYPES if engine.device == "cpu" else CUDA_KV_CACHE_DTYPES


def bad_dtype(field: str, value: str, engine: Engine) -> Problem:
    return Problem(field, f"{value!r} is not available on device {engine.device}; use one of {', '.join(kv_cache_dtypes(engine))}")


def flag_problems(engine: Engine) -> Iterator[Problem]:
    for index, name, value in given_flags(engine.args):
        field = f"spec.engine.args[{index}]"
        if name in _OWNED_FLAGS:
            yield Problem(field, f"--{name} is set by the operator; use {_OWNED_FLAGS[name]}")
        elif name in _RESERVED_FLAGS:
            yield Problem(field, f"--{name} cannot be set: {_RESERVED_FLAGS[name]}")
        elif name in _UNSUPPORTED_FLAGS and not (name in _HARMLESS_AT_ONE and value == "1"):
            yield Problem(field, f"--{name}{'' if value is None else ' ' + value}: {_UNSUPPORTED_FLAGS[name]}")
        elif name in _FIELD_FLAGS and getattr(engine, _FIELD_FLAGS[name]) not in (None, "auto"):
            camel = type(engine).model_fields[_FIELD_FLAGS[name]].alias
            yield Problem(field, f"--{name} is given here and as spec.engine.{camel}; keep one of them")
        elif name in _CHECKED_FLAGS:
            yield from _value_problems(field, name, value, engine)


def _value_problems(field: str, name: str, value: str | None, engine: Engine) -> Iterator[Problem]:
    if not value:
        yield Problem(field, f"--{name} needs a value")
    elif name == "kv-cache-dtype" and value not in kv_cache_dtypes(engine):
        yield bad_dtype(field, value, engine)
    elif name == "shutdown-timeout" and not (value.isdecimal() and int(value) <= MAX_SHUTDOWN_TIMEOUT_SECONDS):
        yield Problem(
            field,
            f"--shutdown-timeout {value}: must be a whole number of seconds up to {MAX_SHUTDOWN_TIMEOUT_SECONDS}, the pod is killed after "
            "that; spec.drainSeconds is how long open streams get",
        )


def given_flags(args: list[str]) -> Iterator[tuple[int, str, str | None]]:
    """(index, long name with dashes, value or None) of each flag, in every spelling vLLM's parser takes: --a-b, --a_b, --a=v, --a.key."""
    for index, arg in enumerate(args):
        flag, equals, value = arg.partition("=")
        if flag in _SHORT_FLAGS:
            name = _SHORT_FLAGS[flag]
        elif flag.startswith("--"):
            name = flag[2:].split(".", 1)[0].replace("_", "-")
        else:
            continue
        following = args[index + 1] if index + 1 < len(args) and not args[index + 1].startswith("-") else None
        yield index, name, value if equals else following

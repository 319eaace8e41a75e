"""Decides which flags of `vllm serve` are allowed in `spec.engine.args`, and with which values.

Pure: rules.py calls `flag_problems()`. The operator sets some flags, alise sets others, and some request what alise does not support.
The engine checks the flags again, with vLLM's own parser (alise_engine/serve/compose.py); here they are refused before a pod is created.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from alise_contract.names import ENGINE_PORT
from alise_operator.errors import Problem
from alise_operator.flag_reader import Given, read
from alise_operator.flag_values import key_problem, short, shown, value_problem
from alise_operator.spec_engine import Engine, KvOffload

# vLLM accepts other types on a CPU without an error and gives wrong answers.
CPU_KV_CACHE_DTYPES: Final = ("auto", "fp8", "fp8_e4m3", "fp8_e5m2")
# vLLM 0.32's CacheDType. The engine reports at its start which of them the GPU and the model support.
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
# SIGTERM follows the drain. vLLM then has less than the margin of the grace period (children/pod.py) to finish.
MAX_SHUTDOWN_TIMEOUT_SECONDS: Final = 25
_REPLICAS: Final = "data parallel engines are not supported; use spec.replicas"
_ONE_POD: Final = "an engine is one pod; use spec.engine.tensorParallelSize"
_CONTEXT: Final = "context parallel engines are not supported; use spec.engine.tensorParallelSize"
_SPECULATIVE: Final = "speculative decoding is not supported; remove it"
# Flags that the operator sets, and the field to use instead.
OWNED_FLAGS: Final = {
    "model": "spec.model.uri",
    "served-model-name": "spec.model.servedName, and spec.model.aliases for further names",
    "revision": "spec.model.revision",
    "hf-token": "spec.model.tokenSecretRef",
    "alise-host-memory": "spec.kvOffload.hostMemory",
    "alise-host-memory-at-most": "spec.kvOffload.hostMemory",
    "alise-kv-codec": "spec.kvOffload.quantization",
    "kv-offloading-size": "spec.kvOffload.hostMemory",
    "kv-offloading-backend": "spec.kvOffload.hostMemory",
    "tensor-parallel-size": "spec.engine.tensorParallelSize",
    "otlp-traces-endpoint": "spec.observability.traces.endpoint",
}
# Flags that alise needs for itself, and flags that would disable or hide it.
RESERVED_FLAGS: Final = {
    "host": "the pod listens on all its addresses",
    "port": f"the pod listens on {ENGINE_PORT}",
    "uds": f"the pod listens on port {ENGINE_PORT}",
    "scheduler-cls": "alise brings its own scheduler",
    "kv-transfer-config": "alise brings its own KV connector",
    "scheduling-policy": "alise orders requests by priority",
    "alise-socket-dir": "the operator mounts it",
    "ssl-keyfile": "TLS is terminated at the route",
    "ssl-certfile": "TLS is terminated at the route",
    "headless": "every pod serves its own API",
    "config": "the operator cannot check the flags in a file; give each flag here",
    "help": "the engine would print its help text and exit",
}
# Unsupported flags, each with the reason in one clause.
UNSUPPORTED_FLAGS: Final = {
    "data-parallel-size": _REPLICAS,
    "data-parallel-rank": _REPLICAS,
    "data-parallel-size-local": _REPLICAS,
    "data-parallel-start-rank": _REPLICAS,
    "data-parallel-address": _REPLICAS,
    "data-parallel-rpc-port": _REPLICAS,
    "data-parallel-backend": _REPLICAS,
    "data-parallel-hybrid-lb": _REPLICAS,
    "data-parallel-external-lb": _REPLICAS,
    "data-parallel-multi-port-external-lb": _REPLICAS,
    "nnodes": _ONE_POD,
    "node-rank": _ONE_POD,
    "pipeline-parallel-size": "pipeline parallel engines are not supported; use spec.engine.tensorParallelSize",
    "decode-context-parallel-size": _CONTEXT,
    "prefill-context-parallel-size": _CONTEXT,
    "speculative-config": _SPECULATIVE,
    "spec-method": _SPECULATIVE,
    "spec-model": _SPECULATIVE,
    "spec-tokens": _SPECULATIVE,
    "api-server-count": "only one API server per pod is supported; use spec.replicas",
    "grpc": "only the OpenAI HTTP server is supported; remove it",
    "grpc-port": "only the OpenAI HTTP server is supported; remove it",
}
# The value that turns each of them off.
HARMLESS_VALUES: Final = {
    "data-parallel-size": "1",
    "data-parallel-size-local": "1",
    "api-server-count": "1",
    "nnodes": "1",
    "node-rank": "0",
    "pipeline-parallel-size": "1",
    "decode-context-parallel-size": "1",
    "prefill-context-parallel-size": "1",
}
# Their values are not quoted in a status, because more people may read it than the author of the AliseEngine.
_CREDENTIAL_FLAGS: Final = frozenset({"hf-token", "api-key"})
_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,6}")
_DEFAULT_OFFLOAD: Final = KvOffload()
FIELD_FLAGS: Final = {"max-model-len": "max_model_len", "max-num-seqs": "max_num_seqs", "kv-cache-dtype": "kv_cache_dtype"}


def kv_cache_dtypes(engine: Engine) -> tuple[str, ...]:
    """Returns the types that the engine's device supports."""
    return CPU_KV_CACHE_DTYPES if engine.device == "cpu" else CUDA_KV_CACHE_DTYPES


def bad_dtype(field: str, value: str, engine: Engine) -> Problem:
    return Problem(field, f"{shown(value)} is not available on device {engine.device}; use one of {', '.join(kv_cache_dtypes(engine))}")


def flag_problems(engine: Engine, kv_offload: KvOffload = _DEFAULT_OFFLOAD) -> Iterator[Problem]:
    """Yields what is wrong with `spec.engine.args`, one problem per flag.

    A user's own image may have a plugin that adds flags or values, so with such an image the engine judges what the table does not list.
    """
    seen: list[Given] = []
    for given in read(engine.args):
        text = _forbidden(given, engine, kv_offload) or _misgiven(given, engine) or _bad_values(given, engine) or _repeated(given, seen)
        if text is not None:
            yield Problem(f"spec.engine.args[{given.index}]", text)
        seen.append(given)


def given_flags(args: Sequence[str]) -> Iterator[tuple[int, str, str | None]]:
    """Yields (index, first long name without dashes, first value or None) of each flag, whatever its spelling."""
    for given in read(args):
        if given.flag is not None or given.unknown:
            yield given.index, given.name, given.values[0] if given.values else None


def _forbidden(given: Given, engine: Engine, kv_offload: KvOffload) -> str | None:
    name = given.name
    if given.flag is None:
        return None
    flag = f"--{name}" if given.abbreviation is None else f"{shown(given.abbreviation)} (short for --{name})"
    if name in OWNED_FLAGS:
        unit = _host_memory(given, kv_offload) if name == "kv-offloading-size" else ""
        return f"{flag} is set by the operator; use {OWNED_FLAGS[name]}{unit}{_removal(given, engine)}"
    if name in RESERVED_FLAGS:
        return f"{flag} cannot be set, because {RESERVED_FLAGS[name]}{_removal(given, engine) or '; remove it'}"
    if name in UNSUPPORTED_FLAGS and not given.is_off and given.values != (HARMLESS_VALUES.get(name),):
        return f"{flag}{''.join(f' {short(value)}' for value in given.values[:1])}: {UNSUPPORTED_FLAGS[name]}{_removal(given, engine)}"
    return None


def _host_memory(given: Given, kv_offload: KvOffload) -> str:
    """Returns how the value of --kv-offloading-size is written in the field, and the present value of the field."""
    size = next((f"{value}Gi" for value in given.values if _WHOLE_NUMBER.fullmatch(value)), "1Gi")
    now = "not set" if kv_offload.host_memory is None else repr(str(kv_offload.host_memory))
    return f" (the flag is in GiB and the field needs the unit, for example {size!r}; the field is {now} now)"


def _removal(given: Given, engine: Engine) -> str:
    """Returns which items to remove if the value is an item of its own, which would remain without its flag."""
    if not given.taken:
        return ""
    indices = range(given.index + 1, given.index + 1 + given.taken)
    values = [f"args[{index}]{'' if given.name in _CREDENTIAL_FLAGS else f' ({shown(engine.args[index])})'}" for index in indices]
    return f"; remove args[{given.index}] and its value{'' if given.taken == 1 else 's'} {', '.join(values)}"


def _misgiven(given: Given, engine: Engine) -> str | None:
    if given.mistake is not None and not (given.unknown and engine.image is not None):
        return given.mistake
    if given.name in FIELD_FLAGS and getattr(engine, FIELD_FLAGS[given.name]) not in (None, "auto"):
        camel = type(engine).model_fields[FIELD_FLAGS[given.name]].alias
        return f"--{given.name} is set here and as spec.engine.{camel}; keep one of them"
    return None


def _bad_values(given: Given, engine: Engine) -> str | None:
    flag = given.flag
    if flag is None:
        return None
    if given.key is not None:
        problem = key_problem(flag, given.key.partition(".")[0].removesuffix("+"))
        return f"{given.spelled}.{short(given.key)}: {problem}" if problem is not None else None
    for value in given.values:
        if flag.name == "kv-cache-dtype" and value not in kv_cache_dtypes(engine):
            return bad_dtype("", value, engine).text
        if flag.name == "shutdown-timeout" and not (value.isdecimal() and int(value) <= MAX_SHUTDOWN_TIMEOUT_SECONDS):
            return (
                f"--shutdown-timeout {short(value)}: must be a whole number of seconds up to {MAX_SHUTDOWN_TIMEOUT_SECONDS}, because "
                "the pod is killed after that; spec.drainSeconds sets how long open streams may continue"
            )
        if (problem := value_problem(flag, value, all_choices_known=engine.image is None)) is not None:
            return f"{given.spelled} {shown(value)}: {problem}"
    return None


def _repeated(given: Given, seen: Sequence[Given]) -> str | None:
    """vLLM would use the last one without a warning. Keys of one JSON object may be given one by one."""
    if given.flag is None or given.flag.repeats:
        return None
    for other in seen:
        if other.flag == given.flag and _collide(given.key, other.key):
            return f"{given.spelled} is given twice, here and at spec.engine.args[{other.index}]; keep one of them"
    return None


def _collide(key: str | None, other: str | None) -> bool:
    if key is None or other is None:
        return True
    if key.endswith("+") and key == other:
        # A list to which items are appended one by one.
        return False
    paths = [text.removesuffix("+").split(".") for text in (key, other)]
    shorter = min(map(len, paths))
    return paths[0][:shorter] == paths[1][:shorter]

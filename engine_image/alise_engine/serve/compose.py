"""From `alise-engine serve`'s arguments to vLLM's arguments and environment; pure.

vLLM's own parser has read the user's flags before (abbreviated, dotted, from a --config file): `Given` holds the values that matter here.
Every flag goes on to vLLM as it was written; ours are appended, and a flag that would take their place is refused in one sentence. `cli.py`
calls it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from alise_contract.names import ADAPTERS_DIR_ENV, ADMIT_DEADLINE_ENV, SOCKET_DIR, SOCKET_DIR_ENV
from alise_contract.quantities import memory_bytes

from ..errors import ConfigError
from .plugin import CONNECTOR_MODULE, CONNECTOR_NAME, SCHEDULER_CLS

Device = Literal["cpu", "cuda"]

PLUGIN: Final = "alise"
KV_CODECS: Final = ("auto", "int8", "none")
# The host store is as large as the KV cache on the device, which only EngineCore knows.
AUTO_HOST_MEMORY: Final = "auto"
# Share of the container's memory that such a store may have: the rest is for weights on their way to the device, and for what the server
# itself takes.
AUTO_HOST_MEMORY_SHARE: Final = 0.25
# vLLM's own default on CPUs. INT8's scales are per block: at 128 tokens it takes 51.6% of bf16's bytes, and with 128 channels as well keys
# and values are encoded together, twice as fast.
CPU_BLOCK_SIZE: Final = 128
CPU_KV_CACHE_DTYPES: Final = ("auto", "fp8", "fp8_e4m3", "fp8_e5m2")
# What SIGTERM leaves running requests when nothing drained before; a little less than Kubernetes' default grace period of 30 s.
SHUTDOWN_TIMEOUT_SECONDS: Final = 25
MODEL_RUNNER_ENV: Final = "VLLM_USE_V2_MODEL_RUNNER"
PLUGINS_ENV: Final = "VLLM_PLUGINS"
# Groups of entry points that vLLM loads by default, unless VLLM_PLUGINS names others.
PLUGIN_GROUPS: Final = ("vllm.general_plugins", "vllm.io_processor_plugins", "vllm.platform_plugins", "vllm.stat_logger_plugins")
# To name one of these is to turn it on (this one downloads adapters), so it is named by the user or not at all.
_OPT_IN_PLUGINS: Final = frozenset({"lora_hf_hub_resolver"})
# The processes of one engine are in one pod and talk over loopback. Without these torch and vLLM listen on the pod's address.
_LOOPBACK: Final = {"VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
# vLLM compiles some functions on their first use (log-probabilities, for one), `--enforce-eager` or not, and on a CPU that takes a C++
# compiler, which the image does not have. The first is read by vLLM and by torch, the second leaves torch's wrapper out as well.
_NOT_COMPILED: Final = {"TORCH_COMPILE_DISABLE": "1", "TORCHDYNAMO_DISABLE": "1"}

# The name of the service in traces, and the deadline of one export in seconds. At its end a process waits for the exports that are left.
_TRACED: Final = {"OTEL_SERVICE_NAME": "alise-engine", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "3"}


@dataclass(frozen=True, slots=True)
class Own:
    """`alise-engine serve`'s own flags."""

    host_memory: str = AUTO_HOST_MEMORY
    # Bounds a store that is not given in bytes; None: the container's memory alone does.
    host_memory_at_most: str | None = None
    kv_codec: str = "auto"
    # None: from the environment, else the pod's.
    socket_dir: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    device: Device
    cores: int
    # The model is a folder here: no hub needs to be asked for it.
    model_is_local: bool = False
    # That the container may use; 0: unknown.
    memory_bytes: int = 0
    # Names of the installed plugins that vLLM loads by default.
    plugins: tuple[str, ...] = ()
    # The model is a path from the root, and nothing is there: vLLM would take it for a malformed name of the hub.
    model_is_absent: bool = False


@dataclass(frozen=True, slots=True)
class Composed:
    # After the program's name: serve, MODEL, flags.
    argv: tuple[str, ...]
    # To be set; the rest of the environment stays.
    environ: Mapping[str, str]


# On a CPU vLLM runs the model in a process of its own, and the two spin for each other on the cores that the model needs. By this path, as
# by any other that is no short name, it takes the executor as it is: half to a third of the time per step (ADR 16).
IN_PROCESS_EXECUTOR: Final = "vllm.v1.executor.uniproc_executor.UniProcExecutor"

# vLLM's flags (as its parser names them) that are looked at; of these only what the user gave arrives in `given`.
_OURS: Final = {
    "scheduler_cls": "--scheduler-cls is set by alise-engine",
    "kv_transfer_config": "--kv-transfer-config is set by alise-engine; use --alise-host-memory and --alise-kv-codec",
    # vLLM would put its own connector in the place of ours.
    "kv_offloading_size": "--kv-offloading-size is vLLM's own KV offload; use --alise-host-memory",
    "kv_offloading_backend": "--kv-offloading-backend is vLLM's own KV offload; use --alise-host-memory",
}


def _more_than_one(value: Any) -> bool:
    return isinstance(value, int) and value > 1


def _anything(value: Any) -> bool:
    # 0 is something: a rank.
    return value is not None and value is not False


_UNSUPPORTED: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    ("data_parallel_size", _more_than_one, "data parallel sizes above 1 are not supported: run more replicas"),
    ("data_parallel_size_local", _more_than_one, "data parallel sizes above 1 are not supported: run more replicas"),
    ("data_parallel_rank", _anything, "data parallel engines are not supported: run more replicas"),
    ("data_parallel_start_rank", _anything, "data parallel engines are not supported: run more replicas"),
    ("data_parallel_hybrid_lb", _anything, "data parallel engines are not supported: run more replicas"),
    ("data_parallel_external_lb", _anything, "data parallel engines are not supported: run more replicas"),
    ("data_parallel_multi_port_external_lb", _anything, "data parallel engines are not supported: run more replicas"),
    ("pipeline_parallel_size", _more_than_one, "pipeline parallel sizes above 1 are not supported: use tensor parallel"),
    ("decode_context_parallel_size", _more_than_one, "context parallel sizes above 1 are not supported: use tensor parallel"),
    ("prefill_context_parallel_size", _more_than_one, "context parallel sizes above 1 are not supported: use tensor parallel"),
    ("api_server_count", lambda count: count not in (None, 1), "exactly one API server is supported: leave the flag out"),
    ("headless", _anything, "an engine without its API server is not supported: leave the flag out"),
    ("grpc", _anything, "only the HTTP server is supported: leave the flag out"),
    ("speculative_config", _anything, "speculative decoding is not supported: leave the flag out"),
    ("spec_method", _anything, "speculative decoding is not supported: leave the flag out"),
    ("spec_model", _anything, "speculative decoding is not supported: leave the flag out"),
    ("spec_tokens", _anything, "speculative decoding is not supported: leave the flag out"),
    ("scheduling_policy", lambda policy: policy == "fcfs", "requests are ordered by priority: leave the flag out"),
)
WATCHED: Final = frozenset(
    {
        *_OURS,
        *(dest for dest, _, _ in _UNSUPPORTED),
        "kv_cache_dtype",
        "block_size",
        "shutdown_timeout",
        "enforce_eager",
        "additional_config",
        "enable_request_id_headers",
        "distributed_executor_backend",
        "tensor_parallel_size",
        "otlp_traces_endpoint",
        "disable_log_stats",
    }
)


def compose(argv: Sequence[str], given: Mapping[str, Any], own: Own, machine: Machine, environ: Mapping[str, str]) -> Composed:
    """`argv` begins with the model. Raises ConfigError, one sentence that names the flag and its value."""
    if machine.model_is_absent:
        raise ConfigError(
            f"the model {argv[0]} does not exist in the engine's container: set spec.model.uri to a folder that the image or a volume has, "
            "or to a name on the hub such as Qwen/Qwen3-8B"
        )
    for dest, sentence in _OURS.items():
        if dest in given:
            raise ConfigError(f"{sentence} (got {given[dest]!r})")
    for dest, unsupported, sentence in _UNSUPPORTED:
        if dest in given and unsupported(given[dest]):
            raise ConfigError(f"{_flag(dest)} {given[dest]}: {sentence}")
    dtype = given.get("kv_cache_dtype", "auto")
    if machine.device == "cpu" and dtype not in CPU_KV_CACHE_DTYPES:
        # vLLM's CPU kernels take others silently and answer wrongly.
        raise ConfigError(f"--kv-cache-dtype {dtype} is not supported on a CPU: use one of {', '.join(CPU_KV_CACHE_DTYPES)}")
    if given.get("otlp_traces_endpoint") and given.get("disable_log_stats"):
        # The engine would end with the first request.
        raise ConfigError("--disable-log-stats: vLLM needs these statistics for its traces; leave the flag or --otlp-traces-endpoint out")
    flags = ["--scheduler-cls", SCHEDULER_CLS, "--scheduling-policy", "priority"]
    if (store := host_store(own, machine)) is not None:
        flags += ["--kv-transfer-config", _kv_transfer_config(store)]
    flags += ["--additional-config", _additional_config(own, given, _socket_dir(own, environ))]
    if "shutdown_timeout" not in given:
        flags += ["--shutdown-timeout", str(SHUTDOWN_TIMEOUT_SECONDS)]
    if given.get("enable_request_id_headers"):
        # The middleware returns X-Request-Id itself; vLLM would add a second one, by which alise does not know the request.
        flags += ["--no-enable-request-id-headers"]
    if machine.device == "cpu" and "block_size" not in given:
        flags += ["--block-size", str(CPU_BLOCK_SIZE)]
    if machine.device == "cpu" and "enforce_eager" not in given:
        flags += ["--enforce-eager"]
    if machine.device == "cpu" and "distributed_executor_backend" not in given and not _more_than_one(given.get("tensor_parallel_size")):
        flags += ["--distributed-executor-backend", IN_PROCESS_EXECUTOR]
    return Composed(("serve", *argv, *flags), _environ(own, given, machine, environ))


def host_store(own: Own, machine: Machine) -> Mapping[str, int] | None:
    """Returns the setting for the size of the connector's store; None for no store. Raises ConfigError.

    A store that is not given in bytes gets as many as the KV cache on the device has: what is parked there has run before, so that this
    holds one more device's worth of requests, or two in INT8. More is seldom filled, and on CUDA all of it is locked in memory at start. It
    never takes more than a quarter of the container's memory.
    """
    if own.host_memory != AUTO_HOST_MEMORY:
        host_bytes = _host_bytes(own.host_memory)
        return {"host_bytes": host_bytes} if host_bytes else None
    bounds = [_host_bytes(own.host_memory_at_most)] if own.host_memory_at_most is not None else []
    bounds += [int(machine.memory_bytes * AUTO_HOST_MEMORY_SHARE)] if machine.memory_bytes else []
    return {"host_bytes_at_most": min(bounds)} if bounds else {}


def _host_bytes(text: str) -> int:
    """Returns the bytes of a Kubernetes quantity such as 2Gi, 500M or 1073741824. Raises ConfigError."""
    try:
        return memory_bytes(text.strip())
    except ValueError as error:
        raise ConfigError(f"--alise-host-memory: {error}; 0 is no store, and auto leaves the size to the engine") from error


def _additional_config(own: Own, given: Mapping[str, Any], socket_dir: str) -> str:
    """The user's own, with ours beside it: the flag that comes last wins."""
    if own.kv_codec not in KV_CODECS:
        raise ConfigError(f"--alise-kv-codec {own.kv_codec!r}: expected one of {', '.join(KV_CODECS)}")
    users = given.get("additional_config") or {}
    if not isinstance(users, dict) or PLUGIN in users:
        raise ConfigError(f"--additional-config {users!r}: `{PLUGIN}` is set by alise-engine; use --alise-kv-codec")
    # The scheduler finds the pod's key there, by which it knows what our API server has stamped.
    return json.dumps({**users, PLUGIN: {"codec": own.kv_codec, "socket_dir": socket_dir}})


def _socket_dir(own: Own, environ: Mapping[str, str]) -> str:
    return str(Path(own.socket_dir or environ.get(SOCKET_DIR_ENV) or SOCKET_DIR).absolute())


def _kv_transfer_config(store: Mapping[str, int]) -> str:
    return json.dumps(
        {
            "kv_connector": CONNECTOR_NAME,
            "kv_connector_module_path": CONNECTOR_MODULE,
            "kv_role": "kv_both",
            "kv_connector_extra_config": dict(store),
        }
    )


def _environ(own: Own, given: Mapping[str, Any], machine: Machine, environ: Mapping[str, str]) -> dict[str, str]:
    if environ.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        raise ConfigError("VLLM_USE_RUST_FRONTEND is set: unset it, because the plugin needs vLLM's Python API server")
    ours = {PLUGINS_ENV: _plugins(machine, environ), SOCKET_DIR_ENV: _socket_dir(own, environ)}
    defaults = dict(_LOOPBACK)
    if given.get("otlp_traces_endpoint"):
        defaults |= _TRACED
    if machine.device == "cuda":
        if environ.get(MODEL_RUNNER_ENV, "0") != "0":
            raise ConfigError(f"{MODEL_RUNNER_ENV}={environ[MODEL_RUNNER_ENV]}: unset it, resuming is exact with model runner V1 only")
        ours[MODEL_RUNNER_ENV] = "0"
    else:
        defaults |= {
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            # A thread for the API server and one for EngineCore: with other load OpenMP's spinning threads collapse.
            "OMP_NUM_THREADS": str(max(1, machine.cores - 2)),
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # The sidecar's cores are the model's too: for most requests 50 ms pass before it gets one.
            ADMIT_DEADLINE_ENV: "250",
        }
        if given.get("enforce_eager", True):
            defaults |= _NOT_COMPILED
        if machine.model_is_local and ADAPTERS_DIR_ENV not in environ:
            # Adapters may come from the hub.
            defaults["HF_HUB_OFFLINE"] = "1"
    return {**ours, **{name: value for name, value in defaults.items() if name not in environ}}


def _plugins(machine: Machine, environ: Mapping[str, str]) -> str:
    """Returns the plugins that may be loaded: the user's choice, else all that are installed as without alise; ours in any case.

    vLLM loads endpoint plugins only by name, and once there is a list it loads nothing that is not on it.
    """
    if PLUGINS_ENV in environ:
        names = [name for name in environ[PLUGINS_ENV].split(",") if name]
    else:
        names = [name for name in machine.plugins if name not in _OPT_IN_PLUGINS]
    return ",".join(dict.fromkeys([*names, PLUGIN]))


def _flag(dest: str) -> str:
    return f"--{dest.replace('_', '-')}"

"""Rules that join several fields of a spec, and what this version of alise does not do yet.

The CRD carries the simple ones as CEL, so that a current API server refuses the resource at `kubectl apply`; all are checked here, because
older servers prune CEL and because some need arithmetic.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from alise_contract.names import ENGINE_PORT, SOCKET_DIR_ENV
from alise_operator.errors import InvalidSpec, Problem
from alise_operator.quantities import format_bytes, parse_quantity, quantity_bytes
from alise_operator.spec import Engine, Resources, Spec

MIB: Final = 1 << 20
GIB: Final = 1 << 30

# vLLM accepts others on CPU without a word and answers wrongly.
CPU_KV_CACHE_DTYPES: Final = ("auto", "fp8", "fp8_e4m3", "fp8_e5m2")
KV_SPACE_ENV: Final = "VLLM_CPU_KVCACHE_SPACE"
DEFAULT_CPU_KV_SPACE_GIB: Final = 1
# In-memory volume of the sockets: they take no space, but a file written there by mistake must not eat the node.
SOCKET_VOLUME_BYTES: Final = 16 * MIB
# Python, PyTorch and vLLM's two processes, measured with a 24M-parameter model on CPU: 2.2 GB together with a 1 GiB KV cache.
ENGINE_BASE_BYTES: Final = 1 * GIB
# What the scheduler takes as the weight of a request class.
MIN_CLASS_WEIGHT: Final = Decimal("0.0625")
MAX_CLASS_WEIGHT: Final = Decimal(16)

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
    "-sc": "speculative-config",
    "-asc": "api-server-count",
}
# A value of 1 turns these off: harmless.
_HARMLESS_AT_ONE: Final = frozenset({"data-parallel-size", "data-parallel-size-local", "api-server-count"})
_FIELD_FLAGS: Final = {"max-model-len": "max_model_len", "max-num-seqs": "max_num_seqs", "kv-cache-dtype": "kv_cache_dtype"}
# Environment that the operator sets in the engine's container.
RESERVED_ENV: Final = frozenset({SOCKET_DIR_ENV, "HOME", "TMPDIR", "HF_HOME"})


def check(spec: Spec, name: str) -> None:
    """Raises InvalidSpec that names every rule the spec of the resource called `name` breaks."""
    problems = [*_name(name), *_route(spec), *_device(spec.engine), *_flags(spec.engine), *_env(spec), *_classes(spec)]
    problems += [*_quantities(spec), *_memory(spec)]
    if problems:
        raise InvalidSpec(problems)


def shared_memory_bytes(engine: Engine) -> int:
    """Size of the in-memory /dev/shm: NCCL and vLLM's workers pass tensors through it."""
    return 256 * MIB if engine.device == "cpu" else engine.tensor_parallel_size * GIB


def needed_memory_bytes(spec: Spec) -> int:
    """The least memory the engine's container can work in, weights not counted."""
    return sum(count for _, count in memory_parts(spec))


def memory_parts(spec: Spec) -> list[tuple[str, int]]:
    """What is known to be taken from the engine container's memory, named as the user knows it."""
    parts = [("the engine itself", ENGINE_BASE_BYTES), ("spec.kvOffload.hostMemory", quantity_bytes(spec.kv_offload.host_memory))]
    if spec.engine.device == "cpu":
        parts.append((f"the KV cache ({KV_SPACE_ENV})", cpu_kv_space_gib(spec.engine) * GIB))
    return [*parts, ("/dev/shm", shared_memory_bytes(spec.engine)), ("the socket volume", SOCKET_VOLUME_BYTES)]


def cpu_kv_space_gib(engine: Engine) -> int:
    """GiB of the KV cache on the CPU: from the engine's environment, else our default. What is no number counts as the default here."""
    value = next((variable.value for variable in engine.env if variable.name == KV_SPACE_ENV), None)
    return int(value) if value and value.isdecimal() else DEFAULT_CPU_KV_SPACE_GIB


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


def _name(name: str) -> Iterator[Problem]:
    # The API server has checked the characters of a DNS subdomain; a Service and a label allow less.
    if len(name) > 63 or "." in name or not name[:1].isalpha():
        yield Problem("metadata.name", f"{name!r} cannot name a Service; start with a letter, use a-z, 0-9 and -, at most 63 characters")


def _route(spec: Spec) -> Iterator[Problem]:
    route = spec.route
    if route.class_name is not None and route.parent_ref is not None:
        yield Problem(
            "spec.route", "className (Ingress) and parentRef (HTTPRoute) are both given; keep the one that belongs to spec.route.type"
        )
        return
    if route.type != "None" and not route.hosts:
        yield Problem("spec.route.hosts", f"is empty; type {route.type} needs at least one host name, for example llm.example.com")
    if route.type != "Ingress" and route.class_name is not None:
        yield Problem("spec.route.className", f"{route.class_name!r} belongs to type Ingress, but spec.route.type is {route.type}")
    if route.type != "Ingress" and route.tls_secret is not None:
        yield Problem("spec.route.tlsSecret", f"{route.tls_secret!r} belongs to type Ingress; with {route.type} set up TLS at the Gateway")
    if route.type != "HTTPRoute" and route.parent_ref is not None:
        yield Problem("spec.route.parentRef", f"{route.parent_ref.name!r} belongs to type HTTPRoute, but spec.route.type is {route.type}")
    if route.type == "HTTPRoute" and route.parent_ref is None:
        yield Problem("spec.route.parentRef", "is required: type HTTPRoute needs the name of a Gateway")


def _device(engine: Engine) -> Iterator[Problem]:
    if engine.device == "cpu" and engine.kv_cache_dtype not in CPU_KV_CACHE_DTYPES:
        yield _cpu_dtype("spec.engine.kvCacheDtype", engine.kv_cache_dtype)


def _cpu_dtype(field: str, value: str | None) -> Problem:
    return Problem(field, f"{value!r} is not available on device cpu; use one of {', '.join(CPU_KV_CACHE_DTYPES)}")


def _flags(engine: Engine) -> Iterator[Problem]:
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
        elif name == "kv-cache-dtype" and engine.device == "cpu" and value not in CPU_KV_CACHE_DTYPES:
            yield _cpu_dtype(field, value)


def _env(spec: Spec) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, variable in enumerate(spec.engine.env):
        field = f"spec.engine.env[{index}]"
        if variable.name in seen:
            yield Problem(field, f"{variable.name} is given twice")
        seen.add(variable.name)
        if variable.name in RESERVED_ENV:
            yield Problem(field, f"{variable.name} is set by the operator")
        if variable.name == "HF_TOKEN" and spec.model.token_secret_ref is not None:
            yield Problem(field, "HF_TOKEN is given here and by spec.model.tokenSecretRef; keep one of them")
        if (variable.value is not None) == (variable.value_from is not None):
            yield Problem(field, f"{variable.name} needs exactly one of value and valueFrom")
        if variable.name == KV_SPACE_ENV and not (variable.value or "").isdecimal():
            yield Problem(field, f"{KV_SPACE_ENV}={variable.value!r} is not a whole number of GiB")


def _classes(spec: Spec) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, one in enumerate(spec.scheduling.classes):
        field = f"spec.scheduling.classes[{index}]"
        if one.name in seen:
            yield Problem(f"{field}.name", f"{one.name!r} is given twice")
        seen.add(one.name)
        if not MIN_CLASS_WEIGHT <= parse_quantity(one.weight) <= MAX_CLASS_WEIGHT:
            yield Problem(f"{field}.weight", f"{one.weight!r} is not between {MIN_CLASS_WEIGHT} and {MAX_CLASS_WEIGHT}")


def _quantities(spec: Spec) -> Iterator[Problem]:
    """A request above its limit: the Deployment would be taken and its pods refused."""
    both = [("spec.engine.resources", spec.engine.resources)]
    if spec.scheduling.resources is not None:
        both.append(("spec.scheduling.resources", spec.scheduling.resources))
    for field, resources in both:
        yield from _requests_above_limits(field, resources)


def _requests_above_limits(field: str, resources: Resources) -> Iterator[Problem]:
    for resource, request in resources.requests.items():
        limit = resources.limits.get(resource)
        if limit is not None and parse_quantity(request) > parse_quantity(limit):
            yield Problem(f"{field}.requests.{resource}", f"{request!r} is above the limit {limit!r}")


def _memory(spec: Spec) -> Iterator[Problem]:
    limit = spec.engine.resources.limits.get("memory")
    if limit is None:
        return
    needed = needed_memory_bytes(spec)
    if quantity_bytes(limit) < needed:
        parts = " + ".join(f"{format_bytes(count)} ({what})" for what, count in memory_parts(spec) if count)
        yield Problem(
            "spec.engine.resources.limits.memory",
            f"{limit!r} is below {format_bytes(needed)} = {parts}; raise the limit or lower spec.kvOffload.hostMemory (weights on top)",
        )

"""Rules that join several fields of a spec, and what this version of alise does not do yet.

The CRD carries the simple ones as CEL, so that a current API server refuses the resource at `kubectl apply`; all are checked here, because
older servers prune CEL and because some need arithmetic.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from alise_contract.names import (
    AUTH_CLASSES_ENV,
    AUTH_DIR_ENV,
    AUTH_METRICS_ENV,
    BODY_SECONDS_ENV,
    CLASSES_ENV,
    ISOLATE_PREFIX_CACHE_ENV,
    MAX_BODY_BYTES_ENV,
    MAX_PENDING_ENV,
    SOCKET_DIR_ENV,
    TRUST_HEADERS_ENV,
)
from alise_operator.errors import InvalidSpec, Problem
from alise_operator.flag_values import short, shown
from alise_operator.flags import bad_dtype, flag_problems, given_flags, kv_cache_dtypes
from alise_operator.kv_cache import WIDE_DTYPES
from alise_operator.quantities import format_bytes, parse_quantity, quantity_bytes
from alise_operator.spec import Spec
from alise_operator.spec_engine import Engine, Resources, served_names

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30

KV_SPACE_ENV: Final = "VLLM_CPU_KVCACHE_SPACE"
DEFAULT_CPU_KV_SPACE_GIB: Final = 1
# No machine has more, and Python converts no text of thousands of digits.
_WHOLE_GIB: Final = re.compile(r"[0-9]{1,6}")
# In-memory volume of the sockets: they take no space, but a file written there by mistake must not eat the node.
SOCKET_VOLUME_BYTES: Final = 16 * MIB
# Python, PyTorch and vLLM's processes, measured with the quickstart's model on a CPU: 2.2 GB together with a 1 GiB KV cache.
ENGINE_BASE_BYTES: Final = 1 * GIB
# What the scheduler takes as the weight of a request class.
MIN_CLASS_WEIGHT: Final = Decimal("0.0625")
MAX_CLASS_WEIGHT: Final = Decimal(16)
_CLASSES_SHOWN: Final = 5
MIN_BODY_BYTES: Final = KIB
MAX_BODY_BYTES: Final = GIB

# Environment that the operator sets in the engine's container, and the field that sets it, if there is one.
RESERVED_ENV: Final[Mapping[str, str]] = {
    SOCKET_DIR_ENV: "",
    "HOME": "",
    "TMPDIR": "",
    MAX_PENDING_ENV: "spec.admission.maxPending",
    CLASSES_ENV: "spec.scheduling.classes",
    TRUST_HEADERS_ENV: "spec.admission.trustHeaders",
    MAX_BODY_BYTES_ENV: "spec.admission.maxBodySize",
    BODY_SECONDS_ENV: "spec.admission.bodySeconds",
    ISOLATE_PREFIX_CACHE_ENV: "spec.admission.isolatePrefixCache",
    AUTH_DIR_ENV: "spec.auth.secretRef",
    AUTH_CLASSES_ENV: "spec.auth.tenants",
    AUTH_METRICS_ENV: "spec.auth.guardMetrics",
}
# Variables that nothing but these fields sets: what the operator reckons with must be what the engine is given.
ENV_FIELDS: Final[Mapping[str, str]] = {**RESERVED_ENV, KV_SPACE_ENV: "spec.engine.env", "HF_TOKEN": "spec.model.tokenSecretRef"}
# A variable of these is off; None comes from elsewhere, and the engine looks at it itself.
HARMLESS_VALUES: Final = (None, "", "0")
# Room for weights and for what loading them takes, per device, where no memory limit is given.
_LOADING_BYTES: Final = 64 * GIB
# The host store where its size is left to the engine, per GPU: the KV cache of a 32B on one H100 (7.3 GiB) or of an 8B on a GPU of 24 GB
# fits, and small GPU nodes of 16 GiB still take the pod.
_HOST_STORE_BYTES: Final = 8 * GIB
# What it has at least in the sum that a memory limit is checked by: a smaller container gets a smaller store.
_LEAST_HOST_STORE_BYTES: Final = GIB
_DOWNLOADS_BYTES: Final = 256 * GIB
_SCRATCH_BYTES: Final = 32 * GIB


def check(spec: Spec, name: str) -> None:
    """Raises InvalidSpec that names every rule the spec of the resource called `name` breaks."""
    problems = [*_name(name), *_served_names(spec), *_route(spec), *_device(spec.engine)]
    problems += [*flag_problems(spec.engine, spec.kv_offload), *_env(spec)]
    problems += _eight_bits(spec)
    problems += [*_classes(spec), *_auth(spec), *_body_size(spec), *_cache(spec), *_claim(spec, name), *_quantities(spec), *_memory(spec)]
    if problems:
        raise InvalidSpec(problems)


def shared_memory_bytes(engine: Engine) -> int:
    """Size of the in-memory /dev/shm: NCCL and vLLM's workers pass tensors through it."""
    return 256 * MIB if engine.device == "cpu" else engine.tensor_parallel_size * GIB


def needed_memory_bytes(spec: Spec) -> int:
    """The least memory the engine's container can work in, weights not counted."""
    return sum(count for _, count in memory_parts(spec))


def requested_memory_bytes(spec: Spec) -> int:
    """The memory that is asked for where the user asks for none: what the container works in, with the whole host store."""
    return needed_memory_bytes(spec) + most_host_memory_bytes(spec) - _least_host_memory_bytes(spec)


def most_host_memory_bytes(spec: Spec) -> int:
    """Size of the host store; where it is left to the engine, the most that it may have, which the pod's memory request counts with.

    The engine takes as much as the KV cache on the device has, which on a CPU is known here.
    """
    if spec.kv_offload.host_memory is not None:
        return quantity_bytes(spec.kv_offload.host_memory)
    return cpu_kv_space_gib(spec.engine) * GIB if spec.engine.device == "cpu" else spec.engine.tensor_parallel_size * _HOST_STORE_BYTES


def _least_host_memory_bytes(spec: Spec) -> int:
    most = most_host_memory_bytes(spec)
    return most if spec.kv_offload.host_memory is not None else min(most, _LEAST_HOST_STORE_BYTES)


def memory_parts(spec: Spec) -> list[tuple[str, int]]:
    """What is known to be taken from the engine container's memory, named as the user knows it."""
    parts = [("the engine itself", ENGINE_BASE_BYTES), ("spec.kvOffload.hostMemory", _least_host_memory_bytes(spec))]
    if spec.engine.device == "cpu":
        parts.append((f"the KV cache ({KV_SPACE_ENV})", cpu_kv_space_gib(spec.engine) * GIB))
    if offloaded := _offloaded_bytes(spec.engine):
        parts.append(("weights in host memory (--cpu-offload-gb)", offloaded))
    return [*parts, ("/dev/shm", shared_memory_bytes(spec.engine)), ("the socket volume", SOCKET_VOLUME_BYTES)]


def _offloaded_bytes(engine: Engine) -> int:
    """Host memory of all devices by vLLM's flag. What is no number is refused elsewhere."""
    values = [value for _, name, value in given_flags(engine.args) if name == "cpu-offload-gb"]
    if not values or re.fullmatch(r"\d{1,6}(\.\d+)?", values[-1] or "") is None:
        return 0
    return int(Decimal(str(values[-1])) * GIB) * engine.tensor_parallel_size


def default_memory_limit_bytes(spec: Spec) -> int:
    """The engine container's memory limit where none is given: far above what a healthy engine takes, so that a sick one ends before its
    node does. The size of the weights is not known here."""
    return requested_memory_bytes(spec) + _LOADING_BYTES * spec.engine.tensor_parallel_size


def scratch_bytes(spec: Spec) -> int:
    """Size of the scratch volume; 0: no limit."""
    if spec.engine.scratch_size is not None:
        return quantity_bytes(spec.engine.scratch_size)
    elsewhere = spec.model.uri.startswith("/") or spec.model.cache is not None or _has_own_hub(spec)
    return _SCRATCH_BYTES if elsewhere else _DOWNLOADS_BYTES


def is_extended(resource: str) -> bool:
    """Whether the name is one of devices and the like: a domain that is not Kubernetes' own, a slash and a name."""
    domain, slash, _ = resource.partition("/")
    return bool(slash) and domain != "kubernetes.io" and not domain.endswith(".kubernetes.io") and not domain.startswith("requests.")


def only_as_limit(resource: str) -> bool:
    """Whether Kubernetes wants a limit of the resource, equal to its request: it cannot be shared out twice."""
    return is_extended(resource) or resource.startswith("hugepages-")


def cpu_kv_space_gib(engine: Engine) -> int:
    """GiB of the KV cache on the CPU: from the engine's environment, else our default. What is no number counts as the default here."""
    value = next((variable.value for variable in engine.env if variable.name == KV_SPACE_ENV), None)
    return int(value) if value and _WHOLE_GIB.fullmatch(value) else DEFAULT_CPU_KV_SPACE_GIB


def _name(name: str) -> Iterator[Problem]:
    # The API server has checked the characters of a DNS subdomain; a Service and a label allow less.
    if len(name) > 63 or "." in name or not name[:1].isalpha():
        yield Problem("metadata.name", f"{name!r} cannot name a Service; start with a letter, use a-z, 0-9 and -, at most 63 characters")


def _served_names(spec: Spec) -> Iterator[Problem]:
    names = served_names(spec.model)
    for index, alias in enumerate(spec.model.aliases):
        if alias in names[: index + 1]:
            own = "spec.model.uri" if spec.model.served_name is None else "spec.model.servedName"
            first = names.index(alias)
            already = f"spec.model.aliases[{first - 1}]" if first else own
            yield Problem(f"spec.model.aliases[{index}]", f"{alias!r} is already {already}; remove it")


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


def _has_own_hub(spec: Spec) -> bool:
    return any(variable.name == "HF_HOME" for variable in spec.engine.env)


def _device(engine: Engine) -> Iterator[Problem]:
    if engine.kv_cache_dtype not in kv_cache_dtypes(engine):
        yield bad_dtype("spec.engine.kvCacheDtype", engine.kv_cache_dtype, engine)


def _eight_bits(spec: Spec) -> Iterator[Problem]:
    """KV of 8 bits goes to the host as it is: there is nothing in it that INT8 could leave out."""
    flags = [value for _, name, value in given_flags(spec.engine.args) if name == "kv-cache-dtype"]
    dtype = flags[-1] if flags else spec.engine.kv_cache_dtype
    if spec.kv_offload.quantization != "int8" or dtype in (None, *WIDE_DTYPES) or not most_host_memory_bytes(spec):
        return
    where = "--kv-cache-dtype" if flags else "spec.engine.kvCacheDtype"
    yield Problem(
        "spec.kvOffload.quantization",
        f"'int8' does not go with {where} {short(dtype)}, whose KV has 8 bits or fewer already and is kept on the host as it is; "
        "use auto or none",
    )


def _cache(spec: Spec) -> Iterator[Problem]:
    """A volume that one node mounts: pods on a second node would wait for it for ever."""
    cache = spec.model.cache
    if cache is None:
        return
    if cache.claim_name is None and cache.size is None:
        yield Problem("spec.model.cache", "needs size, for a claim that is made, or claimName, for one that exists")
    for name, value in (("size", cache.size), ("storageClass", cache.storage_class)):
        if cache.claim_name is not None and value is not None:
            yield Problem(f"spec.model.cache.{name}", f"{value!r} does not go with claimName: the claim has its own; leave one of them out")
    if cache.access_mode == "ReadWriteOnce" and spec.replicas > 1:
        yield Problem(
            "spec.model.cache.accessMode",
            f"'ReadWriteOnce' is one node's: it does not go with {spec.replicas} replicas; use ReadWriteMany or replicas 1",
        )


def _claim(spec: Spec, name: str) -> Iterator[Problem]:
    """The claim that is made is named like the resource, and is deleted when it is not wanted any more."""
    if spec.model.cache is not None and spec.model.cache.claim_name == name:
        yield Problem(
            "spec.model.cache.claimName",
            f"{name!r} is the name of the claim that spec.model.cache.size makes; use a claim of another name, or give size",
        )


def _env(spec: Spec) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, variable in enumerate(spec.engine.env):
        field = f"spec.engine.env[{index}]"
        if variable.name in seen:
            yield Problem(field, f"{variable.name} is given twice")
        seen.add(variable.name)
        if variable.value not in HARMLESS_VALUES and (why := unsupported_env(spec.engine).get(variable.name)) is not None:
            yield Problem(field, f"{variable.name}={short(variable.value or '')}: {why}; leave it out")
        if variable.name in RESERVED_ENV:
            instead = RESERVED_ENV[variable.name]
            yield Problem(field, f"{variable.name} is set by the operator" + (f"; use {instead}" if instead else ""))
        if variable.name == "HF_HOME" and spec.model.cache is not None:
            yield Problem(field, "HF_HOME is given here and spec.model.cache holds the hub's files; keep one of them")
        if variable.name == "VLLM_API_KEY" and spec.auth is not None:
            yield Problem(field, "VLLM_API_KEY is given here and spec.auth names a Secret with API keys; keep one of them")
        if variable.name == "HF_TOKEN" and spec.model.token_secret_ref is not None:
            yield Problem(field, "HF_TOKEN is given here and by spec.model.tokenSecretRef; keep one of them")
        if (variable.value is not None) == (variable.value_from is not None):
            yield Problem(field, f"{variable.name} needs exactly one of value and valueFrom")
        if variable.name == KV_SPACE_ENV and not _WHOLE_GIB.fullmatch(variable.value or ""):
            yield Problem(field, f"{KV_SPACE_ENV}={shown(variable.value or '')} is not a whole number of GiB")


def unsupported_env(engine: Engine) -> dict[str, str]:
    """Variables that make vLLM what alise does not work with, and why."""
    rust = {"VLLM_USE_RUST_FRONTEND": "alise lives in vLLM's Python API server"}
    # On a CPU there is only the first model runner.
    return rust | ({"VLLM_USE_V2_MODEL_RUNNER": "resuming is exact with model runner V1 only"} if engine.device == "cuda" else {})


def _classes(spec: Spec) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, one in enumerate(spec.scheduling.classes):
        field = f"spec.scheduling.classes[{index}]"
        if one.name in seen:
            yield Problem(f"{field}.name", f"{one.name!r} is given twice")
        seen.add(one.name)
        if not MIN_CLASS_WEIGHT <= parse_quantity(one.weight) <= MAX_CLASS_WEIGHT:
            yield Problem(f"{field}.weight", f"{one.weight!r} is not between {MIN_CLASS_WEIGHT} and {MAX_CLASS_WEIGHT}")


def _auth(spec: Spec) -> Iterator[Problem]:
    """The classes of tenants exist, and vLLM's own API key does not come on top of the Secret's."""
    if spec.auth is None:
        return
    for index, name, _ in given_flags(spec.engine.args):
        if name == "api-key":
            yield Problem(
                f"spec.engine.args[{index}]", "--api-key is given here and spec.auth names a Secret with API keys; keep one of them"
            )
    classes, seen = [one.name for one in spec.scheduling.classes], set[str]()
    for index, tenant in enumerate(spec.auth.tenants):
        field = f"spec.auth.tenants[{index}]"
        if tenant.name in seen:
            yield Problem(f"{field}.name", f"{tenant.name!r} is given twice")
        seen.add(tenant.name)
        if tenant.class_ not in classes:
            some = ", ".join([*map(repr, classes[:_CLASSES_SHOWN]), *["…"] * (len(classes) > _CLASSES_SHOWN)])
            allowed = f"use one of {some}" if classes else "there are none yet; add it there"
            yield Problem(f"{field}.class", f"{tenant.class_!r} is not a class in spec.scheduling.classes; {allowed}")


def _body_size(spec: Spec) -> Iterator[Problem]:
    value = spec.admission.max_body_size
    if not MIN_BODY_BYTES <= parse_quantity(value) <= MAX_BODY_BYTES:
        limits = f"{format_bytes(MIN_BODY_BYTES)} and {format_bytes(MAX_BODY_BYTES)}"
        yield Problem("spec.admission.maxBodySize", f"{value!r} is not between {limits}")


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
        elif limit is not None and only_as_limit(resource) and parse_quantity(request) != parse_quantity(limit):
            yield Problem(f"{field}.requests.{resource}", f"{request!r} must equal the limit {limit!r}; leave the request out")


def _memory(spec: Spec) -> Iterator[Problem]:
    yield from memory_problems("spec.engine.resources.limits.memory", spec.engine.resources.limits.get("memory"), spec)


def memory_problems(field: str, limit: object, spec: Spec) -> Iterator[Problem]:
    """A memory limit of the engine's container that it cannot work in. What is no quantity is left to the API server."""
    needed = needed_memory_bytes(spec)
    try:
        given = quantity_bytes(str(limit))
    except ValueError:
        return
    if given < needed:
        parts = " + ".join(f"{format_bytes(count)} ({what})" for what, count in memory_parts(spec) if count)
        yield Problem(
            field,
            f"{shown(str(limit))} is below {format_bytes(needed)} = {parts}; raise the limit or lower spec.kvOffload.hostMemory; the "
            "model's weights need memory in addition to this",
        )

"""Rules that join several fields of a spec, the sizes that follow from a spec, and what this version of alise does not support.

Pure: reconcile.py calls `check()` after `parse()`; the builders in children/ use the sizes, and pod_needs.py there some rules. The CRD has
the simple rules as CEL, so that a current API server refuses the AliseEngine at `kubectl apply`. All of them are checked here, because
older servers prune CEL and some rules need arithmetic.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

from alise_contract.names import (
    ADAPTERS_DIR_ENV,
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
from alise_contract.quantities import format_bytes, memory_bytes, parse_quantity, quantity_bytes
from alise_operator.adapter_rules import adapter_problems, alias_problems
from alise_operator.errors import InvalidSpec, Problem
from alise_operator.flag_values import short, shown
from alise_operator.flags import bad_dtype, flag_problems, given_flags, kv_cache_dtypes
from alise_operator.kv_cache import WIDE_DTYPES
from alise_operator.memory_rules import (
    GIB,
    KV_SPACE_ENV,
    WHOLE_GIB,
    memory_problems,
    most_host_memory_bytes,
    scheduler_memory_problems,
)
from alise_operator.scaling_rules import autoscaling_problems
from alise_operator.spec import Spec
from alise_operator.spec_engine import Engine, Resources
from alise_operator.trace_rules import TRACE_ENV, trace_problems

KIB: Final = 1 << 10
# The weights of a request class that the scheduler accepts.
MIN_CLASS_WEIGHT: Final = Decimal("0.0625")
MAX_CLASS_WEIGHT: Final = Decimal(16)
_CLASSES_SHOWN: Final = 5
MIN_BODY_BYTES: Final = KIB
MAX_BODY_BYTES: Final = GIB

# Variables that the operator sets in the engine's container, and the field that determines each, if there is one.
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
    **TRACE_ENV,
    ADAPTERS_DIR_ENV: "spec.model.adapters",
}
# Variables that only these fields may set: the engine must get the values that the operator calculates with.
ENV_FIELDS: Final[Mapping[str, str]] = {**RESERVED_ENV, KV_SPACE_ENV: "spec.engine.env", "HF_TOKEN": "spec.model.tokenSecretRef"}
# Values that turn a variable off. None comes from another source, and the engine checks it itself.
HARMLESS_VALUES: Final = (None, "", "0")
_DOWNLOADS_BYTES: Final = 256 * GIB
_SCRATCH_BYTES: Final = 32 * GIB


def check(spec: Spec, name: str) -> None:
    """Raises InvalidSpec, which names every rule that the spec of the AliseEngine called `name` breaks."""
    problems = [*_name(name), *alias_problems(spec), *adapter_problems(spec), *_route(spec), *_device(spec.engine)]
    problems += [*flag_problems(spec.engine, spec.kv_offload), *_env(spec)]
    problems += [*_eight_bits(spec), *_classes(spec), *_auth(spec), *_body_size(spec), *_cache(spec), *_claim(spec, name)]
    problems += [*_sizes(spec), *_quantities(spec), *_memory(spec), *autoscaling_problems(spec), *trace_problems(spec)]
    if problems:
        raise InvalidSpec(problems)


def scratch_bytes(spec: Spec) -> int:
    """Returns the size of the scratch volume; 0 for no limit."""
    if spec.engine.scratch_size is not None:
        return quantity_bytes(spec.engine.scratch_size)
    elsewhere = spec.model.uri.startswith("/") or spec.model.cache is not None or _has_own_hub(spec)
    return _SCRATCH_BYTES if elsewhere else _DOWNLOADS_BYTES


def is_extended(resource: str) -> bool:
    """Returns whether a resource is an extended one, such as a device: a domain that is not Kubernetes' own, a slash and a name."""
    domain, slash, _ = resource.partition("/")
    return bool(slash) and domain != "kubernetes.io" and not domain.endswith(".kubernetes.io") and not domain.startswith("requests.")


def only_as_limit(resource: str) -> bool:
    """Returns whether Kubernetes requires a limit of the resource that equals the request, because it cannot be overcommitted."""
    return is_extended(resource) or resource.startswith("hugepages-")


def counts_bytes(resource: str) -> bool:
    """Returns whether an amount of the resource is a number of bytes."""
    return resource in ("memory", "ephemeral-storage", "storage") or resource.startswith("hugepages-")


def _name(name: str) -> Iterator[Problem]:
    # The API server has checked the characters of a DNS subdomain; a Service and a label allow less.
    if len(name) > 63 or "." in name or not name[:1].isalpha():
        yield Problem(
            "metadata.name", f"{name!r} cannot name a Service; begin with a letter, and use at most 63 characters of a-z, 0-9 and -"
        )


def _route(spec: Spec) -> Iterator[Problem]:
    route = spec.route
    if route.class_name is not None and route.parent_ref is not None:
        yield Problem(
            "spec.route", "className (Ingress) and parentRef (HTTPRoute) are both set; keep the one that belongs to spec.route.type"
        )
        return
    if route.type != "None" and not route.hosts:
        yield Problem("spec.route.hosts", f"is empty; type {route.type} needs at least one host name, for example llm.example.com")
    if route.type != "Ingress" and route.class_name is not None:
        yield Problem(
            "spec.route.className", f"{route.class_name!r} is allowed only with type Ingress, but spec.route.type is {route.type}"
        )
    if route.type != "Ingress" and route.tls_secret is not None:
        instead = "; set up TLS at the Gateway" if route.type == "HTTPRoute" else ""
        text = f"{route.tls_secret!r} is allowed only with type Ingress, but spec.route.type is {route.type}{instead}"
        yield Problem("spec.route.tlsSecret", text)
    if route.type != "HTTPRoute" and route.parent_ref is not None:
        text = f"{route.parent_ref.name!r} is allowed only with type HTTPRoute, but spec.route.type is {route.type}"
        yield Problem("spec.route.parentRef", text)
    if route.type == "HTTPRoute" and route.parent_ref is None:
        yield Problem("spec.route.parentRef", "is required: type HTTPRoute needs the name of a Gateway")


def _has_own_hub(spec: Spec) -> bool:
    return any(variable.name == "HF_HOME" for variable in spec.engine.env)


def _device(engine: Engine) -> Iterator[Problem]:
    if engine.kv_cache_dtype not in kv_cache_dtypes(engine):
        yield bad_dtype("spec.engine.kvCacheDtype", engine.kv_cache_dtype, engine)


def _eight_bits(spec: Spec) -> Iterator[Problem]:
    """INT8 cannot make a KV cache of 8 bits smaller, so it is stored on the host unchanged."""
    flags = [value for _, name, value in given_flags(spec.engine.args) if name == "kv-cache-dtype"]
    dtype = flags[-1] if flags else spec.engine.kv_cache_dtype
    if spec.kv_offload.quantization != "int8" or dtype in (None, *WIDE_DTYPES) or not most_host_memory_bytes(spec):
        return
    where = "--kv-cache-dtype" if flags else "spec.engine.kvCacheDtype"
    yield Problem(
        "spec.kvOffload.quantization",
        f"'int8' cannot be combined with {where} {short(dtype)}, whose KV cache has 8 bits or fewer and is stored unchanged on the host; "
        "use auto or none",
    )


def _cache(spec: Spec) -> Iterator[Problem]:
    """Only one node can mount a ReadWriteOnce volume, so pods on a second node would wait for it forever."""
    cache = spec.model.cache
    if cache is None:
        return
    if cache.claim_name is None and cache.size is None:
        yield Problem("spec.model.cache", "needs size, for a claim that the operator creates, or claimName, for an existing claim")
    for name, value in (("size", cache.size), ("storageClass", cache.storage_class)):
        if cache.claim_name is not None and value is not None:
            yield Problem(
                f"spec.model.cache.{name}",
                f"{value!r} cannot be combined with claimName, because the claim has its own; remove one of them",
            )
    if cache.access_mode == "ReadWriteOnce" and spec.replicas > 1:
        yield Problem(
            "spec.model.cache.accessMode",
            f"'ReadWriteOnce' allows one node, so it cannot be combined with {spec.replicas} replicas; use ReadWriteMany or replicas 1",
        )


def _claim(spec: Spec, name: str) -> Iterator[Problem]:
    """The claim that the operator creates has the name of the AliseEngine, and is deleted once it is no longer wanted."""
    if spec.model.cache is not None and spec.model.cache.claim_name == name:
        yield Problem(
            "spec.model.cache.claimName",
            f"{name!r} is the name of the claim that the operator creates with size; use a claim with another name, or set size instead",
        )


def _env(spec: Spec) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, variable in enumerate(spec.engine.env):
        field = f"spec.engine.env[{index}]"
        if variable.name in seen:
            yield Problem(field, f"{variable.name} is set twice; keep one of them")
        seen.add(variable.name)
        if variable.value not in HARMLESS_VALUES and (why := unsupported_env(spec.engine).get(variable.name)) is not None:
            yield Problem(field, f"{variable.name}={short(variable.value or '')}: {why}; leave it out")
        if variable.name in RESERVED_ENV:
            instead = RESERVED_ENV[variable.name]
            yield Problem(field, f"{variable.name} is set by the operator" + (f"; use {instead}" if instead else ""))
        if variable.name == "HF_HOME" and spec.model.cache is not None:
            yield Problem(field, "HF_HOME is set here, and spec.model.cache stores the same files; keep one of them")
        if variable.name == "VLLM_API_KEY" and spec.auth is not None:
            yield Problem(field, "VLLM_API_KEY is set here, and spec.auth names a Secret with API keys; keep one of them")
        if variable.name == "HF_TOKEN" and spec.model.token_secret_ref is not None:
            yield Problem(field, "HF_TOKEN is set here and by spec.model.tokenSecretRef; keep one of them")
        if (variable.value is not None) == (variable.value_from is not None):
            yield Problem(field, f"{variable.name} needs exactly one of value and valueFrom")
        if variable.name == KV_SPACE_ENV and not WHOLE_GIB.fullmatch(variable.value or ""):
            yield Problem(field, f"{KV_SPACE_ENV}={shown(variable.value or '')} is not a whole number of GiB")


def unsupported_env(engine: Engine) -> dict[str, str]:
    """Returns the variables that switch vLLM to something that alise does not support, and why."""
    rust = {"VLLM_USE_RUST_FRONTEND": "alise runs in vLLM's Python API server"}
    # CPUs have only the first model runner.
    return rust | ({"VLLM_USE_V2_MODEL_RUNNER": "requests resume exactly only with model runner V1"} if engine.device == "cuda" else {})


def _classes(spec: Spec) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, one in enumerate(spec.scheduling.classes):
        field = f"spec.scheduling.classes[{index}]"
        if one.name in seen:
            yield Problem(f"{field}.name", f"{one.name!r} is listed twice")
        seen.add(one.name)
        if not MIN_CLASS_WEIGHT <= parse_quantity(one.weight) <= MAX_CLASS_WEIGHT:
            yield Problem(f"{field}.weight", f"{one.weight!r} is not between {MIN_CLASS_WEIGHT} and {MAX_CLASS_WEIGHT}")


def _auth(spec: Spec) -> Iterator[Problem]:
    """The classes of tenants must exist, and vLLM's own API key cannot be combined with the Secret."""
    if spec.auth is None:
        return
    for index, name, _ in given_flags(spec.engine.args):
        if name == "api-key":
            yield Problem(
                f"spec.engine.args[{index}]", "--api-key is set here, and spec.auth names a Secret with API keys; keep one of them"
            )
    classes, seen = [one.name for one in spec.scheduling.classes], set[str]()
    for index, tenant in enumerate(spec.auth.tenants):
        field = f"spec.auth.tenants[{index}]"
        if tenant.name in seen:
            yield Problem(f"{field}.name", f"{tenant.name!r} is listed twice")
        seen.add(tenant.name)
        if tenant.class_ not in classes:
            some = ", ".join([*map(repr, classes[:_CLASSES_SHOWN]), *["…"] * (len(classes) > _CLASSES_SHOWN)])
            allowed = f"use one of {some}" if classes else "there are none yet, so add it there"
            yield Problem(f"{field}.class", f"{tenant.class_!r} is not a class in spec.scheduling.classes; {allowed}")


def _body_size(spec: Spec) -> Iterator[Problem]:
    value = spec.admission.max_body_size
    if not MIN_BODY_BYTES <= parse_quantity(value) <= MAX_BODY_BYTES:
        limits = f"{format_bytes(MIN_BODY_BYTES)} and {format_bytes(MAX_BODY_BYTES)}"
        yield Problem("spec.admission.maxBodySize", f"{value!r} is not between {limits}")


def _sizes(spec: Spec) -> Iterator[Problem]:
    """Yields a problem for each size that is a part of a byte, such as 500m, which Kubernetes accepts."""
    sizes = [
        ("spec.model.cache.size", None if spec.model.cache is None else spec.model.cache.size),
        ("spec.engine.scratchSize", spec.engine.scratch_size),
        ("spec.kvOffload.hostMemory", spec.kv_offload.host_memory),
        ("spec.admission.maxBodySize", spec.admission.max_body_size),
    ]
    for field, resources in _resources(spec):
        for part, amounts in (("requests", resources.requests), ("limits", resources.limits)):
            sizes += [(f"{field}.{part}.{resource}", amount) for resource, amount in amounts.items() if counts_bytes(resource)]
    for field, size in sizes:
        try:
            memory_bytes(size or "0")
        except ValueError as error:
            yield Problem(field, str(error))


def _quantities(spec: Spec) -> Iterator[Problem]:
    """With a request above its limit, the API server would accept the Deployment and refuse its pods."""
    for field, resources in _resources(spec):
        yield from _requests_above_limits(field, resources)


def _resources(spec: Spec) -> Iterator[tuple[str, Resources]]:
    yield "spec.engine.resources", spec.engine.resources
    if spec.scheduling.resources is not None:
        yield "spec.scheduling.resources", spec.scheduling.resources


def _requests_above_limits(field: str, resources: Resources) -> Iterator[Problem]:
    for resource, request in resources.requests.items():
        limit = resources.limits.get(resource)
        if limit is not None and parse_quantity(request) > parse_quantity(limit):
            yield Problem(f"{field}.requests.{resource}", f"{request!r} is above the limit {limit!r}")
        elif limit is not None and only_as_limit(resource) and parse_quantity(request) != parse_quantity(limit):
            yield Problem(f"{field}.requests.{resource}", f"{request!r} must equal the limit {limit!r}; leave the request out")


def _memory(spec: Spec) -> Iterator[Problem]:
    yield from memory_problems("spec.engine.resources.limits.memory", spec.engine.resources.limits.get("memory"), spec)
    if (scheduler := spec.scheduling.resources) is not None:
        yield from scheduler_memory_problems("spec.scheduling.resources.limits.memory", scheduler.limits.get("memory"))

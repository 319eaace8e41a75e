"""Builds the pod template: the engine's container, the scheduler's container beside it, and the volumes that they share.

Pure: workload.py puts the template into the Deployment, after pod_patch.py has merged the user's patch into it. Shutdown is designed here.
On deletion both preStop hooks start at once. The engine's hook drains, so SIGTERM follows when every stream has ended or `drainSeconds` are
over; the scheduler's hook waits until the engine is gone, so that ranks hold to the end. The grace period covers both and vLLM's own exit.
"""

import json
from typing import Any, Final

from alise_contract.names import (
    ADAPTERS_DIR,
    ADAPTERS_DIR_ENV,
    AUTH_CLASSES_ENV,
    AUTH_DIR,
    AUTH_DIR_ENV,
    AUTH_METRICS_ENV,
    BODY_SECONDS_ENV,
    CLASSES_ENV,
    ENGINE_CONTAINER,
    ENGINE_PORT,
    ISOLATE_PREFIX_CACHE_ENV,
    LENGTHS_PORT,
    MAX_BODY_BYTES_ENV,
    MAX_PENDING_ENV,
    RUN_AS,
    RUN_DIR,
    SCHEDULER_CONTAINER,
    SCHEDULER_HTTP_PORT,
    SOCKET_DIR,
    SOCKET_DIR_ENV,
    TRUST_HEADERS_ENV,
)
from alise_contract.quantities import format_bytes, parse_quantity, quantity_bytes
from alise_operator.adapter_rules import lora, lora_args
from alise_operator.children.adapters import adapters_name
from alise_operator.children.devices import as_manifest, engine_resources
from alise_operator.children.meta import Manifest, Owner, labels, selector
from alise_operator.children.network_policy import serves_lengths
from alise_operator.children.pod_needs import ADAPTERS_VOLUME, AUTH_VOLUME
from alise_operator.children.traces import trace_args, trace_env
from alise_operator.cluster import Cluster
from alise_operator.memory_rules import (
    KV_SPACE_ENV,
    SOCKET_VOLUME_BYTES,
    cpu_kv_space_gib,
    most_host_memory_bytes,
    shared_memory_bytes,
)
from alise_operator.rules import scratch_bytes
from alise_operator.spec import Spec
from alise_operator.spec_engine import Engine, Resources, served_names
from alise_operator.spec_types import SecretKey

SCRATCH: Final = "/scratch"
CACHE: Final = "/model-cache"
HISTORY: Final = "/var/lib/alise"
CACHE_VOLUME: Final = "model-cache"
# Owner and group may read; fsGroup gives the files the group of the containers.
_AUTH_MODE: Final = 0o440
_LIST_MODE: Final = 0o444
# About four times the size of 100,000 requests.
_HISTORY_LIMIT: Final = "512Mi"
# Time after the drain in which vLLM stops its workers and then the scheduler exits.
EXIT_MARGIN_SECONDS: Final = 30
# A large model is downloaded and loaded before the first /health succeeds.
_STARTUP_PERIOD_SECONDS: Final = 5
STARTUP_SECONDS: Final = 3600
# PID 1 has no default signal handlers. Without an init, SIGTERM would be lost until the process has installed its own.
_INIT: Final = ("tini", "--")
_CONTAINER_SECURITY: Final[Manifest] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
# The scheduler uses up to 400 MiB; its training process uses about as much again for some seconds.
_SCHEDULER_RESOURCES: Final = Resources(requests={"cpu": "250m", "memory": "256Mi"}, limits={"memory": "1Gi"})


def grace_seconds(spec: Spec) -> int:
    return spec.drain_seconds + EXIT_MARGIN_SECONDS


def one_node(spec: Spec) -> bool:
    """Returns whether only one node at a time can mount the pods' volume."""
    return spec.model.cache is not None and spec.model.cache.access_mode == "ReadWriteOnce"


def pod_template(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest:
    """Returns the generated pod template, before the user's patch."""
    engine, scheduler = _engine(spec, owner, cluster), _scheduler(spec, cluster)
    if cluster.native_sidecars:
        containers = {"initContainers": [scheduler | {"restartPolicy": "Always"}], "containers": [engine]}
    else:
        containers = {"containers": [engine, scheduler]}
    pod: Manifest = {
        **containers,
        "serviceAccountName": owner.name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_seconds(spec),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": RUN_AS,
            "runAsGroup": RUN_AS,
            "fsGroup": RUN_AS,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": _volumes(spec, owner),
    }
    if not one_node(spec):
        pod["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": selector(owner)},
            }
        ]
    return {
        "metadata": {"labels": labels(owner), "annotations": {"kubectl.kubernetes.io/default-container": ENGINE_CONTAINER}},
        "spec": pod,
    }


def engine_args(spec: Spec) -> list[str]:
    """Returns the arguments of `alise-engine`."""
    model, engine = spec.model, spec.engine
    args = ["serve", model.uri, "--host", "0.0.0.0", "--port", str(ENGINE_PORT)]
    # Responses and metrics have the first name. A name is never a variable: Kubernetes would insert its value, which could be a flag.
    args += ["--served-model-name", *(name.replace("$(", "$$(") for name in served_names(model))]
    # Formatted without exponents and fractions, which the engine's parser need not know.
    if spec.kv_offload.host_memory is None:
        args += ["--alise-host-memory", "auto", "--alise-host-memory-at-most", format_bytes(most_host_memory_bytes(spec))]
    else:
        args += ["--alise-host-memory", format_bytes(quantity_bytes(spec.kv_offload.host_memory))]
    args += ["--alise-kv-codec", spec.kv_offload.quantization]
    optional = {
        "--revision": model.revision,
        "--tensor-parallel-size": engine.tensor_parallel_size if engine.tensor_parallel_size > 1 else None,
        "--max-model-len": engine.max_model_len,
        "--max-num-seqs": engine.max_num_seqs,
        "--kv-cache-dtype": engine.kv_cache_dtype if engine.kv_cache_dtype != "auto" else None,
    }
    for flag, value in optional.items():
        if value is not None:
            args += [flag, str(value)]
    return [*args, *lora_args(model), *trace_args(spec), *engine.args]


def engine_image(engine: Engine, cluster: Cluster) -> str:
    if engine.image is not None:
        return engine.image
    return cluster.images.engine_cpu if engine.device == "cpu" else cluster.images.engine_cuda


def _engine(spec: Spec, owner: Owner, cluster: Cluster) -> Manifest:
    mounts: list[Manifest] = [
        {"name": "run", "mountPath": RUN_DIR},
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if spec.model.cache is not None:
        mounts.append({"name": CACHE_VOLUME, "mountPath": CACHE})
    if spec.auth is not None:
        # The whole folder, without a subPath: only then does the kubelet update the files when the Secret changes.
        mounts.append({"name": AUTH_VOLUME, "mountPath": AUTH_DIR, "readOnly": True})
    if lora(spec.model) is not None:
        mounts.append({"name": ADAPTERS_VOLUME, "mountPath": ADAPTERS_DIR, "readOnly": True})
    return {
        "name": ENGINE_CONTAINER,
        "image": engine_image(spec.engine, cluster),
        "imagePullPolicy": "IfNotPresent",
        "command": [*_INIT, "alise-engine"],
        "args": engine_args(spec),
        "env": _engine_env(spec, owner),
        "ports": [{"name": "http", "protocol": "TCP", "containerPort": ENGINE_PORT}],
        "resources": engine_resources(spec),
        "startupProbe": startup_probe(),
        "readinessProbe": _health(period=5, failures=3),
        "livenessProbe": liveness_probe(),
        "lifecycle": {"preStop": {"exec": {"command": ["alise-engine", "drain", "--timeout-seconds", str(spec.drain_seconds)]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _CONTAINER_SECURITY,
        "volumeMounts": mounts,
    }


def _scheduler(spec: Spec, cluster: Cluster) -> Manifest:
    """Returns the scheduler's container, without probes: a scheduler that is down must not remove the pod from the Service."""
    wait_seconds = spec.drain_seconds + EXIT_MARGIN_SECONDS // 2
    return {
        "name": SCHEDULER_CONTAINER,
        "image": spec.scheduling.image or cluster.images.scheduler,
        "imagePullPolicy": "IfNotPresent",
        "command": [*_INIT, "alise-scheduler"],
        "args": ["supervise"],
        "env": [{"name": name, "value": value} for name, value in scheduler_env(spec).items()] + _history_env(spec),
        "ports": [
            {"name": "metrics", "protocol": "TCP", "containerPort": SCHEDULER_HTTP_PORT},
            *([{"name": "lengths", "protocol": "TCP", "containerPort": LENGTHS_PORT}] if serves_lengths(spec) else []),
        ],
        "resources": as_manifest(spec.scheduling.resources or _SCHEDULER_RESOURCES),
        "lifecycle": {
            "preStop": {"exec": {"command": ["alise-scheduler", "wait-for-engine-exit", "--timeout-seconds", str(wait_seconds)]}}
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": _CONTAINER_SECURITY,
        "volumeMounts": [{"name": "run", "mountPath": RUN_DIR}, {"name": "history", "mountPath": HISTORY}],
    }


def scheduler_env(spec: Spec) -> dict[str, str]:
    """Returns the settings of the scheduler, as alise_scheduler/config.py reads them."""
    scheduling = spec.scheduling
    env = {
        SOCKET_DIR_ENV: SOCKET_DIR,
        "ALISE_POLICY": scheduling.policy,
        "ALISE_AGEING": _bool(scheduling.ageing),
        "ALISE_SLOWDOWN_TARGET": str(scheduling.slowdown_target),
        "ALISE_OVERDUE_SECONDS": str(scheduling.overdue_seconds),
        "ALISE_PREEMPTION": _bool(scheduling.preemption),
        "ALISE_QUANTIZATION": spec.kv_offload.quantization,
        "ALISE_MAX_WAIT_SECONDS": str(spec.admission.max_wait_seconds),
        "ALISE_HISTORY_DIR": HISTORY,
        "ALISE_HISTORY_EMBEDDINGS": _bool(spec.predictor.history.embeddings),
    }
    if spec.predictor.encoder is not None:
        env["ALISE_ENCODER"] = spec.predictor.encoder
    if serves_lengths(spec):
        env["ALISE_LENGTHS_PORT"] = str(LENGTHS_PORT)
    return env | _classes_env(spec)


def admission_env(spec: Spec) -> dict[str, str]:
    """Returns the settings of the engine's API server process: who may send requests, how many and how large, and its adapters."""
    admission = spec.admission
    env = {
        MAX_PENDING_ENV: str(admission.max_pending),
        TRUST_HEADERS_ENV: _bool(admission.trust_headers),
        MAX_BODY_BYTES_ENV: str(quantity_bytes(admission.max_body_size)),
        BODY_SECONDS_ENV: str(admission.body_seconds),
        ISOLATE_PREFIX_CACHE_ENV: _bool(admission.isolate_prefix_cache),
    }
    env |= _classes_env(spec)
    if spec.auth is not None:
        env[AUTH_DIR_ENV] = AUTH_DIR
        env[AUTH_CLASSES_ENV] = _json({tenant.name: tenant.class_ for tenant in spec.auth.tenants})
        env[AUTH_METRICS_ENV] = _bool(spec.auth.guard_metrics)
    if lora(spec.model) is not None:
        env[ADAPTERS_DIR_ENV] = ADAPTERS_DIR
    return env


def _classes_env(spec: Spec) -> dict[str, str]:
    classes = [
        {"name": one.name, "weight": float(parse_quantity(one.weight)), "sloTtftMs": one.slo_ttft_ms} for one in spec.scheduling.classes
    ]
    return {CLASSES_ENV: _json(classes)} if classes else {}


def _history_env(spec: Spec) -> list[Manifest]:
    postgres = spec.predictor.history.postgres
    if postgres is None:
        return []
    env = [_from_secret("ALISE_HISTORY_DSN", postgres.dsn_secret_ref)]
    if postgres.key_secret_ref is not None:
        env.append(_from_secret("ALISE_HISTORY_KEY", postgres.key_secret_ref))
    return env


def _engine_env(spec: Spec, owner: Owner) -> list[Manifest]:
    hub = CACHE if spec.model.cache is not None else f"{SCRATCH}/huggingface"
    fixed = {SOCKET_DIR_ENV: SOCKET_DIR, "HOME": SCRATCH, "TMPDIR": SCRATCH}
    env: list[Manifest] = [{"name": name, "value": value} for name, value in (fixed | admission_env(spec)).items()]
    token = spec.model.token_secret_ref
    if token is not None:
        env.append(_from_secret("HF_TOKEN", token))
    given = {variable.name for variable in spec.engine.env}
    defaults = {"HF_HOME": hub, "VLLM_NO_USAGE_STATS": "1"}
    if spec.engine.device == "cpu":
        # Set explicitly, because the memory limit is checked against it.
        defaults[KV_SPACE_ENV] = str(cpu_kv_space_gib(spec.engine))
    env += [{"name": name, "value": value} for name, value in defaults.items() if name not in given]
    return env + trace_env(spec, owner) + [variable.model_dump(by_alias=True, exclude_none=True) for variable in spec.engine.env]


def startup_probe() -> Manifest:
    return _health(period=_STARTUP_PERIOD_SECONDS, failures=STARTUP_SECONDS // _STARTUP_PERIOD_SECONDS)


def liveness_probe() -> Manifest:
    """Returns a patient probe: a long prefill may delay the API server, and a restart loses every stream."""
    return _health(period=10, failures=12)


def _health(*, period: int, failures: int) -> Manifest:
    probe: dict[str, Any] = {"httpGet": {"path": "/health", "port": "http", "scheme": "HTTP"}}
    return probe | {"periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures, "successThreshold": 1}


def _volumes(spec: Spec, owner: Owner) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": format_bytes(SOCKET_VOLUME_BYTES)}},
        {"name": "scratch", "emptyDir": {"sizeLimit": format_bytes(scratch)} if (scratch := scratch_bytes(spec)) else {}},
        {"name": "history", "emptyDir": {"sizeLimit": _HISTORY_LIMIT}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": format_bytes(shared_memory_bytes(spec.engine))}},
    ]
    if spec.model.cache is not None:
        volumes.append({"name": CACHE_VOLUME, "persistentVolumeClaim": {"claimName": spec.model.cache.claim_name or owner.name}})
    if spec.auth is not None:
        volumes.append({"name": AUTH_VOLUME, "secret": {"secretName": spec.auth.secret_ref.name, "defaultMode": _AUTH_MODE}})
    if lora(spec.model) is not None:
        volumes.append({"name": ADAPTERS_VOLUME, "configMap": {"name": adapters_name(owner), "defaultMode": _LIST_MODE}})
    return volumes


def _from_secret(name: str, reference: SecretKey) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": reference.name, "key": reference.key}}}


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _bool(value: bool) -> str:
    return "true" if value else "false"

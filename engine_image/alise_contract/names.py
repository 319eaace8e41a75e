"""Names and numbers that cross a process boundary.

Anything here is an interface: the operator, the picker, the plugin, a sidecar and an engine of different images read it from their own
copy, so a change of meaning is a new `CONTRACT_VERSION`.
"""

from typing import Final

CONTRACT_VERSION: Final = 1

# --- the resource -----------------------------------------------------------------------------------------------------------------
API_GROUP: Final = "alise.dev"
API_VERSION: Final = "v1alpha1"
KIND: Final = "AliseEngine"
PLURAL: Final = "aliseengines"
ENGINE_LABEL: Final = "alise.dev/engine"

# --- the pod ----------------------------------------------------------------------------------------------------------------------
ENGINE_CONTAINER: Final = "engine"
SCHEDULER_CONTAINER: Final = "scheduler"
RUN_DIR: Final = "/run/alise"
# The 0700 subdirectory of the shared volume that whichever container starts first makes.
SOCKET_DIR: Final = "/run/alise/sock"
SOCKET_DIR_ENV: Final = "ALISE_SOCKET_DIR"
# The middleware's questions, in frames (`frames.py`).
ADMISSION_SOCKET: Final = "admission.sock"
# The same service over gRPC, for people and tools.
ADMISSION_GRPC_SOCKET: Final = "admission-grpc.sock"
CONTROL_SOCKET: Final = "control.sock"
# The scheduler's HTTP for people: which requests it has, and why one waits. Only who may run a command in the pod reaches it.
REQUESTS_SOCKET: Final = "requests.sock"
# Options of long-lived gRPC connections on these sockets, for both ends: no extra pings that measure the bandwidth-delay product.
LOCAL_RPC_OPTIONS: Final = (("grpc.http2.bdp_probe", 0),)
# Random bytes in the socket directory, 0600. The container that starts first creates them; they go with the pod.
POD_KEY_FILE: Final = "pod.key"
POD_KEY_BYTES: Final = 32
ENGINE_PORT: Final = 8000
SCHEDULER_HTTP_PORT: Final = 9400
OPERATOR_HTTP_PORT: Final = 9500
# KEDA's external scaler, over TLS.
OPERATOR_SCALER_PORT: Final = 9501
# The sidecar's gRPC service Lengths, for endpoint pickers; open only if one is on.
LENGTHS_PORT: Final = 9401
# The endpoint picker: Envoy's external processing, and HTTP for metrics, probes and the operator.
PICKER_GRPC_PORT: Final = 9002
PICKER_HTTP_PORT: Final = 9600
# What the picker of a resource is called: the resource's name with this behind it.
PICKER_SUFFIX: Final = "-picker"
# JSON at the picker's HTTP port: {"<namespace>/<name>": number of requests that are held because no replica is ready}.
WAITING_PATH: Final = "/waiting"
STATUS_PATH: Final = "/alise/v1/status"
# uid and gid of all three images: the containers of a pod share a 0700 directory.
RUN_AS: Final = 65532

# --- a request --------------------------------------------------------------------------------------------------------------------
# Keys in the extra arguments of an engine request, which vLLM carries from the API server to EngineCore. All with this prefix are
# ours, those of later versions as well.
XARG_PREFIX: Final = "alise_"
JOB_XARG: Final = "alise_job"
HINT_XARG: Final = "alise_hint"
# Signs job id, priority and hint with the pod's key (`stamp.py`): what a client writes under these keys is not signed and not believed.
STAMP_XARG: Final = "alise_stamp"
# Header that vLLM lets win over the body's `priority`; the middleware removes it.
PRIORITY_HEADER: Final = "x-vllm-priority"
# The spelling of today first, then the one that the inference gateway had before; the first that is sent counts.
TENANT_HEADERS: Final = ("x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id")
OBJECTIVE_HEADERS: Final = ("x-llm-d-inference-objective", "x-gateway-inference-objective")
SLO_TTFT_HEADERS: Final = ("x-llm-d-slo-ttft-ms", "x-slo-ttft-ms")
# The id of a request: a client may send one, and every answer of a route that generates has it. vLLM and OpenAI's clients know this name.
REQUEST_ID_HEADER: Final = "x-request-id"
MAX_REQUEST_ID_CHARS: Final = 128
# Headers on every answer of a route that generates: the class of the request, and its outcome.
CLASS_RESPONSE_HEADER: Final = "x-alise-class"
OUTCOME_RESPONSE_HEADER: Final = "x-alise-outcome"
DEFAULT_CLASS: Final = "default"
MAX_HINT_BYTES: Final = 1024
MAX_JOB_ID_CHARS: Final = 64
MAX_PROMPT_BYTES: Final = 16 * 1024

# --- priority ---------------------------------------------------------------------------------------------------------------------
# In vLLM the lower priority goes first and 0 is the default: level 0 is neutral, negative levels are better.
MIN_LEVEL: Final = -128
MAX_LEVEL: Final = 127
NEUTRAL_LEVEL: Final = 0
_ORDER_SPAN: Final = 1 << 32
_ORDER_HALF: Final = 1 << 31


def pack_priority(level: int, order: int) -> int:
    """`level * 2^32 + order`, the number vLLM sorts by.

    Raises ValueError when level is outside [-128, 127] or order outside [-2^31, 2^31).
    """
    if not MIN_LEVEL <= level <= MAX_LEVEL:
        raise ValueError(f"level {level} is outside [{MIN_LEVEL}, {MAX_LEVEL}]")
    if not -_ORDER_HALF <= order < _ORDER_HALF:
        raise ValueError(f"order {order} is outside [-2^31, 2^31)")
    return level * _ORDER_SPAN + order


def unpack_priority(priority: int) -> tuple[int, int]:
    """The inverse of `pack_priority`: (level, order)."""
    level = (priority + _ORDER_HALF) // _ORDER_SPAN
    return level, priority - level * _ORDER_SPAN


# --- tenants ------------------------------------------------------------------------------------------------------------------------
# Between an API key's tenant and the part of it that a trusted header names.
PART_SEPARATOR: Final = "/"


def owner_of(tenant: str) -> str:
    """Returns the tenant whose share a request takes from: `team-a` for `team-a/part`. Inventing parts does not enlarge the share."""
    return tenant.partition(PART_SEPARATOR)[0]


# --- plan -------------------------------------------------------------------------------------------------------------------------
# A plan this old (engine's monotonic clock) is no plan: rank preemption stops, order is by arrival.
PLAN_EXPIRES_SECONDS: Final = 2.0
ADMIT_DEADLINE_SECONDS: Final = 0.050
ADMIT_DEADLINE_ENV: Final = "ALISE_ADMIT_DEADLINE_MS"
# Admitted jobs that never reach the engine stop counting after this.
ADMITTED_EXPIRES_SECONDS: Final = 5.0

# --- settings of the engine's API-server process, written by the operator -----------------------------------------------------------
# As the scheduler's setting of the same name: requests that wait for their first token; 0: no limit.
MAX_PENDING_ENV: Final = "ALISE_MAX_PENDING"
DEFAULT_MAX_PENDING: Final = 1000
# JSON list of the classes, as the scheduler's setting of the same name.
CLASSES_ENV: Final = "ALISE_CLASSES"
# true: the headers that name class and tenant count (a gateway sets them); false: they are ignored.
TRUST_HEADERS_ENV: Final = "ALISE_TRUST_HEADERS"
# A larger body is refused with 413.
MAX_BODY_BYTES_ENV: Final = "ALISE_MAX_BODY_BYTES"
DEFAULT_MAX_BODY_BYTES: Final = 32 * 1024 * 1024
# A body that is not there after this long is refused with 408.
BODY_SECONDS_ENV: Final = "ALISE_BODY_SECONDS"
DEFAULT_BODY_SECONDS: Final = 60.0
# true: the prefix cache is shared within a tenant only.
ISOLATE_PREFIX_CACHE_ENV: Final = "ALISE_ISOLATE_PREFIX_CACHE"
# Share of the requests that are traced, from 0 to 1.
TRACES_RATIO_ENV: Final = "ALISE_TRACES_RATIO"
# Folder with one file per tenant (a mounted Secret): the file's name is the tenant, each of its lines an API key. Unset: no keys of ours.
AUTH_DIR_ENV: Final = "ALISE_AUTH_DIR"
AUTH_DIR: Final = "/etc/alise/auth"
# JSON object: tenant -> class; a tenant that is not named has the default class.
AUTH_CLASSES_ENV: Final = "ALISE_AUTH_CLASSES"
# true: /metrics wants a key as well.
AUTH_METRICS_ENV: Final = "ALISE_AUTH_METRICS"
# Folder with the list of LoRA adapters (a mounted ConfigMap; `adapters.py`). Unset: no adapters of ours.
ADAPTERS_DIR_ENV: Final = "ALISE_ADAPTERS_DIR"
ADAPTERS_DIR: Final = "/etc/alise/adapters"

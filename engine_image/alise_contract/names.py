"""Names and numbers that cross a process boundary.

Anything here is an interface: a sidecar and an engine of different images read it from their own copy, so a change of meaning is a new
`CONTRACT_VERSION`.
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
ADMISSION_SOCKET: Final = "admission.sock"
CONTROL_SOCKET: Final = "control.sock"
# Of gRPC connections on these that stay open, at both ends: no pings beside the messages to find out how far away the other end is.
LOCAL_RPC_OPTIONS: Final = (("grpc.http2.bdp_probe", 0),)
ENGINE_PORT: Final = 8000
SCHEDULER_HTTP_PORT: Final = 9400
OPERATOR_HTTP_PORT: Final = 9500
STATUS_PATH: Final = "/alise/v1/status"
# uid and gid of all three images: the containers of a pod share a 0700 directory.
RUN_AS: Final = 65532

# --- a request --------------------------------------------------------------------------------------------------------------------
# Keys in the body's `vllm_xargs`; vLLM carries them to SamplingParams.extra_args.
JOB_XARG: Final = "alise_job"
HINT_XARG: Final = "alise_hint"
# Header that vLLM lets win over the body's `priority`; the middleware removes it.
PRIORITY_HEADER: Final = "x-vllm-priority"
TENANT_HEADER: Final = "x-llm-d-inference-fairness-id"
OBJECTIVE_HEADER: Final = "x-llm-d-inference-objective"
SLO_TTFT_HEADER: Final = "x-llm-d-slo-ttft-ms"
MAX_HINT_BYTES: Final = 1024
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


# --- plan -------------------------------------------------------------------------------------------------------------------------
# A plan this old (engine's monotonic clock) is no plan: holds are lifted, rank preemption stops, order is by arrival.
PLAN_EXPIRES_SECONDS: Final = 2.0
ADMIT_DEADLINE_SECONDS: Final = 0.050
ADMIT_DEADLINE_ENV: Final = "ALISE_ADMIT_DEADLINE_MS"
# Admitted jobs that never reach the engine stop counting after this.
ADMITTED_EXPIRES_SECONDS: Final = 5.0

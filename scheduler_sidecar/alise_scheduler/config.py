"""The settings: their bounds and defaults, and how text from the environment or a flag becomes a value.

For example, `max_wait_seconds` is the variable `ALISE_MAX_WAIT_SECONDS` and the flag `--max-wait-seconds` of `alise-scheduler run`. The
flag wins. `__main__.py` passes the environment in; nothing is read here. docs/reference/settings.md is generated from it.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from alise_contract.names import SCHEDULER_HTTP_PORT, SOCKET_DIR
from alise_contract.quantities import memory_bytes

from .core.admit import AdmitLimits
from .core.memory import MemoryLimits
from .core.rank import AgeingRule, LatenessRule, Policy, PreemptionRule
from .errors import ConfigError

ENV_PREFIX: Final = "ALISE_"


def _bytes_of(value: object) -> object:
    """The bytes of a Kubernetes quantity, such as `2Gi`, `500M` or `1024`. A value that is not text is returned unchanged.

    Raises ValueError if the text is not a quantity, or has a suffix below one, as in `500m`.
    """
    return memory_bytes(value.strip()) if isinstance(value, str) else value


class RequestClass(BaseModel):
    """A class of requests. A request names its class in the objective header."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str = Field(min_length=1, max_length=63)
    weight: float = Field(1.0, ge=1 / 16, le=16)
    slo_ttft_ms: int = Field(0, ge=0, alias="sloTtftMs")


class Settings(BaseModel):
    """All settings of `alise-scheduler`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    socket_dir: str = Field(SOCKET_DIR, min_length=1, description="Folder of admission.sock and control.sock.")
    policy: Literal["boost", "alise", "gittins", "sjf", "fcfs"] = Field("boost", description="The order in which requests run.")
    ageing: bool = Field(True, description="Promote jobs as they age. Without it, long jobs can starve.")
    ageing_jobs: float = Field(
        3.0, gt=0, le=1000, description="The age, in run times of the typical job, that makes up for twice the work."
    )
    ageing_max_seconds: float = Field(
        600.0, gt=0, le=36000, description="The longest such age. Ageing slows down as the backlog grows, until this bound."
    )
    slowdown_target: float = Field(
        6.0,
        ge=2,
        le=1000,
        description="A job that can no longer finish within this many times its unloaded time waits behind the jobs that can.",
    )
    overdue_seconds: float = Field(
        165.0, gt=0, le=36000, description="Jobs older than this run first, oldest first, on up to half of the slots."
    )
    preemption: bool = Field(True, description="Let better-ranked jobs preempt running ones (policies boost, alise and gittins).")
    preempt_levels: int = Field(6, ge=1, le=128, description="How many levels better a job must be to preempt. 4 levels are a factor of 2.")
    min_quantum_steps: int = Field(
        4, ge=0, le=100_000, description="How many engine steps a job runs before a better-ranked job may preempt it."
    )
    preempt_turn_share: float = Field(
        0.015, ge=0, le=1,
        description="Running jobs keep their slots while one is free within this share of a typical job's time. 0: ranks always preempt.",
    )  # fmt: skip
    max_wait_seconds: float = Field(0.0, ge=0, description="Refuse requests with a longer predicted wait. 0 refuses none.")
    classes: tuple[RequestClass, ...] = Field((), description='JSON list, e.g. [{"name": "batch", "weight": 0.25, "sloTtftMs": 0}].')
    quantization: Literal["auto", "int8", "none"] = Field(
        "auto", description="Codec of KV in host memory: INT8 under pressure (auto), always (int8) or never (none)."
    )
    host_memory: Annotated[int, BeforeValidator(_bytes_of)] = Field(
        0, ge=0, description="Bytes of KV in host memory. 0 is the engine's own limit."
    )
    int8_ewt_ms: int = Field(2000, ge=0, description="With auto: store INT8 from this expected wait on.")
    int8_host_fraction: float = Field(0.5, ge=0, le=1, description="With auto: store INT8 from this usage of the host store on.")
    predictor: Literal["learned", "light"] = Field(
        "learned",
        description="How lengths are predicted: by a model that learns, or by the usual length, moved by the answers so far.",
    )
    encoder: str = Field("", description="Folder of the sentence encoder (encoder.onnx, vocab.txt). If empty, only features are used.")
    encode_ms: float = Field(15.0, gt=0, le=1000, description="How long an admission waits for the embedding of its prompt.")
    history_dir: str = Field(
        "", description="Folder of the history of finished requests. If empty, it is kept in memory and lost with the process."
    )
    history_dsn: str = Field(
        "", repr=False, description="DSN of a PostgreSQL with pgvector that replicas share. If empty, the history is not shared."
    )
    history_key: str = Field(
        "",
        repr=False,
        description="Secret that salts hashes and signs heads, the same for all replicas. If empty, it is derived from the DSN's password.",
    )
    history_embeddings: bool = Field(
        True,
        description="Keep the embeddings of prompts in the history. With false they stay in memory, and a restart trains without them.",
    )
    http_host: str = Field("0.0.0.0", min_length=1, description="Address of /metrics, /healthz and /statusz.")
    http_port: int = Field(SCHEDULER_HTTP_PORT, ge=0, le=65535, description="Port of /metrics, /healthz and /statusz. 0 picks a free one.")
    lengths_port: int = Field(
        0, ge=0, le=65535, description="Port of the gRPC service Lengths, which endpoint pickers call. 0 does not serve it."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The lowest level that is logged.")
    hang_seconds: float = Field(10.0, ge=1, description="With supervise: kill a scheduler process without a heartbeat for this long.")
    restart_max_seconds: float = Field(5.0, ge=0.1, le=60, description="With supervise: the longest pause before a restart.")

    @field_validator("classes", mode="before")
    @classmethod
    def _parse_classes(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                return json.loads(value) if value.strip() else ()
            except json.JSONDecodeError as error:
                raise ValueError(f"is not JSON ({error.msg} at character {error.pos})") from error
        return value

    @field_validator("classes")
    @classmethod
    def _distinct(cls, value: tuple[RequestClass, ...]) -> tuple[RequestClass, ...]:
        names = [item.name for item in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"has several classes with the same name: {', '.join(twice)}")
        return value

    def to_policy(self) -> Policy:
        """The policy for `decide()`."""
        ageing = AgeingRule(jobs=self.ageing_jobs, max_seconds=self.ageing_max_seconds) if self.ageing else None
        preempts = self.preemption and self.policy in ("boost", "alise", "gittins")
        late = LatenessRule(self.slowdown_target, overdue_seconds=self.overdue_seconds) if self.ageing else None
        return Policy(
            name=self.policy,
            ageing=ageing if self.policy != "fcfs" else None,
            lateness=late,
            preemption=PreemptionRule(self.preempt_levels if preempts else 0, self.min_quantum_steps, self.preempt_turn_share),
            memory=MemoryLimits(self.quantization, self.host_memory, self.int8_ewt_ms, self.int8_host_fraction),
        )

    def to_admit_limits(self) -> AdmitLimits:
        """The limits for `admit()`."""
        return AdmitLimits(self.max_wait_seconds)


def env_name(field: str) -> str:
    """The environment variable of a field: `max_wait_seconds` -> `ALISE_MAX_WAIT_SECONDS`."""
    return ENV_PREFIX + field.upper()


def flag_name(field: str) -> str:
    """The flag of a field: `max_wait_seconds` -> `--max-wait-seconds`."""
    return "--" + field.replace("_", "-")


def load(env: Mapping[str, str], flags: Mapping[str, str]) -> Settings:
    """Settings from the environment and from flags (by field name).

    Raises ConfigError, which names each invalid setting, its origin, its value and what is allowed.
    """
    values: dict[str, Any] = {}
    source: dict[str, str] = {}
    for field in Settings.model_fields:
        if flags.get(field) is not None:
            values[field], source[field] = flags[field], flag_name(field)
        elif env.get(env_name(field), "") != "":
            values[field], source[field] = env[env_name(field)], env_name(field)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            field = str(item["loc"][0]) if item["loc"] else "?"
            inner = ".".join(str(part) for part in item["loc"][1:])
            where = source.get(field, field) + (f" ({inner})" if inner else "")
            known = Settings.model_fields.get(field)
            value = "(hidden)" if known is not None and not known.repr else repr(values.get(field))
            lines.append(f"{where}={value}: {item['msg']}")
        raise ConfigError("; ".join(lines)) from None

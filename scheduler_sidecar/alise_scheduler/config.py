"""Settings: what can be set, its bounds, and how text from the environment or a flag becomes a value.

Every field is an environment variable (`ALISE_` + the name in capitals) and a flag of `alise-scheduler run` (`--name-with-dashes`); the
flag wins. Reads nothing by itself: `__main__.py` hands over the environment.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from alise_contract.names import SCHEDULER_HTTP_PORT, SOCKET_DIR

from .core.admit import AdmitLimits
from .core.memory import MemoryLimits
from .core.rank import AgeingRule, LatenessRule, Policy, PreemptionRule
from .errors import ConfigError

ENV_PREFIX: Final = "ALISE_"
_QUANTITY: Final = re.compile(r"^([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?$")
_UNITS: Final = {None: 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def quantity_bytes(text: object) -> object:
    """Bytes of a Kubernetes quantity (`2Gi`, `500M`, `1024`); anything that is not text is returned as it is.

    Raises ValueError when the text is no quantity.
    """
    if not isinstance(text, str):
        return text
    match = _QUANTITY.match(text.strip())
    if match is None:
        raise ValueError("is not a quantity; use a number of bytes or one with Ki, Mi, Gi, Ti, k, M, G, T")
    return int(float(match[1]) * _UNITS[match[2]])


class RequestClass(BaseModel):
    """A class of requests, named by the objective header."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str = Field(min_length=1, max_length=63)
    weight: float = Field(1.0, ge=1 / 16, le=16)
    slo_ttft_ms: int = Field(0, ge=0, alias="sloTtftMs")


class Settings(BaseModel):
    """All settings of `alise-scheduler`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)

    socket_dir: str = Field(SOCKET_DIR, min_length=1, description="Folder of admission.sock and control.sock.")
    policy: Literal["boost", "alise", "gittins", "sjf", "fcfs"] = Field("boost", description="Who goes first.")
    ageing: bool = Field(True, description="Waiting jobs are promoted; without it long jobs may starve.")
    ageing_jobs: float = Field(
        3.0, gt=0, le=1000, description="Waiting as long as this many typical jobs take makes up for twice the work."
    )
    ageing_max_seconds: float = Field(
        600.0, gt=0, le=36000, description="Longest such wait: under backlog ageing slows with it, down to this."
    )
    slowdown_target: float = Field(
        6.0, ge=2, le=1000, description="A job that can no longer end within this many times its unloaded time waits behind those that can."
    )
    overdue_seconds: float = Field(165.0, gt=0, le=36000, description="Older jobs go first, oldest first, on up to half of the slots.")
    preemption: bool = Field(True, description="Better-ranked jobs preempt running ones (policies boost, alise and gittins).")
    preempt_levels: int = Field(6, ge=1, le=128, description="Levels that a job must be better to preempt; 4 levels are a factor of 2.")
    min_quantum_steps: int = Field(4, ge=0, le=100_000, description="Engine steps a job runs before rank may preempt it.")
    max_wait_seconds: float = Field(0.0, ge=0, description="Requests are refused whose predicted wait is longer. 0: none are.")
    classes: tuple[RequestClass, ...] = Field((), description='JSON list, e.g. [{"name": "batch", "weight": 0.25, "sloTtftMs": 0}].')
    quantization: Literal["auto", "int8", "none"] = Field("auto", description="KV in host memory: INT8 under pressure, always, never.")
    host_memory: Annotated[int, BeforeValidator(quantity_bytes)] = Field(0, ge=0, description="KV bytes on the host; 0: the engine's.")
    int8_ewt_ms: int = Field(2000, ge=0, description="auto: raw below this expected wait, INT8 from it on.")
    int8_host_fraction: float = Field(0.5, ge=0, le=1, description="auto: raw below this use of the host store, INT8 from it on.")
    predictor: Literal["learned", "paper", "buckets"] = Field(
        "learned",
        description="How lengths are predicted: a model that learns, the paper's rule, or quantiles of similar requests.",
    )
    encoder: str = Field("", description="Folder of the sentence encoder (encoder.onnx, vocab.txt). Empty: features only.")
    encode_ms: float = Field(15.0, gt=0, le=1000, description="An admission waits this long for its prompt's embedding.")
    history_dir: str = Field("", description="Folder of the history of finished requests. Empty: in memory, lost with the process.")
    history_dsn: str = Field("", repr=False, description="PostgreSQL with pgvector that replicas share. Empty: not shared.")
    history_key: str = Field(
        "",
        repr=False,
        description="Secret that salts hashes and signs heads, the same for all replicas. Empty: made of the DSN's password.",
    )
    history_embeddings: bool = Field(
        True, description="Prompts' embeddings are kept in the history. false: in memory only; a restart learns again without them."
    )
    http_host: str = Field("0.0.0.0", min_length=1, description="Address of /metrics, /healthz and /statusz.")
    http_port: int = Field(SCHEDULER_HTTP_PORT, ge=0, le=65535, description="Their port; 0 picks a free one.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    hang_seconds: float = Field(10.0, ge=1, description="supervise: a scheduler without heartbeat for this long is killed.")
    restart_max_seconds: float = Field(5.0, ge=0.1, le=60, description="supervise: longest pause before a restart.")

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
            raise ValueError(f"names a class twice: {', '.join(twice)}")
        return value

    def to_policy(self) -> Policy:
        """What `decide()` needs of the settings."""
        ageing = AgeingRule(jobs=self.ageing_jobs, max_seconds=self.ageing_max_seconds) if self.ageing else None
        preempts = self.preemption and self.policy in ("boost", "alise", "gittins")
        late = LatenessRule(self.slowdown_target, overdue_seconds=self.overdue_seconds) if self.ageing else None
        return Policy(
            name=self.policy,
            ageing=ageing if self.policy != "fcfs" else None,
            lateness=late,
            preemption=PreemptionRule(self.preempt_levels if preempts else 0, self.min_quantum_steps),
            memory=MemoryLimits(self.quantization, self.host_memory, self.int8_ewt_ms, self.int8_host_fraction),
        )

    def to_admit_limits(self) -> AdmitLimits:
        """What `admit()` needs of the settings."""
        return AdmitLimits(self.max_wait_seconds)


def env_name(field: str) -> str:
    """The environment variable of a field: `max_wait_seconds` -> `ALISE_MAX_WAIT_SECONDS`."""
    return ENV_PREFIX + field.upper()


def flag_name(field: str) -> str:
    """The flag of a field: `max_wait_seconds` -> `--max-wait-seconds`."""
    return "--" + field.replace("_", "-")


def load(env: Mapping[str, str], flags: Mapping[str, str]) -> Settings:
    """Settings out of the environment and flags (by field name).

    Raises ConfigError that names each setting, where it came from, its value and what is allowed.
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

"""The operator's own settings: names of environment variables, bounds, defaults. Reads nothing by itself."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from alise_contract.names import OPERATOR_HTTP_PORT
from alise_operator.allowed import Allowed, read_allowed
from alise_operator.cluster import Images
from alise_operator.errors import OperatorError
from alise_operator.lease import LEASE_SECONDS


class ConfigError(OperatorError):
    reason = "BadSetting"


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    engine_cuda: Annotated[str, Field(alias="ALISE_IMAGE_ENGINE_CUDA", min_length=1)] = Images().engine_cuda
    engine_cpu: Annotated[str, Field(alias="ALISE_IMAGE_ENGINE_CPU", min_length=1)] = Images().engine_cpu
    scheduler: Annotated[str, Field(alias="ALISE_IMAGE_SCHEDULER", min_length=1)] = Images().scheduler
    http_host: Annotated[str, Field(alias="ALISE_HTTP_HOST", min_length=1)] = "0.0.0.0"
    # 0 picks a free one.
    http_port: Annotated[int, Field(alias="ALISE_HTTP_PORT", ge=0, le=65535)] = OPERATOR_HTTP_PORT
    # Every resource is looked at and its pods are polled this often.
    resync_seconds: Annotated[float, Field(alias="ALISE_RESYNC_SECONDS", ge=0.5, le=3600)] = 15.0
    # The one namespace that is looked after; empty: all of them.
    watch_namespace: Annotated[str, Field(alias="ALISE_WATCH_NAMESPACE", pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")] = ""
    # Another operator takes over when this one has not renewed its lease for so long.
    lease_seconds: Annotated[float, Field(alias="ALISE_LEASE_SECONDS", ge=3, le=300)] = LEASE_SECONDS
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Field(alias="ALISE_LOG_LEVEL")] = "info"
    # What pods may have beyond the restricted default: names of fields, or name=value.
    pod_patch_allow: Annotated[str, Field(alias="ALISE_POD_PATCH_ALLOW")] = ""

    # Annotations that routes may have beyond the harmless ones.
    route_annotations_allow: Annotated[str, Field(alias="ALISE_ROUTE_ANNOTATIONS_ALLOW")] = ""

    @field_validator("pod_patch_allow")
    @classmethod
    def _known_terms(cls, text: str) -> str:
        read_allowed(text)
        return text

    @property
    def allowed(self) -> Allowed:
        return read_allowed(self.pod_patch_allow)

    @property
    def route_annotations(self) -> frozenset[str]:
        return frozenset(name.strip() for name in self.route_annotations_allow.split(",") if name.strip())

    @property
    def images(self) -> Images:
        return Images(engine_cuda=self.engine_cuda, engine_cpu=self.engine_cpu, scheduler=self.scheduler)


def load(env: Mapping[str, str]) -> Settings:
    """Raises ConfigError that names the variable, its value and what is allowed."""
    try:
        return Settings.model_validate({key: value for key, value in env.items() if key.startswith("ALISE_")})
    except ValidationError as error:
        raise ConfigError("; ".join(f"{one['loc'][0]}={one['input']!r}: {one['msg']}" for one in error.errors())) from error

"""The settings of the operator: environment variables with their bounds, defaults and descriptions.

Pure: __main__.py passes the environment to `load()`, and prints the descriptions with --help; the reference page is generated from them.
"""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from alise_contract import page
from alise_contract.names import OPERATOR_HTTP_PORT, OPERATOR_SCALER_PORT
from alise_operator.allowed import Allowed, read_allowed
from alise_operator.cluster import Images, KedaScaler
from alise_operator.errors import OperatorError

LEASE_SECONDS: Final = 15.0
# The Service of components/keda.
SCALER_SERVICE: Final = "alise-operator-scaler"


class ConfigError(OperatorError):
    reason = "BadSetting"


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    engine_cuda: Annotated[
        str,
        Field(alias="ALISE_IMAGE_ENGINE_CUDA", min_length=1, description="Image of engines on GPUs for resources that name none."),
    ] = Images().engine_cuda
    engine_cpu: Annotated[
        str, Field(alias="ALISE_IMAGE_ENGINE_CPU", min_length=1, description="Image of engines on CPUs for resources that name none.")
    ] = Images().engine_cpu
    scheduler: Annotated[
        str, Field(alias="ALISE_IMAGE_SCHEDULER", min_length=1, description="Image of the scheduler for resources that name none.")
    ] = Images().scheduler
    picker: Annotated[
        str, Field(alias="ALISE_IMAGE_PICKER", min_length=1, description="Image of endpoint pickers, which is the operator's own.")
    ] = Images().picker
    http_host: Annotated[
        str, Field(alias="ALISE_HTTP_HOST", min_length=1, description="Address on which `/metrics` and `/healthz` are served.")
    ] = "0.0.0.0"
    http_port: Annotated[
        int, Field(alias="ALISE_HTTP_PORT", ge=0, le=65535, description="Port of `/metrics` and `/healthz`. 0 picks a free port.")
    ] = OPERATOR_HTTP_PORT
    page_port: Annotated[
        int,
        Field(
            alias="ALISE_PAGE_PORT",
            ge=0,
            le=65535,
            description="Port of the page that `kubectl alise ui` opens, on the pod's loopback only. 0 picks a free port.",
        ),
    ] = page.PORT
    resync_seconds: Annotated[
        float,
        Field(
            alias="ALISE_RESYNC_SECONDS",
            ge=0.5,
            le=3600,
            description="Interval at which every resource is reconciled and its pods are polled, in seconds.",
        ),
    ] = 15.0
    watch_namespace: Annotated[
        str,
        Field(
            alias="ALISE_WATCH_NAMESPACE",
            pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$",
            description="The only namespace whose resources the operator manages. Empty: all namespaces.",
        ),
    ] = ""
    lease_seconds: Annotated[
        float,
        Field(
            alias="ALISE_LEASE_SECONDS",
            ge=3,
            le=300,
            description="Another operator takes over when the lease has not been renewed for this many seconds.",
        ),
    ] = LEASE_SECONDS
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(alias="ALISE_LOG_LEVEL", description="Lowest level that is logged, as JSON lines on stderr."),
    ] = "info"
    pod_patch_allow: Annotated[
        str,
        Field(
            alias="ALISE_POD_PATCH_ALLOW",
            description="What pods may have beyond the restricted default: a comma-separated list of field names, alone or with `=VALUE`.",
        ),
    ] = ""
    scaler_tls_dir: Annotated[
        str,
        Field(
            alias="ALISE_SCALER_TLS_DIR",
            description="Folder with the certificate (`tls.crt`, `tls.key`) of the scaler for KEDA. Empty: KEDA is not used.",
        ),
    ] = ""
    scaler_port: Annotated[
        int, Field(alias="ALISE_SCALER_PORT", ge=0, le=65535, description="Port of KEDA's scaler (gRPC over TLS). 0 picks a free port.")
    ] = OPERATOR_SCALER_PORT
    scaler_address: Annotated[
        str,
        Field(
            alias="ALISE_SCALER_ADDRESS",
            description=(
                "Address at which KEDA reaches the scaler, as HOST:PORT. The certificate must be valid for the host. "
                f"Empty: `{SCALER_SERVICE}.NAMESPACE.svc:{OPERATOR_SCALER_PORT}` with the operator's own namespace."
            ),
        ),
    ] = ""
    scaler_authentication: Annotated[
        str,
        Field(
            alias="ALISE_SCALER_AUTHENTICATION",
            min_length=1,
            description="ClusterTriggerAuthentication of KEDA with the certificate authority of the scaler.",
        ),
    ] = "alise-operator-scaler"
    route_annotations_allow: Annotated[
        str,
        Field(
            alias="ALISE_ROUTE_ANNOTATIONS_ALLOW",
            description="Annotations that routes may have beyond the harmless ones: comma-separated names, which may end with `*`.",
        ),
    ] = ""

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

    def keda_scaler(self, namespace: str) -> KedaScaler | None:
        """Returns how KEDA reaches the scaler of an operator in this namespace; None if KEDA is not used."""
        address = self.scaler_address or f"{SCALER_SERVICE}.{namespace}.svc:{OPERATOR_SCALER_PORT}"
        return KedaScaler(address, self.scaler_authentication) if self.scaler_tls_dir else None

    @property
    def images(self) -> Images:
        return Images(engine_cuda=self.engine_cuda, engine_cpu=self.engine_cpu, scheduler=self.scheduler, picker=self.picker)


def load(env: Mapping[str, str]) -> Settings:
    """Returns the settings in the environment. Raises ConfigError, which names the variable, its value and what is allowed."""
    try:
        return Settings.model_validate({key: value for key, value in env.items() if key.startswith("ALISE_")})
    except ValidationError as error:
        raise ConfigError("; ".join(f"{one['loc'][0]}={one['input']!r}: {one['msg']}" for one in error.errors())) from error

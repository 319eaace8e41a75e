"""The custom resource as a value: `parse()` turns a resource's `spec` into a frozen `Spec`.

The CRD's schema is generated from these models (crd.py), so a description here is what `kubectl explain` prints and a bound here is
checked by the API server as well. It is checked again in `parse`: a resource may have been stored under an older schema, or by a server
that prunes validation rules it does not know. Rules that join several fields live in rules.py.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema
from pydantic.alias_generators import to_camel

from alise_operator.errors import InvalidSpec
from alise_operator.quantities import MAX_LENGTH, PATTERN
from alise_operator.spec_words import CLASS_NAME, HOST, KUBERNETES_NAME, PATH, SERVED_NAME, TENANT_NAME, VARIABLE, WORD, problem

# A resource's name becomes the name of its Service and a label value.
NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_MAX_LENGTH: Final = 63
MAX_REPLICAS: Final = 10_000


def _number_to_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Quantity = Annotated[
    str,
    Field(pattern=PATTERN, max_length=MAX_LENGTH),
    BeforeValidator(_number_to_text),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "x-kubernetes-int-or-string": True,
            "pattern": PATTERN,
            "maxLength": MAX_LENGTH,
            "minimum": 0,
        }
    ),
]
# An object that Kubernetes itself defines and checks when the child is applied.
Opaque = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
SecretName = Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)]
# One word on the engine's command line, and none that reads as a flag.
ServedName = Annotated[str, Field(min_length=1, max_length=256, pattern=SERVED_NAME)]
ClassName = Annotated[str, Field(min_length=1, max_length=63, pattern=CLASS_NAME)]


def rule(expression: str, message: str) -> dict[str, str]:
    """A CEL validation rule; API servers since 1.25 check it, older ones prune it."""
    return {"rule": expression, "message": message}


def _rules(*rules: dict[str, str]) -> dict[str, Any]:
    return {"x-kubernetes-validations": list(rules)}


class _Model(BaseModel):
    # Strict: a type that the CRD's schema refuses is refused here as well.
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class SecretKeyRef(_Model):
    name: SecretName
    """Name of a Secret in the resource's namespace."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "token"
    """Key in the Secret."""


class DsnSecretRef(_Model):
    name: SecretName
    """Name of a Secret in the resource's namespace."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "dsn"
    """Key in the Secret."""


class HistoryKeySecretRef(_Model):
    name: SecretName
    """Name of a Secret in the resource's namespace."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "key"
    """Key in the Secret."""


SecretKey = SecretKeyRef | DsnSecretRef | HistoryKeySecretRef


class ModelCache(_Model):
    model_config = ConfigDict(
        json_schema_extra=_rules(
            rule("has(self.size) != has(self.claimName)", "cache has size, for a claim that is made, or claimName, for one that exists"),
            rule("!has(self.claimName) || !has(self.storageClass)", "storageClass does not go with claimName: the claim has one already"),
        )
    )
    size: Quantity | None = None
    """Size of a claim that is made for the resource and deleted with it, for example 100Gi."""
    storage_class: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)] | None = None
    """StorageClass of the claim that is made; the cluster's default when left out."""
    claim_name: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)] | None = None
    """Name of a PersistentVolumeClaim that exists in the resource's namespace, instead of size. It is never changed and never deleted."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteOnce"
    """ReadWriteMany lets replicas on several nodes share the cache. ReadWriteOnce: one replica, which a rollout stops first. With claimName
    it is what the claim has."""


class Model(_Model):
    uri: Annotated[str, Field(min_length=1, max_length=1024, pattern=WORD)]
    """What to serve: a Hugging Face repository (Qwen/Qwen3-8B) or a path inside the engine's image or volumes (/models/tiny)."""
    revision: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Branch, tag or commit of the repository."""
    served_name: ServedName | None = None
    """The name clients put in a request's `model`; the uri when left out. Answers and metrics have this name."""
    aliases: list[ServedName] = Field(default_factory=list, max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    """Further names that clients may put in a request's `model`, for example the one of a model that this one replaces."""
    token_secret_ref: SecretKeyRef | None = None
    """Secret that holds the hub's token; the engine gets it as HF_TOKEN."""
    cache: ModelCache | None = None
    """A volume that keeps downloaded weights over restarts. Removing it from the resource deletes the claim that was made for it."""


def served_names(model: Model) -> list[str]:
    """Returns the names by which clients may ask for the model, the one in answers and metrics first."""
    return [model.served_name or model.uri, *model.aliases]


class ResourceClaim(_Model):
    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of a claim in podTemplate.spec.resourceClaims."""
    request: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """One request of the claim; all of them when left out."""


class Resources(_Model):
    requests: dict[str, Quantity] = Field(default_factory=dict)
    """What a pod is guaranteed."""
    limits: dict[str, Quantity] = Field(default_factory=dict)
    """What a pod may use at most."""
    claims: list[ResourceClaim] = Field(
        default_factory=list, max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )
    """Devices by dynamic resource allocation, as in a pod."""


class EnvVar(_Model):
    name: Annotated[str, Field(min_length=1, max_length=253, pattern=VARIABLE)]
    """Name of the variable."""
    value: str | None = None
    """Its value."""
    value_from: Opaque | None = None
    """Where its value comes from, as in a pod."""


class Engine(_Model):
    model_config = ConfigDict(
        json_schema_extra=_rules(
            rule(
                "self.device != 'cpu' || self.kvCacheDtype in ['auto', 'fp8', 'fp8_e4m3', 'fp8_e5m2']",
                "kvCacheDtype on device cpu is one of auto, fp8, fp8_e4m3, fp8_e5m2",
            )
        )
    )
    device: Literal["cuda", "cpu"] = "cuda"
    """What the model runs on."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Image of the engine; the operator's image for the device when left out."""
    args: list[Annotated[str, Field(max_length=4096)]] = Field(default_factory=list, max_length=128)
    """Further flags of `vllm serve`, each word an item of its own or joined by an equals sign: [--max-num-batched-tokens, 4k, --seed=7]."""
    env: list[EnvVar] = Field(
        default_factory=list, max_length=128, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )
    """Further environment of the engine's container."""
    resources: Resources = Field(default_factory=Resources)
    """Compute resources of the engine's container. A memory limit must cover the host KV store and the in-memory volumes; without one it is
    that sum and 64Gi for each device. On cuda without an extended resource or a claim, nvidia.com/gpu is added."""
    scratch_size: Quantity | None = None
    """Size of the pod's scratch volume, above which the pod is evicted. When left out: 256Gi where weights are downloaded into it, else
    32Gi. 0: no limit."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=64)] = 1
    """Devices of one replica."""
    max_model_len: Annotated[int, Field(ge=1)] | None = None
    """Longest prompt plus answer in tokens; the model's own when left out."""
    max_num_seqs: Annotated[int, Field(ge=1)] | None = None
    """Requests that run at the same time in one replica."""
    kv_cache_dtype: Annotated[str, Field(min_length=1, max_length=64)] = "auto"
    """Type of the KV cache on the device. fp8 holds twice as many tokens as the 16 bits of auto in the same memory, and answers may differ
    a little; the condition KVCacheShort says when that helps. On cpu: auto, fp8, fp8_e4m3 or fp8_e5m2, on CPUs with AVX-512 or AMX; on
    cuda one of vLLM's --kv-cache-dtype."""
    rollout: Literal["surge", "replace"] = "surge"
    """How pods of a new spec come: surge starts one before it stops an old one, which takes the room of one pod more; replace stops one
    first, for clusters whose GPUs are all taken."""


class RequestClass(_Model):
    name: ClassName
    """Name of the class. API keys get a class by spec.auth.tenants; requests can ask for one in the header x-llm-d-inference-objective,
    which counts only with spec.admission.trustHeaders."""
    weight: Quantity = "1"
    """How much sooner it runs: 2 as if its jobs were half as long, 250m as if four times. From 62.5m (1/16) to 16."""
    slo_ttft_ms: Annotated[int, Field(ge=0)] = 0
    """Time to first token that the class asks for, in milliseconds. 0: none."""


class Scheduling(_Model):
    policy: Literal["boost", "alise", "gittins", "sjf", "fcfs"] = "boost"
    """Who runs first: boost (Gittins index, kind to long ones), gittins, alise (least remaining time), sjf (shortest predicted), fcfs."""
    ageing: bool = True
    """Waiting requests are promoted; without it long ones may starve."""
    slowdown_target: Annotated[int, Field(ge=2, le=1000)] = 6
    """What happens in overload. A request that can no longer be answered within this many times what it would take on an idle engine waits
    behind those that still can. The larger the number, the closer to the order of arrival. Needs ageing."""
    overdue_seconds: Annotated[int, Field(ge=1, le=36000)] = 165
    """Longest that a request gives way: older ones run before all others, oldest first, on up to half of the engine. Needs ageing."""
    preemption: bool = True
    """Better-ranked requests preempt running ones (policies boost, gittins and alise)."""
    classes: list[RequestClass] = Field(
        default_factory=list, max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )
    """Classes of requests that run sooner or later than others."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Image of the scheduler sidecar; the operator's when left out."""
    resources: Resources | None = None
    """Compute resources of the scheduler sidecar."""


class KvOffload(_Model):
    host_memory: Quantity | None = None
    """Host memory of one pod for KV caches of preempted requests, over all its devices. When left out: as much as the KV cache on the
    devices has, at most 8Gi for each device and a quarter of the container's memory. 0: they are recomputed, which is the only way for
    hybrid and sliding-window models such as gpt-oss, Gemma and Qwen-Next."""
    quantization: Literal["auto", "int8", "none"] = "auto"
    """How KV caches are kept on the host: none (exact), int8 (about half the size), auto (int8 under pressure)."""


class PostgresHistory(_Model):
    dsn_secret_ref: DsnSecretRef
    """Secret that holds the connection string (postgresql://user:password@host/database). The database has the extension pgvector."""
    key_secret_ref: HistoryKeySecretRef | None = None
    """Secret key that salts what is stored and signs what replicas share; derived from the database password when left out."""


class PredictorHistory(_Model):
    embeddings: bool = True
    """Whether the history keeps a sentence embedding of each prompt. It says what the prompt was about. If false, embeddings stay in
    memory, and predictions are less accurate after a restart."""
    postgres: PostgresHistory | None = None
    """A PostgreSQL database that the replicas of this resource share, so that they learn from each other and new ones start warm. Each
    pod keeps its own history as well."""


class Predictor(_Model):
    encoder: Annotated[str, Field(min_length=1, max_length=1024, pattern=PATH)] | None = None
    """Folder of the sentence encoder (encoder.onnx, vocab.txt) in the scheduler's image or volumes; the image's own when left out."""
    history: PredictorHistory = Field(default_factory=PredictorHistory)
    """What is kept of finished requests, in the pod and optionally in a database: lengths, numbers that describe the text, salted hashes,
    and sentence embeddings of prompts unless embeddings is false. The text itself is never stored."""


class Admission(_Model):
    max_pending: Annotated[int, Field(ge=0)] = 1000
    """Requests of one replica that may wait for the engine to start them; further ones get 429 with Retry-After. While one tenant fills the
    limit, tenants with less than an even share of it may still wait, up to twice the limit in all. 0: no limit."""
    max_wait_seconds: Annotated[int, Field(ge=0)] = 0
    """Longest predicted wait. In overload, requests that would wait longer are refused at once: 429 with Retry-After and a message that
    says how long the wait would be, how many requests are ahead and what to do. The wait is all the time for which a request does not run,
    predicted for its own rank, so that long answers are refused before short ones. 0: no request is refused for its wait."""
    trust_headers: bool = False
    """Whether the headers that name a request's class and tenant are used. Set it only where a gateway sets them and clients cannot."""
    max_body_size: Quantity = "32Mi"
    """Largest body of a request, from 1Ki to 1Gi; larger ones get 413. JSON for a model that takes only text has a lower limit, which
    follows from the model's context length."""
    body_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """How long a client may take to send the body of a request; slower ones get 408."""
    isolate_prefix_cache: bool = False
    """Whether each tenant has a prefix cache of its own. If false, all tenants share one, and response times can tell a tenant that another
    one sent the same prompt."""


class AuthSecretRef(_Model):
    name: SecretName
    """Name of a Secret in the resource's namespace. Each entry is a tenant: its name is the tenant's name, its value holds the tenant's API
    keys, one per line. Names that begin with a dot are skipped."""


class Tenant(_Model):
    name: Annotated[str, Field(min_length=1, max_length=253, pattern=TENANT_NAME)]
    """Name of the tenant, which is the name of its entry in the Secret."""
    class_: Annotated[ClassName, Field(alias="class")]
    """Class of the tenant's requests, one of spec.scheduling.classes."""


class Auth(_Model):
    secret_ref: AuthSecretRef
    """Secret that holds the API keys. Changes take effect within about 90 seconds, without a restart."""
    tenants: list[Tenant] = Field(
        default_factory=list, max_length=256, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )
    """Classes of tenants; a tenant that is not listed has the default class."""
    guard_metrics: bool = False
    """/metrics of the engine requires an API key as well."""


class ParentRef(_Model):
    name: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)]
    """Name of the Gateway."""
    namespace: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=63)] | None = None
    """Namespace of the Gateway; the resource's own when left out."""
    section_name: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)] | None = None
    """One listener of the Gateway; all when left out."""


class Route(_Model):
    model_config = ConfigDict(
        json_schema_extra=_rules(
            rule(
                "self.type == 'None' || (has(self.hosts) && size(self.hosts) > 0)",
                "hosts names at least one host when type is Ingress or HTTPRoute",
            ),
            rule("self.type == 'Ingress' || !has(self.className)", "className belongs to type Ingress"),
            rule("self.type == 'Ingress' || !has(self.tlsSecret)", "tlsSecret belongs to type Ingress; a Gateway has its own"),
            rule("self.type == 'HTTPRoute' || !has(self.parentRef)", "parentRef belongs to type HTTPRoute"),
            rule("self.type != 'HTTPRoute' || has(self.parentRef)", "parentRef names the Gateway when type is HTTPRoute"),
        )
    )
    type: Literal["HTTPRoute", "Ingress", "None"] = "None"
    """How clients outside the cluster come in: a Gateway API HTTPRoute, an Ingress, or not at all."""
    hosts: list[Annotated[str, Field(pattern=HOST, max_length=253)]] = Field(default_factory=list, max_length=16)
    """Host names of the route."""
    class_name: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)] | None = None
    """IngressClass; the cluster's default when left out. Only with type Ingress."""
    parent_ref: ParentRef | None = None
    """The Gateway. Only with type HTTPRoute."""
    tls_secret: SecretName | None = None
    """Secret with the hosts' certificate. Only with type Ingress."""
    timeouts: Literal["Auto", "Set", "Omit"] = "Auto"
    """Whether the HTTPRoute says that requests have no timeout (timeouts: 0s), so that an answer can stream as long as it takes. Auto
    leaves out what the GatewayClass does not list among its features, and all of it once the Gateway has refused the route for it; the
    Gateway's own limits hold then. Only with type HTTPRoute."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Further annotations of the Ingress or HTTPRoute. Names with a prefix must be among those that the operator allows: timeouts, limits
    and certificates of common controllers, and what the operator's setting ALISE_ROUTE_ANNOTATIONS_ALLOW adds."""


class NetworkPolicy(_Model):
    enabled: bool = True
    """Whether there is a NetworkPolicy: only the pods' two HTTP ports (8000 and 9400) can be reached."""
    from_: Annotated[list[Opaque], Field(alias="from", max_length=64)] = Field(default_factory=list)
    """Who may reach them, as `from` of a Kubernetes NetworkPolicy: gateways, clients, Prometheus. Everybody when empty. The operator may in
    any case."""
    egress: Annotated[list[Opaque], Field(max_length=64)] | None = None
    """What the pods may reach, as `egress` of a Kubernetes NetworkPolicy: the hub, the database. Everything when left out. DNS stays
    possible in any case, and an empty list allows nothing else."""


class Spec(_Model):
    """What one AliseEngine serves and how."""

    model_config = ConfigDict(
        json_schema_extra=_rules(
            rule(
                "!has(self.model.cache) || self.model.cache.accessMode == 'ReadWriteMany' || self.replicas <= 1",
                "model.cache.accessMode is ReadWriteMany when there is more than one replica",
            )
        )
    )

    model: Model
    """The model."""
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    """Engine pods."""
    engine: Engine = Field(default_factory=Engine)
    """The vLLM engine."""
    scheduling: Scheduling = Field(default_factory=Scheduling)
    """Order of requests."""
    kv_offload: KvOffload = Field(default_factory=KvOffload)
    """Where the KV caches of preempted requests go."""
    predictor: Predictor = Field(default_factory=Predictor)
    """How lengths of answers are predicted."""
    admission: Admission = Field(default_factory=Admission)
    """Limits of requests, and which of their headers count."""
    auth: Auth | None = None
    """API keys that clients must send, as a bearer token or in the header x-api-key; no keys are required when left out."""
    route: Route = Field(default_factory=Route)
    """How clients reach it from outside the cluster."""
    network_policy: NetworkPolicy = Field(default_factory=NetworkPolicy)
    """Who may reach the pods inside the cluster."""
    drain_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """How long a pod that is to stop lets open streams finish."""
    pod_template: Opaque = Field(default_factory=dict)
    """Patch of the pod template, merged as a strategic merge patch of Kubernetes: objects field by field, lists by their own keys, other
    lists replaced; null and $patch: delete remove. What reaches outside the namespace is refused."""
    suspend: bool = False
    """Stop all pods and keep everything else."""


def named_secrets(spec: Spec) -> frozenset[str]:
    """Secrets that fields of the resource name for its pods."""
    history, variables = spec.predictor.history.postgres, [variable.value_from or {} for variable in spec.engine.env]
    fields = [
        spec.model.token_secret_ref,
        spec.auth.secret_ref if spec.auth else None,
        history.dsn_secret_ref if history else None,
        history.key_secret_ref if history else None,
    ]
    named = {reference.name for reference in fields if reference is not None}
    references = [source["secretKeyRef"] for source in variables if isinstance(source.get("secretKeyRef"), dict)]
    return frozenset(named | {reference["name"] for reference in references if isinstance(reference.get("name"), str)})


def parse(raw: object) -> Spec:
    """The resource's `spec` as a value. Raises InvalidSpec that names every field that is wrong."""
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        raise InvalidSpec([problem(detail) for detail in error.errors(include_url=False)]) from error

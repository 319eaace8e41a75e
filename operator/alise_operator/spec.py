"""The custom resource as a value: `parse()` turns the `spec` of an AliseEngine into a frozen `Spec`.

crd.py generates the CRD's schema from these models, so the docstring of a field is its description in `kubectl explain`, and a bound here
is also checked by the API server. `parse()` checks it again: the resource may have been stored under an older schema, or by a server that
prunes validation rules. Rules that join several fields are in rules.py. Pure: reconcile.py calls `parse()`, and every builder and message
reads the `Spec`.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from alise_operator.errors import InvalidSpec
from alise_operator.spec_autoscaling import Autoscaling
from alise_operator.spec_engine import Engine, KvOffload, Model, Resources
from alise_operator.spec_observability import Observability
from alise_operator.spec_routing import Routing
from alise_operator.spec_types import (
    MAX_REPLICAS,
    ClassName,
    DsnSecretRef,
    HistoryKeySecretRef,
    Opaque,
    Quantity,
    SecretName,
    SpecModel,
    rule,
    rules,
)
from alise_operator.spec_words import HOST, KUBERNETES_NAME, PATH, TENANT_NAME, problem


class RequestClass(SpecModel):
    name: ClassName
    """Name of the class. spec.auth.tenants assigns classes to API keys. A request can also name its class in the header
    x-llm-d-inference-objective, which is used only if spec.admission.trustHeaders is true. A class with the name default is that of
    requests without a class."""
    weight: Quantity = "1"
    """Scheduling weight, from 62.5m (1/16) to 16. A request of weight 2 is ranked as if it were half as long, and one of weight 250m as if
    it were four times as long."""
    slo_ttft_ms: Annotated[int, Field(ge=0)] = 0
    """Target for the time to first token, in milliseconds. 0 means no target."""


class Scheduling(SpecModel):
    policy: Literal["boost", "alise", "gittins", "sjf", "fcfs"] = "boost"
    """Order in which requests run. boost: requests that are likely to end soon run first, and among long ones the oldest. gittins: the same
    (the Gittins index), but long ones are ordered by length too. alise: least remaining time first. sjf: shortest predicted request first.
    fcfs: order of arrival."""
    ageing: bool = True
    """Whether requests gain rank as they get older. If false, slowdownTarget and overdueSeconds have no effect, and long requests can wait
    for as long as shorter ones come."""
    slowdown_target: Annotated[int, Field(ge=2, le=1000)] = 6
    """Behaviour in overload. A request that can no longer finish within this multiple of the time that it would take on an idle engine (at
    least twice what it takes in a batch of the usual size) waits behind the requests that still can. With a larger number more requests
    count as in time, and the order is closer to the order of arrival. Requires ageing and the policy boost, gittins or alise."""
    overdue_seconds: Annotated[int, Field(ge=1, le=36000)] = 165
    """Age, in seconds, from which a request no longer gives way to younger ones: older requests run before all others, oldest first, on up
    to half of the engine's slots. It does not limit the wait. Requires ageing and the policy boost, gittins or alise."""
    preemption: bool = True
    """Whether a request that ranks higher preempts a running one for its slot or KV memory, where these do not come free soon anyway.
    Used by the policies boost, gittins and alise."""
    classes: list[RequestClass] = Field(
        default_factory=list, max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )
    """Classes of requests that run sooner or later than others. Default: none, so all requests have the same weight."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Container image of the scheduler sidecar. Default: the operator's scheduler image."""
    resources: Resources | None = None
    """Compute resources of the scheduler sidecar. Default: requests of cpu 250m and memory 256Mi, and a memory limit of 1Gi."""


class PostgresHistory(SpecModel):
    dsn_secret_ref: DsnSecretRef
    """Secret with the connection string (postgresql://user:password@host/database). The database needs the extension pgvector."""
    key_secret_ref: HistoryKeySecretRef | None = None
    """Secret with the key that salts stored hashes and signs what replicas share. Default: derived from the database password."""


class PredictorHistory(SpecModel):
    embeddings: bool = True
    """Whether the history stores a sentence embedding of each prompt. An embedding shows what the prompt was about. If false, embeddings
    stay in memory, and predictions are less accurate after a restart."""
    postgres: PostgresHistory | None = None
    """PostgreSQL database that the replicas of this AliseEngine share, so that they learn from each other and new replicas do not start
    without a history. Each pod keeps its own history as well. Default: no database."""


class Predictor(SpecModel):
    encoder: Annotated[str, Field(min_length=1, max_length=1024, pattern=PATH)] | None = None
    """Folder of the sentence encoder (encoder.onnx, vocab.txt), in the scheduler's image or in a volume. Default: the encoder in the
    image."""
    history: PredictorHistory = Field(default_factory=PredictorHistory)
    """What the predictor stores about finished requests, in the pod and optionally in a database: lengths, numeric features of the text,
    salted hashes, and sentence embeddings of prompts unless embeddings is false. The text itself is never stored."""


class Admission(SpecModel):
    max_pending: Annotated[int, Field(ge=0)] = 1000
    """Maximum number of requests of one replica that wait for the engine to start them. Further requests are rejected with 429 and
    Retry-After. While one tenant fills the limit, tenants with less than an even share of it may still wait, up to twice the limit in
    total. 0 means no limit."""
    max_wait_seconds: Annotated[int, Field(ge=0)] = 0
    """Longest predicted wait of a request, in seconds. By default every request waits, for as long as it takes. In overload, a request
    that would wait longer is rejected at once, with 429, Retry-After and a message that states the predicted wait, the number of requests
    ahead and what to do. The wait is all the time during which a request does not run, predicted for its own rank, so long answers are
    rejected before short ones. 0 means no limit."""
    trust_headers: bool = False
    """Whether the headers that name a request's class and tenant are used. Set this to true only if a gateway sets these headers and
    clients cannot."""
    max_body_size: Quantity = "32Mi"
    """Maximum size of a request's body, in bytes, from 1Ki to 1Gi. Larger bodies are rejected with 413. For a model that accepts only text,
    JSON bodies have a lower limit, which follows from the model's context length."""
    body_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """Time, in seconds, in which a client must send the body of a request. Slower requests are rejected with 408."""
    isolate_prefix_cache: bool = False
    """Whether each tenant has its own prefix cache. If false, all tenants share one, and response times can reveal that another tenant sent
    the same prompt."""


class AuthSecretRef(SpecModel):
    name: SecretName
    """Name of the Secret, in the namespace of the AliseEngine. Each entry is a tenant: the name of the entry is the tenant's name, and its
    value holds the tenant's API keys, one per line. Entries whose name begins with a dot are ignored."""


class Tenant(SpecModel):
    name: Annotated[str, Field(min_length=1, max_length=253, pattern=TENANT_NAME)]
    """Name of the tenant, which is the name of its entry in the Secret."""
    class_: Annotated[ClassName, Field(alias="class")]
    """Class of the tenant's requests, one of spec.scheduling.classes."""


class Auth(SpecModel):
    secret_ref: AuthSecretRef
    """Secret with the API keys. Changes take effect within about 90 seconds, without a restart."""
    tenants: list[Tenant] = Field(
        default_factory=list, max_length=256, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )
    """Request classes of tenants. A tenant that is not listed has the default class. Default: none."""
    guard_metrics: bool = False
    """Whether /metrics of the engine requires an API key as well."""


class ParentRef(SpecModel):
    name: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)]
    """Name of the Gateway."""
    namespace: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=63)] | None = None
    """Namespace of the Gateway. Default: the namespace of the AliseEngine."""
    section_name: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)] | None = None
    """Name of one listener of the Gateway. Default: all listeners."""


class Route(SpecModel):
    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.type == 'None' || (has(self.hosts) && size(self.hosts) > 0)",
                "hosts must name at least one host if type is Ingress or HTTPRoute",
            ),
            rule("self.type == 'Ingress' || !has(self.className)", "className is allowed only with type Ingress"),
            rule(
                "self.type == 'Ingress' || !has(self.tlsSecret)",
                "tlsSecret is allowed only with type Ingress; with type HTTPRoute, set up TLS at the Gateway",
            ),
            rule("self.type == 'HTTPRoute' || !has(self.parentRef)", "parentRef is allowed only with type HTTPRoute"),
            rule("self.type != 'HTTPRoute' || has(self.parentRef)", "parentRef must name the Gateway if type is HTTPRoute"),
        )
    )
    type: Literal["HTTPRoute", "Ingress", "None"] = "None"
    """How clients outside the cluster reach the engine: through an HTTPRoute of the Gateway API, through an Ingress, or not at all."""
    hosts: list[Annotated[str, Field(pattern=HOST, max_length=253)]] = Field(default_factory=list, max_length=16)
    """Host names of the route. Required with type Ingress and HTTPRoute. Default: none."""
    class_name: Annotated[str, Field(pattern=KUBERNETES_NAME, max_length=253)] | None = None
    """Name of the IngressClass. Allowed only with type Ingress. Default: the cluster's default IngressClass."""
    parent_ref: ParentRef | None = None
    """Gateway that the HTTPRoute attaches to. Required with type HTTPRoute, and allowed only with it. Default: none."""
    tls_secret: SecretName | None = None
    """Name of the Secret with the TLS certificate of the hosts. Allowed only with type Ingress. Default: no TLS."""
    timeouts: Literal["Auto", "Set", "Omit"] = "Auto"
    """Whether the HTTPRoute turns request timeouts off (timeouts: 0s), so that an answer can stream for as long as it takes. Set: always.
    Omit: never, so the Gateway's own timeouts apply. Auto: like Set, without the timeouts that the GatewayClass does not list among its
    features, and like Omit once the Gateway has refused the route because of them. Used only with type HTTPRoute."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Further annotations of the Ingress or HTTPRoute. A name with a prefix must be one that the operator allows: timeouts, limits and
    certificates of common controllers, and the names in the operator's setting ALISE_ROUTE_ANNOTATIONS_ALLOW. Default: none."""


class NetworkPolicy(SpecModel):
    enabled: bool = True
    """Whether the operator creates a NetworkPolicy that allows connections to the pods only on their two HTTP ports (8000 and 9400), and
    from what spec.routing names on the port of predictions (9401)."""
    from_: Annotated[list[Opaque], Field(alias="from", max_length=64)] = Field(default_factory=list)
    """Peers that may connect to these ports, as `from` of a Kubernetes NetworkPolicy, for example gateways, clients and Prometheus. The
    operator is always allowed. Default: all peers."""
    egress: Annotated[list[Opaque], Field(max_length=64)] | None = None
    """Connections that the pods may open, as `egress` of a Kubernetes NetworkPolicy, for example to the model hub and the database. DNS is
    always allowed, and so is the collector of spec.observability.traces if it is an IP address or a Service. An empty list allows nothing
    else. Default: all connections."""


class Spec(SpecModel):
    """Desired state of an AliseEngine."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.model.cache) || self.model.cache.accessMode == 'ReadWriteMany' || self.replicas <= 1",
                "model.cache.accessMode must be ReadWriteMany if there is more than one replica",
            ),
            rule(
                "!has(self.model.cache) || self.model.cache.accessMode == 'ReadWriteMany' || !has(self.autoscaling) || "
                "self.autoscaling.maxReplicas <= 1",
                "model.cache.accessMode must be ReadWriteMany if autoscaling.maxReplicas is greater than 1",
            ),
        )
    )

    model: Model
    """Model to serve."""
    replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 1
    """Number of engine pods. With spec.autoscaling, leave it out: the operator sets it."""
    autoscaling: Autoscaling | None = None
    """Number of pods by predicted work: the operator sets spec.replicas, within these bounds. Default: no autoscaling."""
    engine: Engine = Field(default_factory=Engine)
    """Settings of the vLLM engine."""
    scheduling: Scheduling = Field(default_factory=Scheduling)
    """Order in which requests run."""
    kv_offload: KvOffload = Field(default_factory=KvOffload)
    """Host memory for the KV caches of preempted requests."""
    predictor: Predictor = Field(default_factory=Predictor)
    """Prediction of answer lengths."""
    admission: Admission = Field(default_factory=Admission)
    """Limits on requests, and which of their headers are used."""
    auth: Auth | None = None
    """API keys that clients must send, as a bearer token or in the header x-api-key. Default: no API keys are required."""
    route: Route = Field(default_factory=Route)
    """Access to the engine from outside the cluster."""
    routing: Routing = Field(default_factory=Routing)
    """Which replica a request goes to."""
    observability: Observability = Field(default_factory=Observability)
    """What the replicas report about requests, besides metrics."""
    network_policy: NetworkPolicy = Field(default_factory=NetworkPolicy)
    """Access to the pods from inside the cluster, and what the pods may connect to."""
    drain_seconds: Annotated[int, Field(ge=0, le=86_400)] = 300
    """Time, in seconds, that open streams have to finish when a pod is stopped."""
    pod_template: Opaque = Field(default_factory=dict)
    """Patch of the generated pod template, merged like a strategic merge patch of Kubernetes: objects merge field by field, lists merge by
    their keys, other lists are replaced, and null and $patch: delete remove. A patch that reaches outside the namespace is refused.
    Default: no patch."""
    suspend: bool = False
    """Whether all pods are stopped. Everything else is kept."""


def named_secrets(spec: Spec) -> frozenset[str]:
    """Returns the Secrets that fields of the resource name for its pods."""
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
    """Returns the resource's `spec` as a value. Raises InvalidSpec, which names every field that is wrong."""
    try:
        return Spec.model_validate(raw)
    except ValidationError as error:
        raise InvalidSpec([problem(detail) for detail in error.errors(include_url=False)]) from error

"""The operator's metrics, served at :9500/metrics. Labels are bounded: kinds, verbs, outcomes; never names of resources."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry()

RECONCILES: Final = Counter(
    "alise_operator_reconciles_total",
    "Reconciles by outcome: ok, spec_error, apply_error, cluster_error, overtime, bug.",
    ["outcome"],
    registry=REGISTRY,
)
RECONCILE_SECONDS: Final = Histogram(
    "alise_operator_reconcile_seconds",
    "Duration of a reconcile.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
    registry=REGISTRY,
)
QUEUE_LENGTH: Final = Gauge("alise_operator_queue_length", "Resources that wait to be reconciled.", registry=REGISTRY)
HELD: Final = Counter(
    "alise_operator_held_reconciles_total", "Reconciles that were put off because their resource changes all the time.", registry=REGISTRY
)
RESOURCES: Final = Gauge("alise_operator_resources", "Resources by the status of their Ready condition.", ["ready"], registry=REGISTRY)
APPLIED: Final = Counter("alise_operator_children_applied_total", "Children sent to the cluster.", ["kind"], registry=REGISTRY)
PRUNED: Final = Counter("alise_operator_children_pruned_total", "Children deleted because no longer wanted.", ["kind"], registry=REGISTRY)
STATUS_WRITES: Final = Counter("alise_operator_status_writes_total", "Statuses written because something changed.", registry=REGISTRY)
EVENTS: Final = Counter("alise_operator_events_total", "Events posted, by type.", ["type"], registry=REGISTRY)
POLLS: Final = Counter(
    "alise_operator_pod_polls_total", "Polls of pods' status by outcome: ok, unreachable, unreadable.", ["outcome"], registry=REGISTRY
)
API_REQUESTS: Final = Counter(
    "alise_operator_api_requests_total", "Requests to the API server by verb and code class.", ["verb", "code"], registry=REGISTRY
)
ACTIVE: Final = Gauge(
    "alise_operator_active", "1: this operator acts on resources; 0: another one does, and this one waits for its lease.", registry=REGISTRY
)
BUILD_INFO: Final = Gauge("alise_operator_build_info", "Always 1; what runs.", ["version", "contract_version"], registry=REGISTRY)

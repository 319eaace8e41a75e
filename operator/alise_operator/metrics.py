"""The metrics of the operator, which server.py serves at /metrics. Any module counts; labels are bounded and never name an AliseEngine."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry()

RECONCILES: Final = Counter(
    "alise_operator_reconciles_total",
    "Reconciles, by outcome: ok, spec_error, apply_error, cluster_error, overtime, bug.",
    ["outcome"],
    registry=REGISTRY,
)
RECONCILE_SECONDS: Final = Histogram(
    "alise_operator_reconcile_seconds",
    "Duration of a reconcile, in seconds.",
    buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30),
    registry=REGISTRY,
)
QUEUE_LENGTH: Final = Gauge("alise_operator_queue_length", "AliseEngines that wait to be reconciled.", registry=REGISTRY)
HELD: Final = Counter(
    "alise_operator_held_reconciles_total",
    "Reconciles that were delayed because the AliseEngine changes too often.",
    registry=REGISTRY,
)
RESOURCES: Final = Gauge("alise_operator_resources", "AliseEngines, by the status of their condition Ready.", ["ready"], registry=REGISTRY)
APPLIED: Final = Counter("alise_operator_children_applied_total", "Children applied to the cluster, by kind.", ["kind"], registry=REGISTRY)
PRUNED: Final = Counter(
    "alise_operator_children_pruned_total",
    "Children deleted because they are no longer wanted, by kind.",
    ["kind"],
    registry=REGISTRY,
)
STATUS_WRITES: Final = Counter("alise_operator_status_writes_total", "Statuses written because something has changed.", registry=REGISTRY)
EVENTS: Final = Counter("alise_operator_events_total", "Events posted, by type.", ["type"], registry=REGISTRY)
POLLS: Final = Counter(
    "alise_operator_pod_polls_total",
    "Polls of the status of pods, by outcome: ok, unreachable, unreadable.",
    ["outcome"],
    registry=REGISTRY,
)
API_REQUESTS: Final = Counter(
    "alise_operator_api_requests_total",
    "Requests to the API server, by verb and class of status code.",
    ["verb", "code"],
    registry=REGISTRY,
)
ACTIVE: Final = Gauge(
    "alise_operator_active",
    "1 if this operator holds the lease and acts, 0 if it waits for the lease of another operator.",
    registry=REGISTRY,
)
BUILD_INFO: Final = Gauge(
    "alise_operator_build_info",
    "Always 1. The labels state the version of the operator and of the contract.",
    ["version", "contract_version"],
    registry=REGISTRY,
)

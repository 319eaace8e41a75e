"""The metrics of the operator, which server.py serves at /metrics. Any module counts.

Labels are bounded. Four metrics name AliseEngines, by the labels that their pods' metrics have: a few series for each, as it is reported.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from alise_contract.names import CONTRACT_VERSION
from alise_contract.release import BUILD_INFO, BUILD_INFO_HELP, BUILD_INFO_LABELS, release

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

OUTCOMES: Final = ("ok", "spec_error", "apply_error", "cluster_error", "overtime", "bug")
POLL_OUTCOMES: Final = ("ok", "unreachable", "unreadable")
EVENT_TYPES: Final = ("Normal", "Warning")
SCALE_DIRECTIONS: Final = ("up", "down")

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
SCALINGS: Final = Counter(
    "alise_operator_scalings_total",
    "Changes of the number of replicas by the operator's autoscaler, by direction: up, down.",
    ["direction"],
    registry=REGISTRY,
)
BACKLOG: Final = Gauge(
    "alise_operator_backlog_seconds",
    "Predicted time that one pod would need for all requests of an AliseEngine, summed over its pods. Absent while it is not known.",
    ["namespace", "alise_engine"],
    registry=REGISTRY,
)
OFFERED_LOAD: Final = Gauge(
    "alise_operator_offered_load_pods",
    "Pods that the predicted work of the last minute's arrivals keeps busy, summed over the pods of an AliseEngine. Absent while it is not "
    "known.",
    ["namespace", "alise_engine"],
    registry=REGISTRY,
)
ACTIVE: Final = Gauge(
    "alise_operator_active",
    "1 if this operator holds the lease and acts, 0 if it waits for the lease of another operator.",
    registry=REGISTRY,
)
Gauge(BUILD_INFO, BUILD_INFO_HELP, BUILD_INFO_LABELS, registry=REGISTRY).labels("operator", release(), str(CONTRACT_VERSION)).set(1)
# Series exist from the start, so that a rate over them includes the first increment.
for _outcome in OUTCOMES:
    RECONCILES.labels(_outcome)
for _outcome in POLL_OUTCOMES:
    POLLS.labels(_outcome)
for _type in EVENT_TYPES:
    EVENTS.labels(_type)
for _direction in SCALE_DIRECTIONS:
    SCALINGS.labels(_direction)


def publish_work(namespace: str, name: str, backlog_seconds: float, offered_load: float) -> None:
    """Sets the predicted work of an AliseEngine."""
    BACKLOG.labels(namespace, name).set(backlog_seconds)
    OFFERED_LOAD.labels(namespace, name).set(offered_load)


def forget_work(namespace: str, name: str) -> None:
    """Removes the predicted work of an AliseEngine that is gone, or whose work is not known."""
    for gauge in (BACKLOG, OFFERED_LOAD):
        with suppress(KeyError):
            gauge.remove(namespace, name)


@dataclass(frozen=True, slots=True)
class Reported:
    """What the operator last reported on an AliseEngine: (condition, status, reason), and its number of pods by state."""

    conditions: tuple[tuple[str, str, str], ...]
    pods: Mapping[str, int] = field(default_factory=dict)


class Resources(Collector):
    """The AliseEngines as they were last reported. A scrape in another thread sees each of them whole."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._reported: dict[tuple[str, str], Reported] = {}
        registry.register(self)

    def report(self, namespace: str, name: str, status: Mapping[str, Any], pods: Mapping[str, int]) -> None:
        """Notes the status of an AliseEngine, and its number of pods by state."""
        conditions = tuple((one["type"], one["status"], one["reason"]) for one in status["conditions"])
        self._reported[(namespace, name)] = Reported(conditions, pods)

    def forget(self, namespace: str, name: str) -> None:
        self._reported.pop((namespace, name), None)

    def collect(self) -> Iterator[Metric]:
        conditions = GaugeMetricFamily(
            "alise_operator_resource_condition",
            "1 for the present status and reason of each condition of an AliseEngine",
            labels=["namespace", "alise_engine", "condition", "status", "reason"],
        )
        pods = GaugeMetricFamily(
            "alise_operator_resource_pods",
            "Pods of an AliseEngine: desired, created from the newest spec (updated), and ready",
            labels=["namespace", "alise_engine", "state"],
        )
        for (namespace, name), reported in list(self._reported.items()):
            for condition in reported.conditions:
                conditions.add_metric([namespace, name, *condition], 1)
            for state, count in reported.pods.items():
                pods.add_metric([namespace, name, state], count)
        yield conditions
        yield pods


RESOURCES: Final = Resources(REGISTRY)

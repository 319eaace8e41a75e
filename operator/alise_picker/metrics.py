"""The metrics of the picker, in memory. `__main__.py` creates them, picker.py counts, web.py serves them at /metrics. Bounded labels."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

DECISIONS: Final = ("least_wait", "home", "round_robin", "shed", "no_endpoint", "hold_full", "hold_expired")
PREDICTIONS: Final = ("ok", "not_needed", "not_described", "no_room", "failed")
STATES: Final = ("fresh", "stale", "draining")


class Metrics:
    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self.decisions = Counter(
            "alise_picker_decisions_total",
            "Requests by decision: least_wait and home (the conversation's replica) by fresh figures, round_robin without, shed (429), and "
            "without a ready replica no_endpoint, hold_full or hold_expired (503).",
            ["decision"],
            registry=self.registry,
        )
        self.decision_seconds = Histogram(
            "alise_picker_decision_seconds",
            "Time for which a request was in the picker, without the time for which it was held.",
            buckets=(0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
            registry=self.registry,
        )
        self.predictions = Counter(
            "alise_picker_predictions_total",
            "Predictions of a request's length: ok, not_needed (a replica has a free slot), not_described (a route or body that says "
            "nothing), no_room (bodies of other requests take up the picker's memory), failed (no replica answered in time).",
            ["outcome"],
            registry=self.registry,
        )
        self.waiting = Gauge("alise_picker_waiting_requests", "Requests that are held because no replica is ready.", registry=self.registry)
        self.free_slots = Gauge(
            "alise_picker_free_slots", "Slots of replicas with fresh figures that no sequence takes or waits for.", registry=self.registry
        )
        self.replicas = Gauge(
            "alise_picker_replicas",
            "Ready replicas by state of their figures: fresh, stale or draining.",
            ["state"],
            registry=self.registry,
        )
        for decision in DECISIONS:
            self.decisions.labels(decision)
        for outcome in PREDICTIONS:
            self.predictions.labels(outcome)
        for state in STATES:
            self.replicas.labels(state)

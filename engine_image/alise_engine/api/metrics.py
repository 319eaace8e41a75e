"""Declares the engine's metrics, on vLLM's own `/metrics` (prometheus_client's default registry).

Labels are bounded: outcomes, reasons, causes, codecs, phases. EngineCore's counters arrive as totals with every poll and are exported
unchanged (`_CoreCollector`), so a missed poll loses nothing. The other files of `api` count on it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from alise_contract.names import CONTRACT_VERSION, DEFAULT_CLASS
from alise_contract.release import BUILD_INFO, BUILD_INFO_HELP, BUILD_INFO_LABELS, release

from ..wire.calls import Counters
from ..wire.terms import PHASES
from .admission import FailOpenReason
from .breaker import Phase as BreakerPhase
from .kv_room import KvRoom
from .outcomes import OUTCOMES as REQUEST_OUTCOMES

ADMIT_SECONDS_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
OUTCOMES: Final = ("admitted", "rejected", "failed_open")
PASSED_THROUGH: Final = ("not_json", "not_described")
APPLY_OUTCOMES: Final = ("applied", "stale_session", "stale_sequence", "version", "invalid", "failed")


@dataclass(slots=True)
class CoreView:
    """The newest values from EngineCore; the collector reads them at every scrape."""

    counters: Counters = field(default_factory=Counters)
    host_limit_bytes: int = 0
    # Requests that may run at the same time, and the model's name in answers. 0 and empty: not known yet.
    slots: int = 0
    model: str = ""
    requests_by_phase: Mapping[str, int] = field(default_factory=dict)
    # None: not known yet.
    kv: KvRoom | None = None


class Metrics:
    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.core = CoreView()
        registry.register(_CoreCollector(self.core))
        build = Gauge(BUILD_INFO, BUILD_INFO_HELP, BUILD_INFO_LABELS, registry=registry)
        build.labels("engine", release(), str(CONTRACT_VERSION)).set(1)
        self.admissions = _labelled(
            Counter("alise_engine_admissions", "Requests by admission outcome", ["outcome"], registry=registry), OUTCOMES
        )
        self.failed_open = _labelled(
            Counter(
                "alise_engine_failed_open",
                "Requests admitted at the neutral level because the scheduler gave no answer, by reason",
                ["reason"],
                registry=registry,
            ),
            [reason.value for reason in FailOpenReason],
        )
        self._requests = Counter(
            "alise_engine_http_requests",
            "Requests that generate, by class and by their outcome before the engine; admitted ones count when their answer has ended",
            ["class", "outcome"],
            registry=registry,
        )
        self._classes: frozenset[str] = frozenset()
        self.set_classes(frozenset())
        self.pending_requests = Gauge("alise_engine_pending_requests", "Requests that wait for their first step", registry=registry)
        self.passed_through = _labelled(
            Counter(
                "alise_engine_passed_through", "Requests that were not ranked by their own length, by reason", ["reason"], registry=registry
            ),
            PASSED_THROUGH,
        )
        self.admit_seconds = Histogram(
            "alise_engine_admit_seconds",
            "Duration of Admit calls to the scheduler, failed ones included",
            buckets=ADMIT_SECONDS_BUCKETS,
            registry=registry,
        )
        self.poll_failures = Counter(
            "alise_engine_poll_failures",
            "Polls of EngineCore that failed because of a bug in alise; the next poll starts from a snapshot",
            registry=registry,
        )
        self.applies = _labelled(
            Counter("alise_engine_applies", "Plans received from the scheduler, by outcome", ["outcome"], registry=registry), APPLY_OUTCOMES
        )
        self._breaker_phase: BreakerPhase | None = None
        self.breaker = Gauge(
            "alise_engine_breaker_state",
            "State of the circuit breaker before the scheduler: 1 for the current state",
            ["state"],
            registry=registry,
        )
        self.open_requests = Gauge("alise_engine_open_requests", "Open HTTP requests", registry=registry)
        self.draining = Gauge("alise_engine_draining", "1 while the engine drains", registry=registry)
        self.plan_fresh = Gauge("alise_engine_plan_fresh", "1 while the last plan is fresh and carried out", registry=registry)
        self.sidecar_connected = Gauge(
            "alise_engine_sidecar_connected", "1 while the scheduler is connected (a Watch session is open)", registry=registry
        )

    def set_classes(self, classes: frozenset[str]) -> None:
        """Sets the known classes; a request of any other class is counted under the default class."""
        self._classes = classes
        for klass in (DEFAULT_CLASS, *sorted(classes)):
            for outcome in REQUEST_OUTCOMES:
                self._requests.labels(klass, outcome.name)

    def seen(self, klass: str, outcome: str) -> None:
        """Counts a request."""
        self._requests.labels(klass if klass in self._classes else DEFAULT_CLASS, outcome).inc()

    def set_breaker(self, phase: BreakerPhase) -> None:
        if phase is not self._breaker_phase:
            self._breaker_phase = phase
            for each in BreakerPhase:
                self.breaker.labels(each.value).set(each is phase)


def _labelled(counter: Counter, values: list[str] | tuple[str, ...]) -> Counter:
    """Creates every label at the start: a rate over a series that appears later misses its first event."""
    for value in values:
        counter.labels(value)
    return counter


class _CoreCollector(Collector):
    def __init__(self, view: CoreView) -> None:
        self._view = view

    def collect(self) -> Iterator[Metric]:
        now = self._view.counters
        yield _family(
            "alise_engine_preemptions",
            "Preempted requests, by cause",
            "cause",
            {"rank": now.preemptions_rank, "memory": now.preemptions_memory},
        )
        for name, text, total in (
            ("saves", "KV caches saved to the host", now.saves),
            ("saved_bytes", "Bytes saved to the host", now.saved_bytes),
            ("restores", "KV caches restored from the host", now.restores),
            ("restored_tokens", "Tokens whose KV came back from the host", now.restored_tokens),
            ("recomputes", "Preempted requests whose KV was recomputed", now.recomputes),
            ("recomputed_tokens", "Tokens recomputed after preemption", now.recomputed_tokens),
            ("host_evictions", "Host copies dropped because the store was full", now.host_evictions),
            ("exact_resumes", "Resumed requests whose first step scheduled exactly one token", now.exact_resumes),
            ("prefetches", "Preempted requests whose KV was restored ahead of their turn", now.prefetches),
            ("prefetches_revoked", "Prefetches whose blocks a better-ranked or running request needed first", now.prefetches_revoked),
            ("steps", "Engine steps", now.steps),
            ("computed_tokens", "Tokens of prompts and answers computed, recomputed ones included", now.computed_tokens),
        ):
            yield CounterMetricFamily(f"alise_engine_{name}", text, value=total)
        for name, text, spent_us in (
            ("save_seconds", "Time that the slowest worker spent copying KV to the host", now.save_us),
            ("restore_seconds", "Time that the slowest worker spent copying KV back, prefetches included", now.restore_us),
            (
                "recompute_seconds",
                "Duration of the steps that recomputed a preempted request, counted once for each such request",
                now.recompute_us,
            ),
            (
                "kv_full_seconds",
                "Duration of the steps in which a request had a slot but no KV blocks, or was preempted because another needed its blocks",
                now.kv_full_us,
            ),
            ("host_eviction_seconds", "Time that the slowest worker spent freeing evicted copies", now.host_eviction_us),
        ):
            yield CounterMetricFamily(f"alise_engine_{name}", text, value=spent_us / 1e6)
        yield _gauges(
            "alise_engine_host_bytes", "Bytes in the host store", "codec", {"raw": now.host_raw_bytes, "int8": now.host_int8_bytes}
        )
        yield GaugeMetricFamily("alise_engine_host_limit_bytes", "Bytes the host store may hold", value=self._view.host_limit_bytes)
        room = self._view.kv or KvRoom(0, 0, 0)
        yield GaugeMetricFamily("alise_engine_kv_limit_tokens", "Tokens that the KV cache on the device holds", value=room.limit_tokens)
        yield GaugeMetricFamily("alise_engine_kv_used_tokens", "Tokens whose KV blocks on the device are in use", value=room.used_tokens)
        yield GaugeMetricFamily("alise_engine_slots", "Requests that may run at the same time (max_num_seqs)", value=self._view.slots)
        yield _gauges(
            "alise_engine_model_info",
            "1 for the model that the engine serves, by its first served name",
            "model",
            {self._view.model: 1} if self._view.model else {},
        )
        phases = {phase: self._view.requests_by_phase.get(phase, 0) for phase in PHASES}
        yield _gauges("alise_engine_requests", "Engine requests by phase", "phase", phases)


def _family(name: str, text: str, label: str, totals: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, total in totals.items():
        family.add_metric([value], total)
    return family


def _gauges(name: str, text: str, label: str, values: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family

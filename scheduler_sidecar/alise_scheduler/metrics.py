"""All metrics of the sidecar. Labels are bounded: most values are listed here, the phases in core/reports.py, and classes in the settings.

Any client that may scrape sees these metrics, so what a single request was at its admission and its end is held back until there are BATCH
of them, and then published together. Counts of events (admissions, ends) are not held back, nor are the gauges of the queue, which are sums
over all requests that have not ended. `run.py` creates them, `rpc/http.py` serves them, and docs/reference/metrics.md is generated from
them.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from alise_contract.names import CONTRACT_VERSION, DEFAULT_CLASS
from alise_contract.release import BUILD_INFO, BUILD_INFO_HELP, BUILD_INFO_LABELS, release

from .core.reports import Phase

_FAST: Final = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_COUNTS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
_RATIOS: Final = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)
_SLOWDOWNS: Final = (1.5, 2, 3, 5, 10, 20, 50, 100)

ADMIT_OUTCOMES: Final = ("admitted", "wait_too_long", "objective", "draining", "invalid", "version", "inbox_full", "gave_up", "error")
APPLY_FAILURES: Final = ("unavailable", "session")
ENDINGS: Final = ("stop", "length", "abort", "error")
TRAININGS: Final = ("trained", "failed")
ENCODINGS: Final = ("encoded", "late", "busy", "failed")
BACKGROUND_TASKS: Final = ("apply", "archive", "encoder", "history", "learner", "predictor")
# The number of requests whose values are published together.
BATCH: Final = 16
COST_TERMS: Final = ("step", "prefill_token", "decode_request", "context_token")


class BatchedHistogram:
    """A histogram that publishes its observations BATCH at a time. A scrape in another thread sees either all of a batch or none of it.

    `labels` are its labels with all values of each. Every series has its own batches: a class of one client would otherwise show what that
    one got.
    """

    def __init__(
        self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry, **labels: Iterable[str]
    ) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = (*map(float, buckets), float("inf"))
        self._labels = list(labels)
        series = list(itertools.product(*(sorted(values) for values in labels.values())))
        self._waiting: dict[tuple[str, ...], list[float]] = {one: [] for one in series}
        # By the values of the labels: cumulative counts by bucket, and the sum. Replaced as a whole, never changed in place.
        self._published: dict[tuple[str, ...], tuple[tuple[int, ...], float]] = dict.fromkeys(series, ((0,) * len(self._bounds), 0.0))
        registry.register(self)

    def observe(self, value: float, *labels: str) -> None:
        """Adds a value to the series with these values of the labels, in their order."""
        waiting = self._waiting[labels]
        waiting.append(value)
        if len(waiting) >= BATCH:
            counts, total = self._published[labels]
            added = (sum(value <= bound for value in waiting) for bound in self._bounds)
            self._published[labels] = tuple(count + more for count, more in zip(counts, added, strict=True)), total + sum(waiting)
            waiting.clear()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The published values. The registry calls it at a scrape."""
        names = [("+Inf" if bound == float("inf") else str(bound)) for bound in self._bounds]
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, (counts, total) in self._published.items():
            buckets = [(name, float(count)) for name, count in zip(names, counts, strict=True)]
            family.add_metric(list(labels), buckets, total)
        yield family


class Rise:
    """Adds to a counter the increase of a running total since the last call."""

    def __init__(self, add: Callable[[float], None]) -> None:
        self._add = add
        self._before = 0

    def __call__(self, total: int) -> None:
        if total > self._before:
            self._add(total - self._before)
        self._before = total


class Metrics:
    """All metrics, in a registry of their own. `classes` are the names of the request classes in the settings."""

    def __init__(self, classes: Iterable[str] = ()) -> None:
        self.registry = registry = CollectorRegistry()
        self._classes = frozenset(classes) | {DEFAULT_CLASS}
        by_class = {"class": self._classes}
        # (predicted, real) tokens of answers that have not been published yet.
        self._answers: list[tuple[float, int]] = []
        self._admitted = 0
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        build = Gauge(BUILD_INFO, BUILD_INFO_HELP, BUILD_INFO_LABELS, registry=registry)
        build.labels("scheduler", release(), str(CONTRACT_VERSION)).set(1)
        self.admits = Counter("alise_scheduler_admits_total", "Admission requests by outcome", ["outcome", "class"], registry=registry)
        self.withdrawn = Counter(
            "alise_scheduler_jobs_withdrawn_total", "Admitted jobs that were withdrawn before they reached the engine", registry=registry
        )
        self.admit_seconds = BatchedHistogram("alise_scheduler_admit_seconds", "Time to answer an admission request", _FAST, registry)
        self.length_ratio = BatchedHistogram(
            "alise_scheduler_length_ratio", "Predicted median length of an answer divided by its real length", _RATIOS, registry
        )
        self.length_log_error = Gauge(
            "alise_scheduler_length_log_error",
            "Smoothed |ln(predicted / real)| of answer lengths; 0.69 is a factor of two",
            registry=registry,
        )
        self.tokens = Counter(
            "alise_scheduler_answer_tokens_total",
            "Output tokens of finished answers, as predicted and as generated",
            ["kind"],
            registry=registry,
        )
        self.ended = Counter(
            "alise_scheduler_requests_ended_total", "Finished engine requests by reason", ["reason", "class"], registry=registry
        )
        self.preempted = Counter(
            "alise_scheduler_preempted_requests_total",
            "Finished engine requests that were preempted at least once",
            ["class"],
            registry=registry,
        )
        self.ttft_seconds = BatchedHistogram(
            "alise_scheduler_ttft_seconds", "Time to first token, as reported by the engine", _WAITS, registry, **by_class
        )
        self.wait_seconds = BatchedHistogram(
            "alise_scheduler_wait_seconds",
            "Time that a finished request did not run: before its first token and while it was preempted",
            _WAITS,
            registry,
            **by_class,
        )
        self.slowdown = BatchedHistogram(
            "alise_scheduler_slowdown",
            "Time of a complete answer divided by the time that the step-time model predicts for it on an idle engine",
            _SLOWDOWNS,
            registry,
            **by_class,
        )
        self.jobs = Gauge("alise_scheduler_jobs", "Active jobs by phase", ["phase", "class"], registry=registry)
        self.expired = Counter(
            "alise_scheduler_jobs_expired_total", "Admitted jobs that did not reach the engine in time", registry=registry
        )
        self.plan_seconds = Histogram("alise_scheduler_plan_seconds", "Time to make a plan", buckets=_FAST, registry=registry)
        self.plan_ranks = Histogram(
            "alise_scheduler_plan_ranks", "Number of ranks in a plan that was sent", buckets=_COUNTS, registry=registry
        )
        self.applies = Counter("alise_scheduler_applies_total", "Plans that the engine applied", registry=registry)
        self.apply_failures = Counter(
            "alise_scheduler_apply_failures_total", "Plans that the engine did not apply, by reason", ["reason"], registry=registry
        )
        self.apply_unknown = Counter(
            "alise_scheduler_apply_unknown_jobs_total", "Jobs in plans that the engine did not know", registry=registry
        )
        self.connected = Gauge("alise_scheduler_engine_connected", "1 while a Watch session with the engine is open", registry=registry)
        self.reconnects = Counter("alise_scheduler_watch_reconnects_total", "Attempts to open a Watch session again", registry=registry)
        self.engine_boots = Counter(
            "alise_scheduler_engine_boots_total", "Engine processes that this sidecar has been connected to", registry=registry
        )
        self.refused_reports = Counter(
            "alise_scheduler_refused_reports_total", "Reports from the engine with an impossible change of phase", registry=registry
        )
        self.ewt_seconds = Gauge(
            "alise_scheduler_expected_wait_seconds", "Expected wait of the active jobs: mean and maximum", ["stat"], registry=registry
        )
        self.backlog_seconds = Gauge("alise_scheduler_backlog_seconds", "Predicted time to finish all active jobs", registry=registry)
        self.offered_load = Gauge(
            "alise_scheduler_offered_load_ratio",
            "How much of this pod admitted requests keep busy: predicted seconds of the whole pod for the requests of a second. Above 1 "
            "the backlog grows. It is the mean of the last minute, of the time since the scheduler started (at least 10 s), or of the "
            "newest 1,024 requests, whichever time is shortest",
            registry=registry,
        )
        self.host_bytes = Gauge(
            "alise_scheduler_host_bytes", "Bytes of KV in host memory: planned, used, and the budget", ["kind"], registry=registry
        )
        self.rank_preemption = Gauge(
            "alise_scheduler_rank_preemption",
            "1 while better-ranked requests preempt for slots and KV memory; 0 while slots come free soon without that (only requests over "
            "their tenant's share give way then), and with scheduling.preemption: false",
            registry=registry,
        )
        self.neutral_seconds = Gauge("alise_scheduler_neutral_seconds", "Work of the typical job, which has level 0", registry=registry)
        self.draining = Gauge("alise_scheduler_draining", "1 while the engine drains", registry=registry)
        self.restarts = Counter("alise_scheduler_restarts_total", "Restarts of this process by the supervisor", registry=registry)
        self.cost_seconds = Gauge(
            "alise_scheduler_step_model_seconds", "Fitted coefficients of the step-time model", ["term"], registry=registry
        )
        self.cost_error = Gauge(
            "alise_scheduler_step_model_error_ratio", "Smoothed relative error of predicted step times", registry=registry
        )
        self.cost_pace = Gauge("alise_scheduler_step_model_pace", "Present time of a step divided by its usual time", registry=registry)
        self.cost_samples = Gauge(
            "alise_scheduler_step_model_samples", "Steps that the step-time model has learned from", registry=registry
        )
        self.head_version = Gauge(
            "alise_scheduler_head_version", "Version of the prediction head in use; 0 if there is none yet", registry=registry
        )
        self.head_rows = Gauge("alise_scheduler_head_rows", "Finished requests that the head in use was trained on", registry=registry)
        self.trainings = Counter(
            "alise_scheduler_trainings_total", "Trainings of the prediction head by outcome", ["outcome"], registry=registry
        )
        self.rollbacks = Counter(
            "alise_scheduler_head_rollbacks_total", "New heads that were rolled back because they predicted worse", registry=registry
        )
        self.encoder_ready = Gauge(
            "alise_scheduler_encoder_ready", "1 if prompts are embedded; 0 if only features are used", registry=registry
        )
        self.prior_ready = Gauge("alise_scheduler_prior_ready", "1 once the length prior for new prompts is in use", registry=registry)
        self.encodings = Counter("alise_scheduler_encodings_total", "Prompts to embed, by outcome", ["outcome"], registry=registry)
        self.history_up = Gauge("alise_scheduler_history_up", "1 while this store of the history works", ["store"], registry=registry)
        self.history_dropped = Counter(
            "alise_scheduler_history_dropped_total",
            "Finished requests that were dropped because a store was down for too long",
            ["store"],
            registry=registry,
        )
        self.history_recovered = Gauge(
            "alise_scheduler_history_recovered", "1 if an unreadable history file was moved aside at the start", registry=registry
        )
        self.background_failures = Counter(
            "alise_scheduler_background_failures_total",
            "Unexpected errors in background tasks, which continue without the part that failed",
            ["task"],
            registry=registry,
        )
        # Series exist from the start, so that a rate over them includes the first increment.
        for outcome in ADMIT_OUTCOMES:
            for name in sorted(self._classes):
                self.admits.labels(outcome, name)
        for task in BACKGROUND_TASKS:
            self.background_failures.labels(task)
        for reason in APPLY_FAILURES:
            self.apply_failures.labels(reason)
        for name in sorted(self._classes):
            self.preempted.labels(name)
            for ending in ENDINGS:
                self.ended.labels(ending, name)
            for phase in Phase:
                self.jobs.labels(phase.name.lower(), name)
        for kind in ("predicted", "real"):
            self.tokens.labels(kind)
        for outcome in TRAININGS:
            self.trainings.labels(outcome)
        for outcome in ENCODINGS:
            self.encodings.labels(outcome)

    @property
    def classes(self) -> frozenset[str]:
        """The values of the label `class`."""
        return self._classes

    def class_of(self, objective: str) -> str:
        """The class that a request is counted under: its own if it is in the settings, else the default one."""
        return objective if objective in self._classes else DEFAULT_CLASS

    def count_admit(self, outcome: str, objective: str = "") -> None:
        """Counts an admission request by outcome and class."""
        self.admits.labels(outcome, self.class_of(objective)).inc()

    def answered(self, predicted_median: float, predicted_mean: float, tokens: int, smoothed_log_error: float) -> None:
        """Counts an answer that the model ended by itself after `tokens` tokens."""
        self.length_ratio.observe(predicted_median / tokens)
        self._answers.append((predicted_mean, tokens))
        if len(self._answers) >= BATCH:
            self.tokens.labels("predicted").inc(sum(predicted for predicted, _ in self._answers))
            self.tokens.labels("real").inc(sum(real for _, real in self._answers))
            self.length_log_error.set(smoothed_log_error)
            self._answers.clear()

    def admitted(self, neutral_seconds: float) -> None:
        """Counts an admission, after which the typical job's work is `neutral_seconds`. It depends on the request's predicted length."""
        self._admitted += 1
        if self._admitted % BATCH == 0:
            self.neutral_seconds.set(neutral_seconds)

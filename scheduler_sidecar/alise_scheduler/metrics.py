"""The metrics of this room, all of them. Labels are bounded: outcomes, phases and terms listed here."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from .core.reports import Phase

_FAST: Final = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
_COUNTS: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
_RATIOS: Final = (0.1, 0.2, 0.33, 0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0)
_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)

ADMIT_OUTCOMES: Final = ("admitted", "overloaded", "wait_too_long", "draining", "invalid", "version", "inbox_full", "gave_up")
APPLY_FAILURES: Final = ("unavailable", "session")
ENDINGS: Final = ("stop", "length", "abort", "error")
TRAININGS: Final = ("trained", "failed")
ENCODINGS: Final = ("encoded", "late", "busy", "failed")
COST_TERMS: Final = ("step", "prefill_token", "decode_request", "context_token")


class Metrics:
    """All metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.admits = Counter("alise_scheduler_admits_total", "Admission requests by outcome", ["outcome"], registry=registry)
        self.admit_seconds = Histogram("alise_scheduler_admit_seconds", "Time to answer an Admit call", buckets=_FAST, registry=registry)
        self.length_ratio = Histogram(
            "alise_scheduler_length_ratio",
            "Predicted median length over the real one",
            buckets=_RATIOS,
            registry=registry,
        )
        self.length_log_error = Gauge(
            "alise_scheduler_length_log_error", "Smoothed |ln(predicted / real)| of lengths; 0.69 is a factor of two", registry=registry
        )
        self.tokens = Counter("alise_scheduler_answer_tokens_total", "Output tokens of answers that ended", ["kind"], registry=registry)
        self.ended = Counter("alise_scheduler_requests_ended_total", "Engine requests that ended", ["reason"], registry=registry)
        self.ttft_seconds = Histogram(
            "alise_scheduler_ttft_seconds", "Time to first token, from the engine", buckets=_WAITS, registry=registry
        )
        self.jobs = Gauge("alise_scheduler_jobs", "Live jobs by phase", ["phase"], registry=registry)
        self.expired = Counter("alise_scheduler_jobs_expired_total", "Admitted jobs that never reached the engine", registry=registry)
        self.plan_seconds = Histogram("alise_scheduler_plan_seconds", "Time to decide", buckets=_FAST, registry=registry)
        self.plan_ranks = Histogram("alise_scheduler_plan_ranks", "Ranks in a plan that was sent", buckets=_COUNTS, registry=registry)
        self.applies = Counter("alise_scheduler_applies_total", "Plans the engine took", registry=registry)
        self.apply_failures = Counter("alise_scheduler_apply_failures_total", "Plans it did not take", ["reason"], registry=registry)
        self.apply_unknown = Counter("alise_scheduler_apply_unknown_jobs_total", "Planned jobs the engine did not have", registry=registry)
        self.connected = Gauge("alise_scheduler_engine_connected", "A Watch session is open", registry=registry)
        self.reconnects = Counter("alise_scheduler_watch_reconnects_total", "Attempts to open Watch again", registry=registry)
        self.engine_boots = Counter("alise_scheduler_engine_boots_total", "Engine processes seen", registry=registry)
        self.refused_reports = Counter("alise_scheduler_refused_reports_total", "Reports of impossible phase changes", registry=registry)
        self.ewt_seconds = Gauge("alise_scheduler_expected_wait_seconds", "Expected wait over live jobs", ["stat"], registry=registry)
        self.backlog_seconds = Gauge("alise_scheduler_backlog_seconds", "Predicted time to clear all live jobs", registry=registry)
        self.host_bytes = Gauge("alise_scheduler_host_bytes", "Host memory: planned, used, budget", ["kind"], registry=registry)
        self.neutral_seconds = Gauge("alise_scheduler_neutral_seconds", "Work of the typical job, level 0", registry=registry)
        self.draining = Gauge("alise_scheduler_draining", "The engine is draining", registry=registry)
        self.restarts = Gauge("alise_scheduler_restarts", "Times the supervisor started this process again", registry=registry)
        self.cost_seconds = Gauge("alise_scheduler_step_model_seconds", "Fitted coefficients of a step", ["term"], registry=registry)
        self.cost_error = Gauge("alise_scheduler_step_model_error_ratio", "Smoothed relative error of predicted steps", registry=registry)
        self.cost_pace = Gauge("alise_scheduler_step_model_pace", "Time of a step now over its usual time", registry=registry)
        self.cost_samples = Gauge("alise_scheduler_step_model_samples", "Steps the model learned from", registry=registry)
        self.head_version = Gauge("alise_scheduler_head_version", "Version of the learned head in use; 0: none yet", registry=registry)
        self.head_rows = Gauge("alise_scheduler_head_rows", "Finished requests the head in use learned from", registry=registry)
        self.trainings = Counter("alise_scheduler_trainings_total", "Trainings of the head", ["outcome"], registry=registry)
        self.rollbacks = Gauge("alise_scheduler_head_rollbacks", "New heads that were worse and went, since the start", registry=registry)
        self.encoder_ready = Gauge("alise_scheduler_encoder_ready", "1: prompts are embedded; 0: features only", registry=registry)
        self.prior_ready = Gauge("alise_scheduler_prior_ready", "1: lengths of kinds of prompts are known beforehand", registry=registry)
        self.encodings = Counter("alise_scheduler_encodings_total", "Prompts to embed by outcome", ["outcome"], registry=registry)
        self.history_up = Gauge("alise_scheduler_history_up", "A store of the history works", ["store"], registry=registry)
        self.history_dropped = Gauge(
            "alise_scheduler_history_dropped", "Finished requests a store was down for too long to take", ["store"], registry=registry
        )
        self.history_recovered = Gauge("alise_scheduler_history_recovered", "1: a bad history file was moved aside", registry=registry)
        # Series exist from the start, so that a rate over them is never missing its first increment.
        for outcome in ADMIT_OUTCOMES:
            self.admits.labels(outcome)
        for reason in APPLY_FAILURES:
            self.apply_failures.labels(reason)
        for ending in ENDINGS:
            self.ended.labels(ending)
        for kind in ("predicted", "real"):
            self.tokens.labels(kind)
        for outcome in TRAININGS:
            self.trainings.labels(outcome)
        for outcome in ENCODINGS:
            self.encodings.labels(outcome)
        for phase in Phase:
            self.jobs.labels(phase.name.lower())

"""Publishes decisions and finished requests as metrics.

`state.py` calls it after each decision and for each request that ended. It changes metrics and nothing else.
"""

from collections.abc import Mapping
from typing import Final

from .core.book import Ended
from .core.decide import Decision
from .core.exec_time import CostModel
from .core.reports import FinishReason, Phase
from .metrics import COST_TERMS, Metrics
from .predictor.models.buckets import log_error

# The least share of the newest answer in the smoothed error.
_ERROR_RATE: Final = 0.05


def publish_decision(metrics: Metrics, decision: Decision, jobs: Mapping[Phase, int], host_bytes: int, cost: CostModel) -> None:
    """Sets the gauges that describe the present: active jobs by phase, expected waits, backlog, host memory and the step model."""
    for phase, count in jobs.items():
        metrics.jobs.labels(phase.name.lower()).set(count)
    waits = decision.waits_seconds
    metrics.ewt_seconds.labels("mean").set(float(waits.mean()) if len(waits) else 0.0)
    metrics.ewt_seconds.labels("max").set(float(waits.max()) if len(waits) else 0.0)
    metrics.backlog_seconds.set(decision.load.backlog_seconds())
    metrics.host_bytes.labels("planned").set(decision.host_memory.host_bytes)
    metrics.host_bytes.labels("used").set(host_bytes)
    metrics.host_bytes.labels("budget").set(decision.host_memory.host_budget_bytes)
    c = cost.coefficients
    for term, value in zip(COST_TERMS, (c.step_seconds, c.prefill_seconds, c.decode_seconds, c.context_seconds), strict=True):
        metrics.cost_seconds.labels(term).set(value)
    metrics.cost_error.set(cost.error)
    metrics.cost_pace.set(cost.pace)
    metrics.cost_samples.set(cost.samples)


class PublishedEnds:
    """Publishes finished requests, and how far their predicted lengths were off. Keeps the smoothed error."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log_error = 0.0
        self._observed = 0

    def publish(self, ended: Ended) -> None:
        """Counts a finished request. Only an answer that the model ended by itself says how good its prediction was."""
        finished = ended.finished
        self._metrics.ended.labels(finished.reason.value).inc()
        if finished.ttft_seconds > 0:
            self._metrics.ttft_seconds.observe(finished.ttft_seconds)
        if ended.job is None or finished.reason is not FinishReason.STOP or not finished.generated_tokens:
            return
        predicted = ended.job.lengths
        self._observed += 1
        self._log_error += max(_ERROR_RATE, 1 / self._observed) * (log_error(predicted, finished.generated_tokens) - self._log_error)
        self._metrics.answered(predicted.median, predicted.mean, finished.generated_tokens, self._log_error)

"""Publishes decisions and finished requests as metrics.

`state.py` calls it after each decision and for each request that ended. It changes metrics and nothing else.
"""

import math
from collections.abc import Mapping
from typing import Final

from .core.book import Ended
from .core.decide import Decision
from .core.exec_time import LEAST_WORK_SECONDS, CostModel
from .core.job import Job
from .core.plan import PredictedWork
from .core.reports import Finished, FinishReason, Phase
from .metrics import COST_TERMS, Metrics

# The least share of the newest answer in the smoothed error.
_ERROR_RATE: Final = 0.05
# An answer that was cut by its client or an error says nothing about how long it would have taken.
_COMPLETE: Final = frozenset({FinishReason.STOP, FinishReason.LENGTH})


def publish_decision(
    metrics: Metrics, decision: Decision, work: PredictedWork, jobs: Mapping[tuple[Phase, str], int], host_bytes: int, cost: CostModel
) -> None:
    """Sets the gauges that describe the present: active jobs, expected waits, predicted work, host memory and the step model.

    `jobs` has the number of active jobs of each phase and class.
    """
    for phase in Phase:
        for klass in metrics.classes:
            metrics.jobs.labels(phase.name.lower(), klass).set(jobs.get((phase, klass), 0))
    waits = decision.waits_seconds
    metrics.ewt_seconds.labels("mean").set(float(waits.mean()) if len(waits) else 0.0)
    metrics.ewt_seconds.labels("max").set(float(waits.max()) if len(waits) else 0.0)
    metrics.backlog_seconds.set(work.backlog_seconds)
    metrics.offered_load.set(work.offered_load)
    metrics.rank_preemption.set(int(decision.limits.preempt_levels > 0 and not decision.limits.spared_levels))
    metrics.host_bytes.labels("planned").set(decision.host_memory.host_bytes)
    metrics.host_bytes.labels("used").set(host_bytes)
    metrics.host_bytes.labels("budget").set(decision.host_memory.host_budget_bytes)
    c = cost.coefficients
    for term, value in zip(COST_TERMS, (c.step_seconds, c.prefill_seconds, c.decode_seconds, c.context_seconds), strict=True):
        metrics.cost_seconds.labels(term).set(value)
    metrics.cost_error.set(cost.error)
    metrics.cost_pace.set(cost.pace)
    metrics.cost_samples.set(cost.samples)


def slowdown(job: Job, finished: Finished, cost: CostModel) -> float:
    """The time of a complete answer divided by its time on an idle engine, at least 1."""
    tokens = finished.generated_tokens
    alone = float(cost.coefficients.alone_seconds(job.prompt_tokens, tokens, job.prompt_tokens + tokens / 2))
    return max(1.0, finished.age_seconds / max(alone, LEAST_WORK_SECONDS))


class PublishedEnds:
    """Publishes finished requests, and how far their predicted lengths were off. Keeps the smoothed error."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log_error = 0.0
        self._observed = 0

    def publish(self, ended: Ended, objective: str, cost: CostModel, forced: bool = False) -> None:
        """Counts a finished request by its class. Only an answer that the model ended by itself says how good its prediction was.

        One that is `forced` went on for as long as the client demanded.
        """
        finished, klass = ended.finished, self._metrics.class_of(objective)
        self._metrics.ended.labels(finished.reason.value, klass).inc()
        if finished.preemptions:
            self._metrics.preempted.labels(klass).inc()
        if finished.ttft_seconds > 0:
            self._metrics.ttft_seconds.observe(finished.ttft_seconds, klass)
        self._metrics.wait_seconds.observe(finished.waited_seconds + finished.preempted_seconds, klass)
        if ended.job is not None and finished.reason in _COMPLETE and finished.generated_tokens:
            self._metrics.slowdown.observe(slowdown(ended.job, finished, cost), klass)
        if ended.job is None or forced or finished.reason is not FinishReason.STOP or not finished.generated_tokens:
            return
        predicted = ended.job.lengths
        # 0.69 is a factor of two.
        log_error = abs(math.log(predicted.median / finished.generated_tokens))
        self._observed += 1
        self._log_error += max(_ERROR_RATE, 1 / self._observed) * (log_error - self._log_error)
        self._metrics.answered(predicted.median, predicted.mean, finished.generated_tokens, self._log_error)

"""Scales AliseEngines by predicted work: takes what reconcile.py observed, asks autoscaling.py, and sets spec.replicas through kube.py.

reconcile.py calls `follow()` once in each reconcile, after it has observed the pods. It remembers what was recommended lately, which does
not outlive the process. It sets spec.replicas as `kubectl scale` does, so the number of pods is where users expect it, and the children
follow from the spec alone. It posts an event for each step. While this operator acts, reconcile.py also runs `wake()`, which asks pickers
through held_requests.py whether a request waits for a pod.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from alise_contract.names import API_GROUP, API_VERSION, PLURAL
from alise_operator import events, metrics
from alise_operator.autoscaling import (
    SILENT_PICKER_SECONDS,
    Decision,
    Memory,
    begin,
    decide,
    is_active,
    metric_seconds,
    pool_of,
    rule_of,
    unheard_since,
)
from alise_operator.children.meta import Manifest, Owner
from alise_operator.conditions import Condition
from alise_operator.demand import Demand, Demands
from alise_operator.errors import ApplyError, ClusterError
from alise_operator.held_requests import HeldRequests, counts
from alise_operator.kube import Kube, Resource
from alise_operator.observation import Observation, Trouble
from alise_operator.picker_ready import REASON as PICKER_UNAVAILABLE
from alise_operator.picker_ready import unanswered
from alise_operator.predicted_work import total
from alise_operator.scaling_condition import by_another, failed, is_paused, stands_by, while_scaling
from alise_operator.spec import Spec

log = logging.getLogger(__name__)

# Reasons of the events of steps.
UP, DOWN = "ScaledUp", "ScaledDown"
# How often the pickers of AliseEngines without pods are asked: a held request waits this much longer for its pod.
WAKE_SECONDS: Final = 2.0
# KEDA asks every 15 s. If it has not asked for this time, it cannot reach the operator, or has failed.
KEDA_SECONDS: Final = 120.0
_ENGINES: Final = Resource(f"{API_GROUP}/{API_VERSION}", PLURAL)


class Autoscaler:
    """Follows the predicted work of every AliseEngine, and scales those that have spec.autoscaling."""

    def __init__(
        self,
        kube: Kube,
        *,
        demands: Demands | None = None,
        held: HeldRequests | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`demands` is the metric for KEDA, where it scales. `held` asks endpoint pickers; without it, nothing is scaled to zero."""
        self._kube = kube
        self._held = held
        self._demands = demands if demands is not None else Demands(monotonic)
        self._now = now
        self._monotonic = monotonic
        # By owner: a resource that was deleted and created again has another uid, and so no memory.
        self._memory: dict[Owner, Memory] = {}
        # Those without pods, which a held request wakes.
        self._asleep: set[Owner] = set()
        # Since when their pickers have not answered how many requests they hold.
        self._unanswered_since: dict[Owner, float] = {}

    async def follow(
        self,
        resource: Manifest,
        spec: Spec | None,
        owner: Owner,
        seen: Observation,
        before: Mapping[str, Any] | None,
        *,
        by_keda: bool = False,
        at_first: int = 0,
    ) -> Condition | None:
        """Scales the AliseEngine if the work of its pods asks for it, and returns its condition; None without spec.autoscaling.

        `spec` is None if it is not valid. `before` is the present condition of the resource. `by_keda`: only note what KEDA asks for.
        `at_first` is the number of pods before their work is known; it is larger where autoscaling begins.
        """
        self._publish(owner, seen)
        self._asleep.discard(owner)
        unanswered_since = self._unanswered_since.pop(owner, self._monotonic())
        # What was recommended in another state says nothing about the next one.
        memory = self._memory.pop(owner, Memory())
        if spec is None or spec.autoscaling is None or spec.suspend or (is_paused(spec) and not by_keda):
            # KEDA keeps the number of pods while the demand is not known.
            self._demands.forget(owner.namespace, owner.name)
            return stands_by(spec, before)
        pool, rule = pool_of(seen.pods, spec.replicas, await self._held_by_picker(spec, owner)), rule_of(spec.autoscaling)
        if pool.held is None and self._held is not None:
            self._unanswered_since[owner] = unanswered_since
        if by_keda:
            at_seconds = self._monotonic()
            unknown_since = unheard_since(memory, pool, at_seconds)
            self._memory[owner] = Memory(held_unknown_since=unknown_since)
            demand = Demand(metric_seconds(pool, rule), rule.target_seconds, is_active(pool, unknown_since, at_seconds))
            self._demands.set(owner.namespace, owner.name, demand)
            if spec.replicas < at_first and rule.least < at_first:
                first = begin(decide(pool, rule, memory, at_seconds), at_first)
                if (error := await self._scale(resource, owner, spec.replicas, first)) is not None:
                    return failed(at_first, error, before)
            return by_another(owner.name, is_silent=self._demands.unasked_seconds(owner.namespace, owner.name) >= KEDA_SECONDS)
        decision = decide(pool, rule, memory, self._monotonic())
        if spec.replicas < at_first and decision.replicas < at_first:
            decision = begin(decision, at_first)
        # If the replicas cannot be set, the number in the memory is theirs, and the next reconcile decides anew.
        self._memory[owner] = replace(decision.memory, replicas=spec.replicas)
        step = ""
        if decision.replicas != spec.replicas:
            if (error := await self._scale(resource, owner, spec.replicas, decision)) is not None:
                return failed(decision.replicas, error, before)
            step = f"from {spec.replicas} to {decision.replicas} at {self._now():%H:%M:%S} UTC, because {decision.cause}"
        self._memory[owner] = decision.memory
        return while_scaling(spec.autoscaling, decision.reason, step, before)

    def troubles(self, owner: Owner, seen: Observation) -> tuple[Trouble, ...]:
        """Returns what is wrong with what the autoscaler needs, unless the observation has it already."""
        since = self._unanswered_since.get(owner)
        is_long = since is not None and self._monotonic() - since >= SILENT_PICKER_SECONDS
        is_known = any(trouble.reason == PICKER_UNAVAILABLE for trouble in seen.troubles)
        return (unanswered(owner),) if is_long and not is_known else ()

    async def wake(self, seen: Callable[[str, str], None], *, pause_seconds: float = WAKE_SECONDS) -> None:
        """Calls `seen` with the namespace and name of each AliseEngine without pods for which a request is held. Never returns."""
        while True:
            await asyncio.sleep(pause_seconds)
            if self._held is not None and self._asleep:
                for owner, count in (await counts(self._held, list(self._asleep))).items():
                    if count:
                        seen(owner.namespace, owner.name)

    async def _held_by_picker(self, spec: Spec, owner: Owner) -> int | None:
        """Returns how many requests are held; 0 without asking if the AliseEngine always has pods."""
        if spec.autoscaling is None or spec.autoscaling.min_replicas > 0:
            return 0
        if spec.replicas == 0:
            self._asleep.add(owner)
        return await self._held.count(owner) if self._held is not None else None

    def forget(self, namespace: str, name: str) -> None:
        """Forgets an AliseEngine that is gone."""
        metrics.forget_work(namespace, name)
        self._demands.forget(namespace, name)
        if self._held is not None:
            self._held.forget(namespace, name)
        owners = self._memory.keys() | self._asleep | self._unanswered_since.keys()
        for owner in [one for one in owners if (one.namespace, one.name) == (namespace, name)]:
            self._memory.pop(owner, None)
            self._unanswered_since.pop(owner, None)
            self._asleep.discard(owner)

    async def _scale(self, resource: Manifest, owner: Owner, before: int, decision: Decision) -> ApplyError | ClusterError | None:
        """Sets the replicas and posts the event about it. Returns the error if they could not be set."""
        version, engine = str(resource["metadata"]["resourceVersion"]), f"{owner.namespace}/{owner.name}"
        try:
            await self._kube.scale(_ENGINES, owner.namespace, owner.name, decision.replicas, version)
        except (ApplyError, ClusterError) as error:
            log.warning("the replicas could not be set", extra={"engine": engine, "error": str(error)})
            return error
        direction, reason = ("up", UP) if decision.replicas > before else ("down", DOWN)
        metrics.SCALINGS.labels(direction).inc()
        message = f"from {before} to {decision.replicas} replicas: {decision.cause}"
        log.info("scaled %s", message, extra={"engine": engine})
        try:
            await events.note(self._kube, reason, message, owner, now=self._now())
        except (ApplyError, ClusterError) as error:
            log.warning("an event could not be posted", extra={"engine": engine, "error": str(error)})
        return None

    def _publish(self, owner: Owner, seen: Observation) -> None:
        """Publishes the work, or nothing if it is not known: another autoscaler would remove busy pods for a zero."""
        present = [pod for pod in seen.pods if not pod.terminating and not pod.ended]
        works = [pod.report.work for pod in present if pod.report is not None and pod.report.work is not None]
        is_silent = any(pod.ready and (pod.report is None or pod.report.work is None) for pod in present)
        if is_silent or (present and not works):
            metrics.forget_work(owner.namespace, owner.name)
            return
        work = total(works)
        metrics.publish_work(owner.namespace, owner.name, work.backlog_seconds, work.offered_load)

"""Decides how many pods an AliseEngine should have, from the predicted work of its pods. Pure; autoscaler.py calls `decide()` and acts.

    needed = offered load + backlog / target

That number of pods serves what arrives, and the backlog within the target time. `decide()` follows the number under these rules:
- It adds pods at once, if more than 110% of the present ones are needed: the load of a minute fluctuates by some percent. While pods are
  starting, the backlog grows although they will serve it, so then only the offered load adds pods. Otherwise the part of the backlog
  counts that remains when a new pod is ready: the present pods serve the rest sooner.
- It removes pods only if fewer would be at most 90% busy with the work, and have been enough for the whole stabilization time. If the
  work of a ready pod is not known, no pod is removed.
- A number that another writer sets is like a recommendation: it is raised at once, and lowered only after the stabilization time.
- It never leaves the bounds. The last pod is removed only after `idle_seconds` without any request. A held request brings one back, and
  so does a picker that does not say for a minute whether it holds one.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from alise_operator.observation import Pod
from alise_operator.predicted_work import NO_WORK, Work, total
from alise_operator.spec_autoscaling import Autoscaling

# Pods are added only if the work needs more than this times the present ones. A HorizontalPodAutoscaler tolerates as much.
TOLERATED: Final = 1.1
# Pods are removed only if the work keeps those that remain no busier than this. Otherwise the next fluctuation would add a pod again.
MOST_BUSY: Final = 0.9
# A resource without pods whose picker has not answered for this time gets one: requests may be waiting there, or refused.
SILENT_PICKER_SECONDS: Final = 60.0
# Pods that took longer to start were kept from it, by a full cluster for example. That says nothing about the next ones.
MOST_START_SECONDS: Final = 600.0
_ROUNDING: Final = 1e-9
# Reasons of the condition AutoscalingActive.
FOLLOWS, STARTING, MAXIMUM, SILENT, ZERO = "FollowsWork", "PodsStarting", "AtMaximum", "WorkUnknown", "ScaledToZero"
PICKER_SILENT: Final = "PickerSilent"


@dataclass(frozen=True, slots=True)
class Rule:
    """The bounds and times of spec.autoscaling."""

    least: int
    most: int
    target_seconds: float
    stabilization_seconds: float
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Pool:
    """The pods of an AliseEngine at one moment."""

    # Requested, whether or not they exist yet.
    replicas: int
    ready: int
    # Of the ready pods that reported it.
    work: Work = NO_WORK
    # Ready pods whose work is not known.
    silent: int = 0
    # Requests that the endpoint picker holds because no pod is ready. None: it does not say.
    held: int | None = 0

    @property
    def starting(self) -> int:
        return max(0, self.replicas - self.ready)


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier decisions leave behind. Empty after a restart of the operator, so that nothing is removed too early."""

    # (time, recommended pods), oldest first: those of the stabilization time and the last one before it.
    recommended: tuple[tuple[float, int], ...] = ()
    # The replicas that the last decision requested.
    replicas: int | None = None
    # Since when there has been no request.
    idle_since: float | None = None
    # Since when there are no pods and the picker does not answer.
    held_unknown_since: float | None = None
    # Since when pods are starting, and how long pods took to start the last time; 0: not known yet.
    starting_since: float | None = None
    start_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    replicas: int
    reason: str
    # Why the replicas change; empty if they do not.
    cause: str
    memory: Memory


def rule_of(spec: Autoscaling) -> Rule:
    return Rule(
        least=spec.min_replicas,
        most=spec.max_replicas,
        target_seconds=spec.target_backlog_seconds,
        stabilization_seconds=spec.scale_down.stabilization_seconds,
        idle_seconds=spec.idle_seconds,
    )


def pool_of(pods: Iterable[Pod], replicas: int, held: int | None = 0) -> Pool:
    """Returns the pool. Pods that are being deleted or have ended do not count."""
    ready = [pod for pod in pods if pod.ready and not pod.terminating and not pod.ended]
    works = [pod.report.work for pod in ready if pod.report is not None and pod.report.work is not None]
    return Pool(replicas, len(ready), total(works), silent=len(ready) - len(works), held=held)


def decide(pool: Pool, rule: Rule, memory: Memory, at_seconds: float) -> Decision:
    """Returns the replicas to request now, why, and what the next decision has to know."""
    # 1. How many pods does the work need?
    if memory.replicas is not None and pool.replicas < memory.replicas:
        # Those that were starting may have been removed, so that the others are ready says nothing about starts.
        memory = replace(memory, starting_since=None)
    memory = _with_start(memory, pool, at_seconds)
    advice = recommended(pool, rule, memory.start_seconds)
    # 2. Remember it, and a number that another writer has set since the last decision.
    set_by_others = memory.replicas is not None and memory.replicas != pool.replicas
    known = _remembered(memory, max(advice, pool.replicas) if set_by_others else advice, at_seconds, rule.stabilization_seconds)
    unknown_since = unheard_since(memory, pool, at_seconds)
    idle_since = (at_seconds if known.idle_since is None else known.idle_since) if _is_idle(pool) else None
    # 3. Add pods at once; remove those that were not needed for the whole stabilization time.
    within = [count for since, count in known.recommended if at_seconds - since <= rule.stabilization_seconds]
    is_covered = at_seconds - known.recommended[0][0] >= rule.stabilization_seconds
    wanted = max(advice, min(pool.replicas, max(within)) if is_covered else pool.replicas)
    # 4. Stay within the bounds. Only idleness removes the last pod, and only a request brings it back.
    replicas = min(rule.most, max(1, rule.least, wanted))
    if rule.least == 0 and (
        (pool.replicas == 0 and not _wakes(pool, unknown_since, at_seconds))
        or (idle_since is not None and at_seconds - idle_since >= rule.idle_seconds)
    ):
        replicas = 0
    cause = "" if replicas == pool.replicas else _cause(pool, rule, replicas, wanted)
    reason = _reason(pool, replicas, is_short=max(within) > rule.most)
    if replicas < pool.replicas:
        known = replace(known, starting_since=None)
    return Decision(replicas, reason, cause, replace(known, replicas=replicas, idle_since=idle_since, held_unknown_since=unknown_since))


def begin(decision: Decision, serving: int) -> Decision:
    """Returns the decision with which autoscaling begins, while more pods serve requests than it would request."""
    cause = f"autoscaling begins with the {serving} pods that serve requests"
    return replace(decision, replicas=serving, cause=cause, memory=replace(decision.memory, replicas=serving))


def recommended(pool: Pool, rule: Rule, start_seconds: float = 0.0) -> int:
    """Returns the number of pods for the work of this moment; one more than allowed stands for any larger number."""
    load, needed, most = pool.work.offered_load, pool.work.needed_pods(rule.target_seconds), rule.most + 1
    remains = max(0.0, pool.work.backlog_seconds - max(0.0, pool.replicas - load) * start_seconds)
    more = load if pool.starting else load + remains / rule.target_seconds
    if more > TOLERATED * pool.replicas:
        return _whole(more, most)
    if pool.silent or not pool.ready:
        return min(pool.replicas, most)
    return min(pool.replicas, _whole(needed / MOST_BUSY, most))


def metric_seconds(pool: Pool, rule: Rule) -> float:
    """Returns the metric for other autoscalers, which request metric / target pods: the work of the next `target_seconds`.

    It follows the same rules: while pods start, the backlog asks for no more of them, and unknown work for no fewer.
    """
    seconds, present = pool.work.seconds_ahead(rule.target_seconds), pool.replicas * rule.target_seconds
    if pool.starting:
        seconds = min(seconds, max(present, pool.work.offered_load * rule.target_seconds))
    return max(seconds, present) if pool.silent or not pool.ready else seconds


def is_active(pool: Pool, unknown_since: float | None, at_seconds: float) -> bool:
    """Returns whether a pod should run: some request is there or came lately, or that is not known.

    `unknown_since` is the result of `unheard_since()`.
    """
    return not _is_idle(pool) if pool.replicas > 0 else _wakes(pool, unknown_since, at_seconds)


def unheard_since(memory: Memory, pool: Pool, at_seconds: float) -> float | None:
    """Returns since when there are no pods and the picker does not answer; None if that is not so."""
    if not _is_unheard(pool):
        return None
    return at_seconds if memory.held_unknown_since is None else memory.held_unknown_since


def _whole(pods: float, most: int) -> int:
    return math.ceil(min(pods, most) - _ROUNDING)


def _with_start(memory: Memory, pool: Pool, at_seconds: float) -> Memory:
    """Returns the memory with how long pods take to start, once all of them are ready."""
    if pool.starting:
        return replace(memory, starting_since=at_seconds if memory.starting_since is None else memory.starting_since)
    if memory.starting_since is None:
        return memory
    seconds = at_seconds - memory.starting_since
    return replace(memory, starting_since=None, start_seconds=memory.start_seconds if seconds > MOST_START_SECONDS else seconds)


def _remembered(memory: Memory, advice: int, at_seconds: float, seconds: float) -> Memory:
    all_of_them = (*memory.recommended, (at_seconds, advice))
    older = sum(at_seconds - since >= seconds for since, _ in all_of_them)
    return replace(memory, recommended=all_of_them[max(0, older - 1) :])


def _is_idle(pool: Pool) -> bool:
    return pool.ready > 0 and pool.silent == 0 and pool.held == 0 and pool.work.is_none


def _wakes(pool: Pool, unknown_since: float | None, at_seconds: float) -> bool:
    return bool(pool.held) or (unknown_since is not None and at_seconds - unknown_since >= SILENT_PICKER_SECONDS)


def _is_unheard(pool: Pool) -> bool:
    return pool.replicas == 0 and pool.held is None


def _reason(pool: Pool, replicas: int, *, is_short: bool) -> str:
    if replicas == 0:
        return PICKER_SILENT if _is_unheard(pool) else ZERO
    if replicas > pool.ready:
        return STARTING
    if pool.silent:
        return SILENT
    return MAXIMUM if is_short else FOLLOWS


def _cause(pool: Pool, rule: Rule, replicas: int, wanted: int) -> str:
    if replicas == 0:
        return f"no request came for {rule.idle_seconds:.0f} s"
    if pool.replicas == 0 and pool.held is None:
        return f"the endpoint picker has not answered for {SILENT_PICKER_SECONDS:.0f} s, so requests may wait for a pod"
    if pool.replicas == 0:
        return f"{pool.held} requests wait for a pod" if (pool.held or 0) > 1 else "a request waits for a pod"
    if pool.replicas > rule.most:
        return f"spec.autoscaling.maxReplicas is {rule.most}"
    if replicas > pool.replicas and replicas > wanted:
        return f"spec.autoscaling.minReplicas is {rule.least}"
    if replicas < pool.replicas:
        return f"the predicted work has needed fewer pods for {rule.stabilization_seconds:.0f} s"
    work = pool.work
    return (
        f"arriving requests keep {work.offered_load:.1f} pods busy, and the backlog is {work.backlog_seconds:.0f} s of one pod, for a "
        f"target of {rule.target_seconds:.0f} s"
    )

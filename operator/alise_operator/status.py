"""Spec and report -> the resource's status. Pure: the time is an argument, the previous conditions too.

Five conditions, each one word and a sentence a person can act on:
- Ready: at least one pod serves requests inside the cluster, whatever is wrong with the newest spec or with the route: gateways take a
  resource that is not Ready out of their lists, so a mistake must not make an outage. Its reason says when only older pods serve.
- Progressing: something is under way that ends by itself.
- RouteReady: requests from outside the cluster can arrive (route_ready.py).
- Degraded: something is wrong, whether or not requests are still served; a route that leads nowhere is.
- KVCacheShort: requests wait for KV memory although slots are free (kv_cache.py).
No number that changes by the second: queue depths are metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from alise_contract.names import CONTRACT_VERSION
from alise_operator import kv_cache
from alise_operator.children.meta import Owner, selector_text
from alise_operator.children.route import url
from alise_operator.conditions import Condition
from alise_operator.errors import (
    ApplyError,
    ClusterError,
    InternalError,
    InvalidSpec,
    MissingApi,
    NameTaken,
    OperatorError,
    SpecError,
    one_line,
)
from alise_operator.missing_secrets import REASON as MISSING_SECRET
from alise_operator.missing_secrets import explain
from alise_operator.observation import Observation, Pod, PodReport, Trouble, Workload
from alise_operator.quantities import format_bytes
from alise_operator.route_ready import REFUSED_REASONS, Way, route_ready
from alise_operator.sentences import MAX_MESSAGE, join
from alise_operator.spec import Spec

NO_WAY: Final = Way()
_WELL: Final = ("Degraded", "False")
# Reasons of RouteReady that are worth no event.
_NO_NEWS: Final = frozenset({"NoRoute", "Pending"})
# Requests of the last minute that went in unranked: this many and this share is no accident of one slow step.
FAILED_OPEN_REQUESTS: Final = 3
FAILED_OPEN_SHARE: Final = 0.05
# A scheduler that is down at two polls in a row is down; at one it may be starting, or have been restarted by its supervisor.
SIDECAR_DOWN_POLLS: Final = 2
# The first of these that is found is Degraded's reason.
DEGRADED_ORDER: Final = (
    MISSING_SECRET,
    "ImagePull",
    "PodsCrashing",
    "Unschedulable",
    "PodNotStarting",
    "PodsRefused",
    "Stalled",
    "ContractMismatch",
    "SidecarDown",
    "FailingOpen",
    "StatusUnavailable",
    "NoApiKeys",
    *REFUSED_REASONS,
    "MissingTlsSecret",
    "HostMemoryFull",
    "PredictorWithoutEncoder",
)
# What a rollout does not get over by itself.
BLOCKING: Final = frozenset({MISSING_SECRET, "ImagePull", "PodsCrashing", "Unschedulable", "PodNotStarting", "PodsRefused"})
# Why requests went in unranked, and what to do; said in this order. The breaker opens after other failures, so it comes last.
FAILED_OPEN_ADVICE: Final[Mapping[str, str]] = {
    "deadline": "its scheduler answers too late, give it more CPU (spec.scheduling.resources)",
    "unavailable": "its scheduler cannot be reached, see kubectl logs {pod} -c scheduler",
    "version": "its scheduler is of another release, use images of one release",
    "error": "its scheduler answers with errors, see kubectl logs {pod} -c scheduler",
    "breaker_open": "after failures in a row its scheduler is asked only now and then, see kubectl logs {pod} -c scheduler",
}
# Reasons whose message is about what the user wrote.
SPOKEN_REASONS: Final = frozenset(kind.reason for kind in (InvalidSpec, MissingApi, ApplyError, NameTaken))
# Reasons that say that the spec was not applied.
UNAPPLIED_REASONS: Final = SPOKEN_REASONS | {ClusterError.reason, InternalError.reason}


def fold(
    *,
    spec: Spec | None,
    owner: Owner,
    generation: int,
    error: OperatorError | None,
    observation: Observation,
    way: Way | None = NO_WAY,
    previous: Mapping[str, Any],
    now: datetime,
    suspended: bool = False,
) -> dict[str, Any]:
    """The whole status. `spec` and `way` are None when the spec could not be parsed; `previous` is the status that the resource has now.

    `suspended`: what spec.suspend says, also where the rest of the spec cannot be parsed.
    """
    before = {one["type"]: one for one in previous.get("conditions", ())}
    observation = _with_fields(observation, spec, owner)
    # The spec was applied before the cluster failed: what its pods say still holds.
    is_applied = _was_applied(before, generation)
    workload = observation.workload
    serves = workload is not None and workload.ready > 0
    route = route_ready(spec, owner, way, error, before.get("RouteReady"), now, serves=serves)
    if route.reason in REFUSED_REASONS:
        observation = replace(observation, troubles=(*observation.troubles, Trouble(route.reason, route.message)))
    conditions = [
        ready(spec, None if isinstance(error, ClusterError) and is_applied else error, observation),
        progressing(spec, error, observation, suspended=suspended),
        degraded(error, observation, spec),
        route,
        kv_cache.kv_cache_short(spec, observation.kv_windows, before.get(kv_cache.TYPE), observation.kv_silence),
    ]
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "replicas": workload.replicas if workload else 0,
        "readyReplicas": workload.ready if workload else 0,
        "selector": selector_text(owner.name),
        "conditions": [_stamp(condition, before.get(condition.type), generation, now) for condition in conditions],
    }
    address = previous.get("url") if spec is None else url(spec.route, owner)
    # Nothing was ever applied: no Service has the address.
    is_absent = isinstance(error, SpecError) and workload is None
    return status | ({"url": address} if address and route.status != "False" and not is_absent else {})


def _was_applied(before: Mapping[str, Any], generation: int) -> bool:
    """Whether this generation of the spec was applied at an earlier reconcile."""
    last = before.get("Ready", {})
    if last.get("observedGeneration") != generation or last["reason"] in UNAPPLIED_REASONS:
        return False
    # Older pods serve: either the spec rolls out, or it could not be applied.
    return last["reason"] != "ServingOldSpec" or before["Degraded"]["reason"] not in UNAPPLIED_REASONS


def _with_fields(seen: Observation, spec: Spec | None, owner: Owner) -> Observation:
    """Names the field that asks for each missing Secret, once for all pods that wait for it."""

    def named(trouble: Trouble) -> Trouble:
        return trouble if trouble.gap is None else Trouble(trouble.reason, explain(trouble.gap, spec, owner))

    return replace(seen, pods=tuple(replace(pod, troubles=tuple(map(named, pod.troubles))) for pod in seen.pods))


def ready(spec: Spec | None, error: OperatorError | None, seen: Observation) -> Condition:
    workload = seen.workload
    if error is not None or spec is None:
        serves = workload is not None and workload.ready > 0
        reason = "ServingOldSpec" if serves else error.reason if error else InvalidSpec.reason
        return Condition("Ready", "True" if serves else "False", reason, _with_state(error, workload))
    if spec.suspend:
        return Condition("Ready", "False", "Suspended", f"stopped by spec.suspend; set it to false to run {_pods(spec.replicas)}")
    if spec.replicas == 0:
        return Condition("Ready", "False", "ScaledToZero", "spec.replicas is 0; raise it to serve")
    if workload is None:
        return Condition("Ready", "False", "Starting", "the Deployment is being created")
    troubles = _sorted(_troubles(seen))
    if workload.ready > 0 and _serves_old_spec(seen):
        waits_for = _texts(troubles) or ["pods of the current spec are starting"]
        return Condition("Ready", "True", "ServingOldSpec", join([f"{_count(workload)}, of the previous spec", *waits_for]))
    if workload.ready > 0:
        return Condition("Ready", "True", "Serving", _count(workload))
    if troubles:
        return Condition("Ready", "False", troubles[0].reason, join([_count(workload), *_texts(troubles)]))
    loading = "; the engine loads the model, which takes from half a minute to several minutes"
    return Condition("Ready", "False", "Starting", f"{_count(workload)}{loading if any(pod.running for pod in seen.pods) else ''}")


def progressing(spec: Spec | None, error: OperatorError | None, seen: Observation, *, suspended: bool = False) -> Condition:
    workload = seen.workload
    if error is not None or spec is None:
        waits_for_user = error is None or isinstance(error, SpecError)
        what = "the operator waits until the spec is corrected" if waits_for_user else "the operator waits for the cluster and tries again"
        if waits_for_user and suspended:
            what += "; spec.suspend is true as well, so pods start only after it is set to false"
        return Condition("Progressing", "False", error.reason if error else "InvalidSpec", what)
    draining = sum(pod.terminating and pod.served for pod in seen.pods)
    stopping = sum(pod.terminating and not pod.served for pod in seen.pods)
    if workload is None or not workload.observed:
        return Condition("Progressing", "True", "Applying", "the Deployment has been applied; waiting for the Deployment controller")
    if workload.stalled:
        return Condition("Progressing", "False", "Stalled", join(["the rollout is stuck", *_texts(_sorted(_troubles(seen)))]))
    is_rolling = workload.updated < workload.desired or workload.replicas > max(workload.updated, workload.desired)
    blocked = _blocked(seen)
    if blocked is not None and (is_rolling or workload.ready < workload.desired):
        return Condition("Progressing", "False", blocked.reason, f"the rollout is waiting: {blocked.message}")
    if is_rolling:
        return Condition("Progressing", "True", "RollingOut", "pods of the current spec replace older ones")
    if workload.ready < workload.desired:
        return Condition("Progressing", "True", "Starting", _count(workload))
    if draining:
        return Condition("Progressing", "True", "Draining", f"waiting for {_pods(draining)} to finish open streams before stopping")
    if stopping:
        return Condition("Progressing", "True", "Stopping", f"waiting for {_pods(stopping)} to stop")
    if workload.desired == 0:
        return Condition("Progressing", "False", "Complete", f"all pods are stopped: {_why_no_pods(spec)}")
    return Condition("Progressing", "False", "Complete", _count(workload))


def degraded(error: OperatorError | None, seen: Observation, spec: Spec | None = None) -> Condition:
    found = _sorted([*_troubles(seen), *_stalled(seen.workload), *_reported(seen.pods), *seen.troubles])
    if error is not None:
        return Condition("Degraded", "True", error.reason, join([str(error), *_texts(found)]))
    if found:
        return Condition("Degraded", "True", found[0].reason, join([*_cut(seen), *_texts(found)]))
    if spec is not None and spec.suspend:
        later = f"{_pods(spec.replicas)} will run when spec.suspend is false"
        return Condition("Degraded", "False", "AsExpected", f"nothing is wrong: the resource is suspended; {later}")
    return Condition("Degraded", "False", "AsExpected", "nothing is wrong")


def _why_no_pods(spec: Spec) -> str:
    return "spec.suspend is true" if spec.suspend else "spec.replicas is 0"


def changes(previous: Mapping[str, Any], status: Mapping[str, Any]) -> list[Condition]:
    """Conditions worth an event: another truth or reason than before, or another text of a user's mistake. One per reason, the worst.

    A pod's own words may differ with every restart and are no change.
    """
    before = {one["type"]: one for one in previous.get("conditions", ())}
    # Its event says it; a condition that is what it is for the same reason needs none of its own.
    wrong = next((one["reason"] for one in status["conditions"] if one["type"] == "Degraded" and one["status"] == "True"), None)
    found: dict[str, Condition] = {}
    for one in status["conditions"]:
        condition = Condition(one["type"], one["status"], one["reason"], one["message"])
        old = before.get(condition.type)
        if condition.type == kv_cache.TYPE:
            changed = kv_cache.is_news(condition, old)
        elif old is None:
            # What is well from the beginning is no news.
            changed = condition.status == "False" if condition.type == "RouteReady" else (condition.type, condition.status) != _WELL
        else:
            reworded = condition.reason in SPOKEN_REASONS and old["message"] != condition.message
            changed = (old["status"], old["reason"]) != (condition.status, condition.reason) or (reworded and is_warning(condition))
        if condition.reason == wrong and not is_warning(condition):
            continue
        if changed and condition.reason not in _NO_NEWS and (condition.reason not in found or is_warning(condition)):
            found[condition.reason] = condition
    if any(is_warning(one) and one.reason in UNAPPLIED_REASONS for one in found.values()):
        # That older pods go on serving is a part of the same news.
        found.pop("ServingOldSpec", None)
    return list(found.values())


def is_warning(condition: Condition) -> bool:
    return condition.type == "Degraded" and condition.status == "True"


def _troubles(seen: Observation) -> list[Trouble]:
    """What keeps pods from working. One that ended is history once there are as many others as there should be."""
    workload = seen.workload
    replaced = workload is not None and workload.ready >= workload.desired
    return [
        *(workload.troubles if workload else ()),
        *(_with_hint(trouble, seen) for pod in seen.pods if not (pod.ended and replaced) for trouble in pod.troubles),
    ]


def _with_hint(trouble: Trouble, seen: Observation) -> Trouble:
    if trouble.reason != "Unschedulable" or seen.workload is None or not seen.workload.surges or not _serves_old_spec(seen):
        return trouble
    hint = "an older pod still takes its room; spec.engine.rollout: replace stops that one first"
    return Trouble(trouble.reason, f"{trouble.message}; {hint}")


def _serves_old_spec(seen: Observation) -> bool:
    """Pods are ready, and none of them was made of the newest template."""
    serving = [pod.template for pod in seen.pods if pod.ready and not pod.terminating]
    return seen.workload is not None and bool(serving) and seen.workload.template not in serving


def _blocked(seen: Observation) -> Trouble | None:
    """What a rollout waits for without end; an older pod's trouble ends with that pod."""
    if seen.workload is None:
        return None
    current = [pod for pod in seen.pods if pod.template == seen.workload.template and not pod.ended]
    troubles = [*seen.workload.troubles, *(_with_hint(trouble, seen) for pod in current for trouble in pod.troubles)]
    return next((trouble for trouble in _sorted(troubles) if trouble.reason in BLOCKING), None)


def _cut(seen: Observation) -> Iterator[str]:
    """How many pods are not spoken of, where there are too many to look at each."""
    if seen.is_cut and seen.workload is not None:
        yield f"{len(seen.pods):,} of {max(seen.workload.replicas, len(seen.pods) + 1):,} pods were looked at"


def _stalled(workload: Workload | None) -> Iterator[Trouble]:
    if workload is not None and workload.stalled:
        yield Trouble("Stalled", "the rollout made no progress for over an hour; older pods keep serving where there are any")


def _reported(pods: Sequence[Pod]) -> Iterator[Trouble]:
    for pod in pods:
        if pod.terminating:
            continue
        if pod.report_error is not None:
            yield Trouble("StatusUnavailable", f"pod {pod.name}: {pod.report_error}")
        if pod.report is not None:
            yield from _told(pod, pod.report)


def _told(pod: Pod, report: PodReport) -> Iterator[Trouble]:
    """What a pod's own report says is wrong."""
    name, mismatch = pod.name, _mismatch(report)
    if mismatch is not None:
        yield Trouble("ContractMismatch", f"pod {name}: {mismatch}; use engine, scheduler and operator images of one release")
    elif not report.is_ranked and pod.unranked_polls >= SIDECAR_DOWN_POLLS:
        yield Trouble(
            "SidecarDown",
            f"pod {name}: the scheduler container {'sends no plans' if report.sidecar_connected else 'is not connected'}; requests run "
            f"first come, first served; see kubectl logs {name} -c scheduler",
        )
    if _is_failing_open(report):
        yield Trouble("FailingOpen", f"pod {name}: many requests of the last minute went in unranked: {_why_failed_open(pod)}")
    if pod.host_full:
        yield Trouble(
            "HostMemoryFull",
            f"pod {name}: its host KV store of {format_bytes(report.host_limit_bytes)} is full, preempted requests are recomputed; "
            "raise spec.kvOffload.hostMemory or use quantization int8",
        )
    if report.lacks_api_keys:
        yield Trouble(
            "NoApiKeys",
            f"pod {name}: the Secret of spec.auth.secretRef holds no API key, so every request is refused; add an entry per tenant with "
            "its keys, one per line",
        )
    if report.is_ranked and report.encoder_missing:
        yield Trouble(
            "PredictorWithoutEncoder",
            f"pod {name}: its predictor has no sentence encoder and orders requests less well; see spec.predictor.encoder and kubectl logs "
            f"{name} -c scheduler",
        )


def _mismatch(report: PodReport) -> str | None:
    """Who speaks which contract. A scheduler that refuses the engine does not say what it speaks itself."""
    if report.contract_version != CONTRACT_VERSION:
        return f"the engine speaks contract version {report.contract_version}, this operator {CONTRACT_VERSION}"
    if not report.contract_refused:
        return None
    if report.refused_contract_version:
        return f"the scheduler speaks contract version {report.refused_contract_version}, the engine {report.contract_version}"
    return f"the scheduler does not speak the engine's contract version {report.contract_version}"


def _why_failed_open(pod: Pod) -> str:
    known = [reason for reason in FAILED_OPEN_ADVICE if reason in pod.failed_open_reasons]
    other = [reason for reason in pod.failed_open_reasons if reason not in FAILED_OPEN_ADVICE]
    said = [f"{reason} ({FAILED_OPEN_ADVICE[reason].format(pod=pod.name)})" for reason in known]
    return ", ".join([*said, *other]) or "the reason is known from the next poll on"


def _is_failing_open(report: PodReport) -> bool:
    enough = report.recent_failed_open >= FAILED_OPEN_REQUESTS
    return enough and report.recent_failed_open >= FAILED_OPEN_SHARE * report.recent_requests


def _with_state(error: OperatorError | None, workload: Workload | None) -> str:
    said = str(error) if error else "the spec cannot be read"
    if workload is None or workload.replicas == 0:
        return join(["no pods are running", said])
    kept = f"pods of the last good spec are kept: {_count(workload)}"
    return join([kept, said] if workload.ready else [said, kept])


def _count(workload: Workload) -> str:
    # While pods replace others there may be more of them than asked for.
    return f"{min(workload.ready, workload.desired)} of {workload.desired} pods ready"


def _pods(count: int) -> str:
    return f"{count} pod" if count == 1 else f"{count} pods"


def _sorted(troubles: Sequence[Trouble]) -> list[Trouble]:
    return sorted(dict.fromkeys(troubles), key=lambda one: DEGRADED_ORDER.index(one.reason))


def _texts(troubles: Sequence[Trouble]) -> list[str]:
    return [trouble.message for trouble in troubles]


def _stamp(condition: Condition, old: Mapping[str, Any] | None, generation: int, now: datetime) -> dict[str, Any]:
    since = old["lastTransitionTime"] if old is not None and old["status"] == condition.status else now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        # A refusal of the API server's quotes what the user wrote.
        "message": one_line(condition.message, MAX_MESSAGE),
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }

"""Folds the spec, an error and the cluster's report into the status of an AliseEngine, and says which changes are worth an event.

Pure: the time and the previous status are arguments. reconcile.py calls `fold()` in its last step, then `changes()`. There are six
conditions; each has a one-word reason and a message that states the state, the cause and what to do:
- Ready: at least one pod serves requests inside the cluster, even if the newest spec or the route is wrong. Gateways drop a resource that
  is not Ready, so a mistake in a spec does not make it False. The reason ServingOldSpec says that only older pods serve.
- Progressing: a change is under way that will finish without help.
- RouteReady: requests from outside the cluster can arrive (route_ready.py).
- Degraded: something is wrong, whether or not requests are served. Its message is the complete one: where the same trouble keeps Ready,
  Progressing or RouteReady False, their messages give its first clause and refer to Degraded.
- KVCacheShort: requests wait for KV memory although slots are free (kv_cache.py).
- AutoscalingActive, with spec.autoscaling: the number of pods follows the predicted work (scaling_condition.py).
No message contains a number that changes every second; those are metrics.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from alise_operator import adapters, kv_cache, reasons, scaling_condition
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
from alise_operator.observation import Observation, Trouble, Workload
from alise_operator.pod_troubles import reported_troubles
from alise_operator.route_ready import REFUSED_REASONS, Way, route_ready
from alise_operator.sentences import MAX_MESSAGE, gist, join
from alise_operator.spec import Spec

NO_WAY: Final = Way()
_WELL: Final = ("Degraded", "False")
_SEE_DEGRADED: Final = "see the condition Degraded"
# Reasons of RouteReady that are not worth an event.
_NO_NEWS: Final = frozenset({"NoRoute", "Pending"})
# The first of these that is found is Degraded's reason.
DEGRADED_ORDER: Final = tuple(one.name for one in reasons.TROUBLES)
# Troubles that a rollout does not overcome without help.
BLOCKING: Final = frozenset({MISSING_SECRET, "ImagePull", "PodsCrashing", "Unschedulable", "PodNotStarting", "PodsRefused"})
# Reasons whose message is about what the user wrote.
USER_REASONS: Final = frozenset(kind.reason for kind in (InvalidSpec, MissingApi, ApplyError, NameTaken))
# Reasons of a spec that was not applied.
UNAPPLIED_REASONS: Final = USER_REASONS | {ClusterError.reason, InternalError.reason}


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
    autoscaling: Condition | None = None,
) -> dict[str, Any]:
    """Returns the whole status.

    `spec` and `way` are None if the spec could not be parsed. `previous` is the current status of the resource. `suspended` is the value of
    spec.suspend, which is known even if the rest of the spec cannot be parsed. `autoscaling` is the condition of the autoscaler, which only
    some resources have.
    """
    before = {one["type"]: one for one in previous.get("conditions", ())}
    observation = _with_fields(observation, spec, owner)
    # If the spec was applied before the cluster failed, the state of its pods still holds.
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
        *([autoscaling] if autoscaling is not None else []),
    ]
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "replicas": workload.replicas if workload else 0,
        "readyReplicas": workload.ready if workload else 0,
        "selector": selector_text(owner.name),
        "conditions": [_stamp(condition, before.get(condition.type), generation, now) for condition in conditions],
    }
    listed = previous.get("adapters") if spec is None else adapters.statuses(adapters.view(spec, observation.pods))
    if listed:
        status["adapters"] = listed
    # A spec that was not applied changes no route.
    address = previous.get("url") if spec is None or isinstance(error, MissingApi) else url(spec.route, owner)
    # If nothing was ever applied, no Service has the address.
    is_absent = isinstance(error, SpecError) and workload is None
    return status | ({"url": address} if address and route.status != "False" and not is_absent else {})


def _was_applied(before: Mapping[str, Any], generation: int) -> bool:
    """Returns whether an earlier reconcile applied this generation of the spec."""
    last = before.get("Ready", {})
    if last.get("observedGeneration") != generation or last["reason"] in UNAPPLIED_REASONS:
        return False
    # If older pods serve, the spec is either being rolled out or could not be applied.
    return last["reason"] != "ServingOldSpec" or before["Degraded"]["reason"] not in UNAPPLIED_REASONS


def _with_fields(seen: Observation, spec: Spec | None, owner: Owner) -> Observation:
    """Returns the observation with the field that requests each missing Secret, once for all pods that wait for it."""

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
        are_there = (workload is not None and workload.replicas) or any(not pod.ended for pod in seen.pods)
        pods = "pods finish their open answers and stop" if are_there else "all pods are stopped"
        again = f"set it to false to run {_pods(spec.replicas)}"
        return Condition("Ready", "False", "Suspended", f"{pods} because spec.suspend is true; {again}")
    if spec.replicas == 0:
        return Condition("Ready", "False", "ScaledToZero", f"no pods run because {_why_no_pods(spec)}; {_to_serve(spec)}")
    if workload is None:
        return Condition("Ready", "False", "Starting", "the Deployment is being created")
    troubles = _sorted(_troubles(seen))
    if workload.ready > 0 and _serves_old_spec(seen):
        waits_for = gist(_texts(troubles), _SEE_DEGRADED) or "pods with the current spec are starting"
        return Condition("Ready", "True", "ServingOldSpec", f"{_count(workload)}, with the previous spec; {waits_for}")
    if workload.ready > 0:
        return Condition("Ready", "True", "Serving", _count(workload))
    if troubles:
        return Condition("Ready", "False", troubles[0].reason, f"{_count(workload)}; {gist(_texts(troubles), _SEE_DEGRADED)}")
    loading = "; the engine is loading the model, which can take several minutes"
    return Condition("Ready", "False", "Starting", f"{_count(workload)}{loading if any(pod.running for pod in seen.pods) else ''}")


def progressing(spec: Spec | None, error: OperatorError | None, seen: Observation, *, suspended: bool = False) -> Condition:
    workload = seen.workload
    if error is not None or spec is None:
        waits_for_user = error is None or isinstance(error, SpecError)
        what = (
            "the operator is waiting until the spec is corrected"
            if waits_for_user
            else "the operator is waiting for the cluster and tries again"
        )
        if waits_for_user and suspended:
            what += "; spec.suspend is also true, so pods start only after it is set to false"
        return Condition("Progressing", "False", error.reason if error else "InvalidSpec", what)
    draining = sum(pod.terminating and pod.served for pod in seen.pods)
    stopping = sum(pod.terminating and not pod.served for pod in seen.pods)
    if workload is None or not workload.observed:
        return Condition("Progressing", "True", "Applying", "the Deployment has been applied; waiting for the Deployment controller")
    if workload.stalled:
        causes = [gist(found, _SEE_DEGRADED)] if (found := _texts(_sorted(_troubles(seen)))) else []
        return Condition("Progressing", "False", "Stalled", "; ".join(["the rollout is stuck", *causes]))
    is_rolling = workload.replicas > workload.updated
    blocked = _blocked(seen)
    if blocked is not None and (is_rolling or workload.ready < workload.desired):
        return Condition("Progressing", "False", blocked.reason, f"the rollout is blocked: {gist([blocked.message], _SEE_DEGRADED)}")
    if is_rolling:
        how = ", which stay until enough newer ones are ready" if workload.surges else ""
        return Condition("Progressing", "True", "RollingOut", f"pods with the current spec are replacing older ones{how}")
    if workload.ready < workload.desired:
        return Condition("Progressing", "True", "Starting", _count(workload))
    if draining:
        return Condition("Progressing", "True", "Draining", f"waiting for {_pods(draining)} to finish open streams and stop")
    if stopping:
        return Condition("Progressing", "True", "Stopping", f"waiting for {_pods(stopping)} to stop")
    if (changing := adapters.under_way(spec, adapters.view(spec, seen.pods), seen.pods)) is not None:
        return Condition("Progressing", "True", "LoadingAdapters", changing)
    if workload.desired == 0:
        return Condition("Progressing", "False", "Complete", f"all pods are stopped because {_why_no_pods(spec)}")
    return Condition("Progressing", "False", "Complete", _count(workload))


def degraded(error: OperatorError | None, seen: Observation, spec: Spec | None = None) -> Condition:
    failed = adapters.adapter_troubles(adapters.view(spec, seen.pods)) if spec is not None else ()
    found = _sorted([*_troubles(seen), *_stalled(seen.workload), *reported_troubles(seen.pods), *seen.troubles, *failed])
    if error is not None:
        return Condition("Degraded", "True", error.reason, join([str(error), *_texts(found)]))
    if found:
        return Condition("Degraded", "True", found[0].reason, join([*_cut(seen), *_texts(found)]))
    if spec is not None and spec.suspend:
        later = f"{_pods(spec.replicas)} will run when spec.suspend is false"
        return Condition("Degraded", "False", "AsExpected", f"nothing is wrong; the AliseEngine is suspended, and {later}")
    return Condition("Degraded", "False", "AsExpected", "nothing is wrong")


def _why_no_pods(spec: Spec) -> str:
    if spec.suspend:
        return "spec.suspend is true"
    return "no request came lately" if _sleeps(spec) else "spec.replicas is 0"


def _to_serve(spec: Spec) -> str:
    return "the next request is held until a pod has started" if _sleeps(spec) else "raise it to serve requests"


def _sleeps(spec: Spec) -> bool:
    return spec.autoscaling is not None and spec.autoscaling.min_replicas == 0


def changes(previous: Mapping[str, Any], status: Mapping[str, Any]) -> list[Condition]:
    """Returns the conditions that are worth an event, one per reason, the gravest.

    These are conditions whose status or reason changed, and mistakes of the user whose message changed. The messages of pods may differ
    after every restart, so they do not count as a change.
    """
    before = {one["type"]: one for one in previous.get("conditions", ())}
    # Degraded has an event; another condition with the same reason needs none.
    wrong = next((one["reason"] for one in status["conditions"] if one["type"] == "Degraded" and one["status"] == "True"), None)
    found: dict[str, Condition] = {}
    for one in status["conditions"]:
        condition = Condition(one["type"], one["status"], one["reason"], one["message"])
        old = before.get(condition.type)
        if condition.type == kv_cache.TYPE:
            changed = kv_cache.is_news(condition, old)
        elif condition.type == scaling_condition.TYPE:
            # Steps have events of their own.
            changed = old is not None and old["status"] != condition.status
        elif old is None:
            # A resource that is well from the beginning needs no event.
            changed = condition.status == "False" if condition.type == "RouteReady" else (condition.type, condition.status) != _WELL
        else:
            reworded = condition.reason in USER_REASONS and old["message"] != condition.message
            changed = (old["status"], old["reason"]) != (condition.status, condition.reason) or (reworded and is_warning(condition))
        if condition.reason == wrong and not is_warning(condition):
            continue
        if changed and condition.reason not in _NO_NEWS and (condition.reason not in found or is_warning(condition)):
            found[condition.reason] = condition
    if any(is_warning(one) and one.reason in UNAPPLIED_REASONS for one in found.values()):
        # The event for Degraded covers that older pods keep serving.
        found.pop("ServingOldSpec", None)
    return list(found.values())


def is_warning(condition: Condition) -> bool:
    return condition.type == "Degraded" and condition.status == "True"


def _troubles(seen: Observation) -> list[Trouble]:
    """Returns what keeps pods from working. A pod that has ended no longer counts once enough other pods are ready, and that an older one
    finds no room does not count once there are newer ones."""
    workload = seen.workload
    replaced = workload is not None and workload.ready >= workload.desired
    newest = {pod.uid for pod in seen.pods if workload is not None and pod.template == workload.template}
    return [
        *(workload.troubles if workload else ()),
        *(
            _with_hint(trouble, seen)
            for pod in seen.pods
            if not (pod.ended and replaced)
            for trouble in pod.troubles
            if trouble.reason != "Unschedulable" or not newest or pod.uid in newest
        ),
    ]


def _with_hint(trouble: Trouble, seen: Observation) -> Trouble:
    workload = seen.workload
    if trouble.reason != "Unschedulable" or workload is None or not workload.surges or not _serves_old_spec(seen):
        return trouble
    # While another pod finds no room anyway, no ready one is stopped for the new one.
    if workload.ready < workload.desired:
        return trouble
    hint = "an older pod still uses the capacity; spec.engine.rollout: replace stops the older pod first"
    return Trouble(trouble.reason, f"{trouble.message}; {hint}")


def _serves_old_spec(seen: Observation) -> bool:
    """Returns whether pods are ready and none of them was created from the newest template."""
    serving = [pod.template for pod in seen.pods if pod.ready and not pod.terminating]
    return seen.workload is not None and bool(serving) and seen.workload.template not in serving


def _blocked(seen: Observation) -> Trouble | None:
    """Returns what blocks a rollout. The trouble of an older pod ends with that pod, so it blocks nothing."""
    if seen.workload is None:
        return None
    current = [pod for pod in seen.pods if pod.template == seen.workload.template and not pod.ended]
    troubles = [*seen.workload.troubles, *(_with_hint(trouble, seen) for pod in current for trouble in pod.troubles)]
    return next((trouble for trouble in _sorted(troubles) if trouble.reason in BLOCKING), None)


def _cut(seen: Observation) -> Iterator[str]:
    """Yields how many pods were checked, if there are too many to check each."""
    if seen.is_cut and seen.workload is not None:
        yield f"{len(seen.pods):,} of {max(seen.workload.replicas, len(seen.pods) + 1):,} pods were checked"


def _stalled(workload: Workload | None) -> Iterator[Trouble]:
    if workload is not None and workload.stalled:
        yield Trouble("Stalled", "the rollout has made no progress for over an hour; older pods, if there are any, keep serving")


def _with_state(error: OperatorError | None, workload: Workload | None) -> str:
    causes = [str(problem) for problem in error.problems] if isinstance(error, InvalidSpec) else [str(error)] if error else []
    cause = gist(causes, _SEE_DEGRADED) or "the spec cannot be read"
    if workload is None or workload.replicas == 0:
        return f"no pods are running; {cause}"
    kept = f"pods with the last valid spec are kept: {_count(workload)}"
    return f"{kept}; {cause}" if workload.ready else f"{cause}; {kept}"


def _count(workload: Workload) -> str:
    # During a rollout there may be more pods than requested.
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
        # A refusal by the API server quotes what the user wrote.
        "message": one_line(condition.message, MAX_MESSAGE),
        "lastTransitionTime": since,
        "observedGeneration": generation,
    }

"""The condition AutoscalingActive: whether the operator sets the replicas, what holds it back, and why it last changed them. Pure.

autoscaler.py and reconcile.py call it. The message has no number that changes with the work: those are metrics. The last step is part of
the message. It is carried over from the present condition, so that it survives a restart of the operator.
"""

from collections.abc import Mapping
from typing import Any, Final

from alise_operator.autoscaling import MAXIMUM, PICKER_SILENT, SILENT, STARTING, ZERO
from alise_operator.conditions import Condition
from alise_operator.errors import OperatorError
from alise_operator.spec import Spec
from alise_operator.spec_autoscaling import Autoscaling

TYPE: Final = "AutoscalingActive"
BY_KEDA, KEDA_SILENT = "ScaledByKEDA", "KedaSilent"
_LAST_STEP: Final = "; last step: "


def of(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Returns the present condition in a status; None if there is none."""
    return next((one for one in status.get("conditions", ()) if one["type"] == TYPE), None)


def is_by_keda(before: Mapping[str, Any] | None) -> bool:
    """Returns whether the present condition says that KEDA scales."""
    return before is not None and before.get("reason") in (BY_KEDA, KEDA_SILENT)


def is_paused(spec: Spec) -> bool:
    """Returns whether a user has scaled to 0, which pauses autoscaling unless 0 is one of its own numbers."""
    return spec.replicas == 0 and spec.autoscaling is not None and spec.autoscaling.min_replicas > 0


def at_first(spec: Spec, status: Mapping[str, Any]) -> Spec:
    """Returns the spec with the number of pods that it has before their work is known, so that none is stopped too early.

    Pods that serve requests, by the last status, stay up to the minimum, and where autoscaling begins up to the maximum, because `kubectl
    apply` of a manifest that no longer has replicas sets the default of the resource, 1.
    """
    rule = spec.autoscaling
    if rule is None or spec.suspend or spec.replicas == 0:
        return spec
    least = min(int(status.get("readyReplicas", 0)), rule.min_replicas if _has_begun(status) else rule.max_replicas)
    return spec if spec.replicas >= least else spec.model_copy(update={"replicas": least})


def begins_unread(raw: object, status: Mapping[str, Any]) -> bool:
    """Returns whether autoscaling begins with a spec that cannot be read, so that its replicas may be the default and no choice."""
    return isinstance(raw, dict) and raw.get("autoscaling") is not None and not _has_begun(status)


def _has_begun(status: Mapping[str, Any]) -> bool:
    """Returns whether a reconcile has set the replicas since spec.autoscaling is there."""
    before = of(status)
    return before is not None and before.get("reason") != "ScaleFailed"


def stands_by(spec: Spec | None, before: Mapping[str, Any] | None) -> Condition | None:
    """Returns the condition while the operator does not scale; None if there is nothing to report about autoscaling."""
    if spec is None:
        if before is None:
            return None
        return Condition(TYPE, "False", "InvalidSpec", f"the replicas stay as they are until the spec is corrected{_last_step(before)}")
    if spec.autoscaling is None:
        return None
    if spec.suspend:
        return Condition(TYPE, "False", "Suspended", f"spec.suspend is true; set it to false to resume autoscaling{_last_step(before)}")
    least = spec.autoscaling.min_replicas
    return Condition(
        TYPE,
        "False",
        "Paused",
        f"autoscaling is paused because spec.replicas was set to 0, and spec.autoscaling.minReplicas is {least}; scale to {least} or more "
        f"to resume it{_last_step(before)}",
    )


def by_another(name: str, *, is_silent: bool) -> Condition:
    """Returns the condition while KEDA scales; `is_silent` if it has not asked for the predicted work for a long time."""
    if is_silent:
        return Condition(
            TYPE,
            "False",
            KEDA_SILENT,
            "KEDA has not asked the operator for the predicted work for two minutes, so the number of pods stays as it is; kubectl "
            f"describe scaledobject {name} says why; KEDA must run, reach the operator on port 9501 (ALISE_SCALER_ADDRESS, the "
            "NetworkPolicy alise-operator), and trust its certificate (the ClusterTriggerAuthentication)",
        )
    how = f"kubectl describe scaledobject {name} says how"
    return Condition(TYPE, "True", BY_KEDA, f"KEDA sets spec.replicas by the predicted work; {how}")


def failed(replicas: int, error: OperatorError, before: Mapping[str, Any] | None) -> Condition:
    """Returns the condition after the replicas could not be set. The next reconcile tries again."""
    return Condition(TYPE, "False", "ScaleFailed", f"spec.replicas could not be set to {replicas}: {error}{_last_step(before)}")


def while_scaling(spec: Autoscaling, reason: str, step: str, before: Mapping[str, Any] | None) -> Condition:
    """Returns the condition after a decision. `step` is what it changed and why; empty if nothing."""
    last = f"{_LAST_STEP}{step}" if step else _last_step(before)
    return Condition(TYPE, "Unknown" if reason in (SILENT, PICKER_SILENT) else "True", reason, _state(spec, reason) + last)


def _state(spec: Autoscaling, reason: str) -> str:
    if reason == STARTING:
        return "pods are starting; until they are ready, the backlog adds no further pods"
    if reason == MAXIMUM:
        return (
            f"the predicted work needs more pods than spec.autoscaling.maxReplicas allows, which is {spec.max_replicas}; raise it to serve "
            "requests sooner"
        )
    if reason == SILENT:
        return (
            "a ready pod does not report its predicted work, so pods are added but not removed; Degraded says what is wrong with the pod; "
            "pods with images of an older release do not report it"
        )
    if reason == PICKER_SILENT:
        return (
            "the endpoint picker does not say whether it holds a request, so a pod starts when it has not answered for a minute; "
            "`kubectl get pods -l alise.dev/picker` shows the picker, and the operator must reach its port 9600"
        )
    if reason == ZERO:
        return "no request came for spec.autoscaling.idleSeconds; a pod starts as soon as the endpoint picker holds a request"
    return "the operator sets spec.replicas by the predicted work"


def _last_step(before: Mapping[str, Any] | None) -> str:
    _, found, step = str((before or {}).get("message", "")).partition(_LAST_STEP)
    return found + step

"""Explains why the cluster refuses to create the pods of the Deployment: its message, and the field of the AliseEngine to change.

Pure: observation.py calls `explain()` for a Deployment with the condition ReplicaFailure.
"""

import re
from collections.abc import Callable
from typing import Final

from alise_operator.sentences import beginning, one_line

# Each attempt has another pod name.
_SUBJECT: Final = re.compile(r'^pods "[^"]*" is forbidden: ')
_REQUESTED: Final = re.compile(r"requested: (.*?), used: ")
_LIMITED: Final = re.compile(r"limited: (.*)$")
_COUNTS: Final = ("pods", "count/pods")
_RESOURCES: Final = "spec.engine.resources and spec.scheduling.resources"


def explain(message: str, namespace: str) -> str:
    """Returns the message of the cluster without the pod's name, and what to do."""
    text = _SUBJECT.sub("", one_line(message))
    found = ((match, way_out) for pattern, way_out in _WAYS_OUT if (match := pattern.search(text)) is not None)
    match, way_out = next(found, (None, None))
    return (
        f"the cluster refuses the pods: {beginning(text)}{way_out(match, namespace) if match is not None and way_out is not None else ''}"
    )


def _priority_class(_: re.Match[str], __: str) -> str:
    return ". Set spec.podTemplate.spec.priorityClassName to one that exists (kubectl get priorityclasses), or leave it out"


def _runtime_class(_: re.Match[str], __: str) -> str:
    return ". Set spec.podTemplate.spec.runtimeClassName to one that exists (kubectl get runtimeclasses), or leave it out"


def _quota(match: re.Match[str], namespace: str) -> str:
    requested, limited = _REQUESTED.search(match.string), _LIMITED.search(match.string)
    limits = [one.partition("=") for one in limited[1].split(",")] if limited is not None else []
    none = [name.strip().removeprefix("count/") for name, _, most in limits if most.strip() == "0"]
    if none:
        return (
            f"; the quota allows no {' and no '.join(dict.fromkeys(none))}: ask the quota's owner for as many as spec.replicas needs, and "
            f"one more for rollouts (kubectl describe quota -n {namespace})"
        )
    names = [one.partition("=")[0] for one in requested[1].split(",")] if requested is not None else []
    lower = "spec.replicas" if names and all(name in _COUNTS for name in names) else f"spec.replicas, or {_RESOURCES}"
    return f"; lower {lower}, or ask the quota's owner for more (kubectl describe quota -n {namespace})"


def _unspecified(_: re.Match[str], namespace: str) -> str:
    return f"; set these in {_RESOURCES} (kubectl describe quota -n {namespace} shows what is limited)"


def _limit_range(_: re.Match[str], namespace: str) -> str:
    return f"; change {_RESOURCES} (kubectl describe limitrange -n {namespace} shows what is allowed)"


def _pod_security(_: re.Match[str], namespace: str) -> str:
    label = f"the label pod-security.kubernetes.io/enforce of namespace {namespace}"
    return f"; correct spec.podTemplate, or ask an administrator to change {label}"


# Messages of the API server's admission, and the way out; the first match counts.
_WAYS_OUT: Final[tuple[tuple[re.Pattern[str], Callable[[re.Match[str], str], str]], ...]] = (
    (re.compile(r"no PriorityClass with name \S+ was found"), _priority_class),
    (re.compile(r'RuntimeClass "[^"]*" not found'), _runtime_class),
    (re.compile(r"exceeded quota: "), _quota),
    (re.compile(r"failed quota: .*must specify "), _unspecified),
    (re.compile(r"(?:maximum|minimum) \S+ usage per (?:Container|Pod) is "), _limit_range),
    (re.compile(r'violates PodSecurity "'), _pod_security),
)

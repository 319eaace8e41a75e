"""Explains an unschedulable pod: what it requests in total, and which field of the AliseEngine lowers the request.

Pure: observation.py appends the advice to the message of the cluster's scheduler.
"""

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from alise_contract.quantities import format_bytes, parse_quantity
from alise_operator.children.meta import Manifest

# How the cluster's scheduler names a resource of which no node has enough.
_SHORT: Final = re.compile(r"Insufficient ([A-Za-z0-9][-./A-Za-z0-9]*[A-Za-z0-9])")
_ALWAYS_SHOWN: Final = ("cpu", "memory")
_BYTES: Final = ("memory", "ephemeral-storage")


def advice(message: str, pod: Manifest) -> str:
    """Returns what the pod requests in total and what to lower; empty if the scheduler names no resource."""
    short = list(dict.fromkeys(_SHORT.findall(message)))
    if not short:
        return ""
    try:
        total = _requests(pod)
    except ValueError:
        return ""
    shown = " and ".join(f"{_amount(name, total[name])} {name}" for name in dict.fromkeys((*_ALWAYS_SHOWN, *short)) if name in total)
    fields = " and ".join(_field(name) for name in short)
    ways = f"lower {fields}, stop another workload, add a node, or wait if a pod is about to leave, as in a rollout"
    return f"; the pod requests {shown} in total; {ways}"


def _field(resource: str) -> str:
    if "/" in resource:
        return f"spec.engine.tensorParallelSize with spec.engine.resources.limits[{resource}]"
    return f"spec.engine.resources.requests.{resource}"


def _requests(pod: Manifest) -> dict[str, Decimal]:
    """Returns what a node must have free: the sum of all containers, or the largest init container if it needs more. Raises ValueError."""
    spec = pod.get("spec") or {}
    before = spec.get("initContainers") or ()
    total: dict[str, Decimal] = {}
    for container in (*(spec.get("containers") or ()), *(one for one in before if one.get("restartPolicy") == "Always")):
        for name, amount in _of(container):
            total[name] = total.get(name, Decimal(0)) + amount
    for container in before:
        for name, amount in _of(container):
            total[name] = max(total.get(name, Decimal(0)), amount)
    return total


def _of(container: Manifest) -> Iterator[tuple[str, Decimal]]:
    for name, text in ((container.get("resources") or {}).get("requests") or {}).items():
        yield name, parse_quantity(str(text))


def _amount(resource: str, amount: Decimal) -> str:
    return format_bytes(int(amount)) if resource in _BYTES else f"{amount.normalize():f}"

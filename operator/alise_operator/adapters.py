"""What the pods say about the adapters of the resource: how many pods serve each one, what failed, and what is still to come; pure.

status.py makes it part of the status and of the conditions Progressing and Degraded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from alise_contract import adapters as contract
from alise_operator.adapter_rules import listed
from alise_operator.observation import AdapterReport, Pod, Trouble
from alise_operator.spec import Spec

REASON: Final = "AdapterNotLoaded"
LOADED, FAILED = "ADAPTER_STATE_LOADED", "ADAPTER_STATE_FAILED"


@dataclass(frozen=True, slots=True)
class AdapterView:
    """One adapter of the spec, over all pods that report."""

    adapter: contract.Adapter
    index: int
    # Pods that serve this version of it, and all that report.
    loaded: int
    pods: int
    # (pod, why, whether the pod serves an older version) of each pod that could not load it.
    failures: tuple[tuple[str, str, bool], ...] = ()


def view(spec: Spec, pods: Sequence[Pod]) -> list[AdapterView]:
    return [_view(adapter, index, _reporting(pods)) for index, adapter in enumerate(listed(spec.model))]


def _view(adapter: contract.Adapter, index: int, pods: dict[str, tuple[AdapterReport, ...]]) -> AdapterView:
    loaded, failures = 0, []
    for pod, rows in pods.items():
        mine = [row for row in rows if row.name == adapter.name]
        own = next((row for row in mine if row.source == adapter.source), None)
        loaded += own is not None and own.state == LOADED
        if own is not None and own.state == FAILED:
            failures.append((pod, own.message, any(row.state == LOADED for row in mine)))
    return AdapterView(adapter, index, loaded, len(pods), tuple(failures))


def _reporting(pods: Sequence[Pod]) -> dict[str, tuple[AdapterReport, ...]]:
    return {pod.name: pod.report.adapters for pod in pods if pod.ready and not pod.terminating and pod.report is not None}


def statuses(views: Sequence[AdapterView]) -> list[dict[str, Any]]:
    """Returns `status.adapters`."""
    return [{"name": one.adapter.name, "loadedPods": one.loaded, "message": _message(one)} for one in views]


def _message(one: AdapterView) -> str:
    if one.failures:
        pod, why, _ = one.failures[0]
        return f"{_count(one)}; pod {pod}: {why}"
    return _count(one)


def _count(one: AdapterView) -> str:
    return f"loaded in {one.loaded} of {one.pods} pods that report" if one.pods else "no pod reports its adapters yet"


def adapter_troubles(views: Sequence[AdapterView]) -> Iterator[Trouble]:
    """Yields each adapter that a pod could not load."""
    for one in views:
        if not one.failures:
            continue
        pod, why, has_older = one.failures[0]
        more = f" and {len(one.failures) - 1} more" if len(one.failures) > 1 else ""
        effect = "its older version is still served" if has_older else "requests for it get 404 there"
        yield Trouble(
            REASON,
            f"pod {pod}{more}: adapter {one.adapter.name} (spec.model.adapters[{one.index}]) cannot be loaded, so {effect}: {why}; the pod "
            "tries again every few minutes",
        )


def under_way(spec: Spec, views: Sequence[AdapterView], pods: Sequence[Pod]) -> str | None:
    """Returns which adapters pods are still loading or unloading; None if there are none."""
    loading = [one.adapter.name for one in views if one.loaded + len(one.failures) < one.pods]
    names = {adapter.name for adapter in listed(spec.model)}
    reported = {row.name for rows in _reporting(pods).values() for row in rows}
    parts = [*_named("load", loading), *_named("unload", sorted(reported - names))]
    return f"waiting for pods to {' and to '.join(parts)}; pods read a changed list within about 90 seconds" if parts else None


def _named(verb: str, names: Sequence[str]) -> list[str]:
    return [f"{verb} {', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"] if names else []

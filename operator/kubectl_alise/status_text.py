"""The text of `kubectl alise status`; pure. `cli.py` reads the objects and prints the lines, `pods.py` reads a pod's report with it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from .objects import Condition, Engine, Event, Pod
from .tables import age, table

# Conditions whose True is good news. For all others, it is False.
_GOOD: Final = frozenset({"Ready", "RouteReady", "AutoscalingActive"})
_EVENTS_SHOWN: Final = 5
_LIST: Final = ("NAME", "MODEL", "READY", "PODS", "WHAT IS WRONG", "URL", "AGE")
_PODS: Final = ("POD", "READY", "STATE", "RESTARTS", "SPEC", "RUNNING", "WAITING", "OFFLOADED", "RANKED", "NODE", "AGE")


@dataclass(frozen=True, slots=True)
class Report:
    """What a pod reports of its requests (`alise-engine status`)."""

    running: int
    waiting: int
    offloaded: int
    # The scheduler's plan is fresh, so requests run by rank.
    ranked: bool


def report_of(status: Mapping[str, Any]) -> Report:
    """The report in the JSON of `alise-engine status`."""
    return Report(
        running=int(status.get("requests_running", 0)),
        waiting=int(status.get("requests_waiting", 0)),
        offloaded=int(status.get("requests_offloaded", 0)),
        ranked=bool(status.get("sidecar", {}).get("plan_fresh", False)),
    )


def list_text(engines: Sequence[Engine], now: datetime, with_namespace: bool) -> list[str]:
    """One line for each resource, or a sentence if there is none."""
    if not engines:
        return ["There is no AliseEngine here: give another -n, or -A for all namespaces."]
    headings = (("NAMESPACE",) if with_namespace else ()) + _LIST
    rows = [
        ((one.namespace,) if with_namespace else ())
        + (one.name, one.model, _truth(one.condition("Ready")), f"{one.ready}/{one.wanted}", _reason(one), one.url, age(one.created, now))
        for one in engines
    ]
    return table(headings, rows)


def status_text(
    engine: Engine,
    pods: Sequence[Pod],
    newest_template: str,
    reports: Mapping[str, Report],
    events: Sequence[Event],
    now: datetime,
    not_understood: Mapping[str, str] | None = None,
) -> list[str]:
    """Everything about one resource: its state, its pods and its rollout, its routes, its events, and what is wrong.

    `not_understood` says by pod why its figures are missing.
    """
    return list(_status(engine, pods, newest_template, reports, events, now, not_understood or {}))


def _status(
    engine: Engine,
    pods: Sequence[Pod],
    newest_template: str,
    reports: Mapping[str, Report],
    events: Sequence[Event],
    now: datetime,
    not_understood: Mapping[str, str],
) -> Iterator[str]:
    yield f"{engine.namespace}/{engine.name}: {_summary(engine, pods)}"
    yield f"Model {engine.model}. {_route(engine)}"
    yield from (f"Adapter {name}: {message}." for name, message in engine.adapters)
    yield ""
    yield from _trouble(engine)
    yield ""
    yield from _pods(pods, newest_template, reports, now)
    yield from (f"{pod}: {why}." for pod, why in not_understood.items())
    yield ""
    yield from table(
        ("CONDITION", "STATUS", "REASON", "MESSAGE"),
        [(one.type, one.status, one.reason, _first_sentence(one.message)) for one in engine.conditions],
    )
    if events:
        yield ""
        yield from table(("EVENT", "AGE", "MESSAGE"), [(one.reason, age(one.at, now), one.message) for one in events[-_EVENTS_SHOWN:]])


def _summary(engine: Engine, pods: Sequence[Pod]) -> str:
    if engine.suspended and not _is_seen(engine):
        return "is to be suspended."
    if engine.suspended:
        left = sum(1 for pod in pods if pod.phase not in ("Succeeded", "Failed"))
        state = f"suspended; pods that finish their open answers and stop: {left}." if left else "suspended, so it has no pods."
        return f"{state} `spec.suspend: false` starts them."
    ready = engine.condition("Ready")
    if ready is None:
        return "the operator has not reported on it."
    serves = "serves requests" if ready.status == "True" else f"does not serve requests ({ready.reason})"
    last = "" if _is_seen(engine) else "as last reported by the operator, it "
    return f"{last}{serves}, {engine.ready} of {engine.wanted} pods are ready."


def _route(engine: Engine) -> str:
    route = engine.condition("RouteReady")
    if engine.url and (route is None or route.status == "True"):
        return f"URL {engine.url}"
    if route is None or route.status == "True":
        return "No route: it is reached inside the cluster only."
    return f"Requests from outside do not arrive ({route.reason})."


def _trouble(engine: Engine) -> Iterator[str]:
    bad = [one for one in engine.conditions if _is_bad(one)]
    if not bad and _is_seen(engine):
        yield "Nothing is wrong."
        return
    yield "What is wrong, and what to do:"
    if not _is_seen(engine):
        yield "  The operator has not seen the newest spec. If this lasts for more than some seconds, it does not run, or does not manage"
        yield "  this namespace: `kubectl -n alise-system get pods`"
    said: set[str] = set()
    # Degraded has the whole message, the others its beginning.
    for one in sorted(bad, key=lambda condition: condition.type != "Degraded"):
        if one.message not in said and not any(message.startswith(one.message.rstrip(".… ")) for message in said):
            said.add(one.message)
            yield f"  {one.type} ({one.reason}): {one.message}"


def _is_seen(engine: Engine) -> bool:
    return bool(engine.conditions) and engine.observed_generation >= engine.generation


def _is_bad(condition: Condition) -> bool:
    if condition.type in ("Progressing", "AutoscalingActive") or condition.status == "Unknown":
        return False
    return condition.status == ("False" if condition.type in _GOOD else "True")


def _pods(pods: Sequence[Pod], newest_template: str, reports: Mapping[str, Report], now: datetime) -> Iterator[str]:
    if not pods:
        yield "There are no pods."
        return
    rows = [_pod(pod, newest_template, reports.get(pod.name), now) for pod in pods]
    yield from table(_PODS, rows)
    older = sum(1 for row in rows if row[4] == "older")
    if older:
        yield f"A rollout is in progress: {older} of {len(rows)} pods have an older spec."


def _pod(pod: Pod, newest_template: str, report: Report | None, now: datetime) -> tuple[str, ...]:
    spec = "" if not newest_template or not pod.template else "newest" if pod.template == newest_template else "older"
    figures = ("", "", "", "")
    if report is not None:
        figures = (str(report.running), str(report.waiting), str(report.offloaded), "yes" if report.ranked else "no")
    ready = "yes" if pod.ready else "no"
    return (pod.name, ready, pod.state(), str(pod.restarts()), spec, *figures, pod.node, age(pod.created, now))


def _truth(condition: Condition | None) -> str:
    return "" if condition is None else condition.status


def _reason(engine: Engine) -> str:
    degraded, ready = engine.condition("Degraded"), engine.condition("Ready")
    if degraded is not None and degraded.status == "True":
        return degraded.reason
    if not _is_seen(engine):
        return "not seen by the operator"
    return ready.reason if ready is not None and ready.status != "True" else ""


def _first_sentence(text: str) -> str:
    first = text.split("\n")[0]
    return first if len(first) <= 100 else first[:99] + "…"

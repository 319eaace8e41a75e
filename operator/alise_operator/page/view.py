"""Decides what the page shows, from objects of the API server and from the pods' reports. Its results are the values of shown.py. Pure.

Every text may be a user's or a pod's. It stays as it is here, and render.py escapes it. `read.py` calls it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from alise_operator.children.meta import Manifest
from alise_operator.load import Load, load_of
from alise_operator.observation import Observation, Pod
from alise_operator.page.shown import AdapterRow, Badge, ConditionRow, EnginePage, EventRow, Overview, PodRow, Row, Share, Tile, Tone
from alise_operator.sentences import gist

# Conditions whose True is good news. For all others, it is False.
_GOOD: Final = frozenset({"Ready", "RouteReady", "AutoscalingActive"})
# Conditions that describe what goes on and say nothing bad.
_NEUTRAL: Final = frozenset({"Progressing", "AutoscalingActive"})
# Reasons of a resource that has no pods because it was asked for.
_STOPPED: Final = frozenset({"Suspended", "ScaledToZero"})
# What goes on, by the reason of Progressing, if it is no rollout.
_UNDER_WAY: Final = {"LoadingAdapters": "Loading adapters", "Draining": "Draining", "Stopping": "Stopping pods"}
_ORDER: Final = ("Ready", "Degraded", "RouteReady", "Progressing", "KVCacheShort", "AutoscalingActive")
_TONES: Final[Sequence[Tone]] = ("bad", "warn", "busy", "idle", "good")
MOST_EVENTS: Final = 12
_UNKNOWN: Final = "–"


def overview(found: Iterable[Manifest], loads: Mapping[tuple[str, str], Load], now: datetime, *, namespace: str = "") -> Overview:
    """Returns the list of all, what is wrong first. `loads` is by namespace and name."""
    engines = list(found)
    rows = [_row(one, loads.get((one["metadata"]["namespace"], one["metadata"]["name"])), now) for one in engines]
    rows.sort(key=lambda row: (_TONES.index(row.state.tone), row.namespace, row.name))
    ready = sum(int(one.get("status", {}).get("readyReplicas", 0)) for one in engines)
    wanted = sum(_wanted(one) for one in engines)
    wrong = sum(row.state.tone in ("bad", "warn") for row in rows)
    known = [loads[key] for one in engines if (key := (one["metadata"]["namespace"], one["metadata"]["name"])) in loads]
    tiles = (
        Tile("AliseEngines", str(len(rows)), "idle"),
        Tile("need attention", str(wrong), "bad" if wrong else "good"),
        Tile("pods ready", f"{ready} of {wanted}", "good" if ready >= wanted else "warn"),
        Tile("requests running", str(sum(one.running for one in known)), "idle"),
        Tile("requests waiting", str(sum(one.waiting for one in known)), "idle"),
        Tile("predicted work", duration(sum(one.backlog_seconds or 0.0 for one in known)), "idle"),
    )
    silent = sum(one.silent for one in known)
    missing = [f"No answer from {_count(silent, 'ready pod')}: the figures are those of the other pods."] if silent else []
    return Overview(rows, tiles, missing, namespace)


def engine_page(
    resource: Manifest, seen: Observation | None, events: Sequence[Manifest], missing: Sequence[str], now: datetime
) -> EnginePage:
    """Returns all about one AliseEngine. `seen` is None if its pods could not be read; `missing` says what could not be."""
    conditions = [_condition(one, now) for one in _sorted_conditions(resource)]
    load = _load(seen)
    backlog = _UNKNOWN if load is None or load.backlog_seconds is None else duration(load.backlog_seconds)
    tiles = (
        Tile("pods ready", f"{int(resource.get('status', {}).get('readyReplicas', 0))} of {_wanted(resource)}", "idle"),
        Tile("requests running", _UNKNOWN if load is None else str(load.running), "idle"),
        Tile("requests waiting", _UNKNOWN if load is None else str(load.waiting), "idle"),
        Tile("offloaded to host memory", _UNKNOWN if load is None else str(load.parked), "idle"),
        Tile("predicted work", backlog, "idle"),
    )
    template = seen.workload.template if seen is not None and seen.workload is not None else ""
    cut = ("There are more pods than are shown here.",) if seen is not None and seen.is_cut else ()
    return EnginePage(
        namespace=resource["metadata"]["namespace"],
        name=resource["metadata"]["name"],
        model=_model(resource),
        state=state_of(resource),
        summary=_summary(resource),
        url=str(resource.get("status", {}).get("url", "")),
        troubles=_troubles(resource, now),
        tiles=tiles,
        conditions=conditions,
        pods=[_pod(pod, template, now) for pod in seen.pods] if seen is not None else [],
        adapters=[
            AdapterRow(str(one.get("name", "")), _sentence(str(one.get("message", ""))))
            for one in resource.get("status", {}).get("adapters", ())
        ],
        events=[_event(one, now) for one in sorted(events, key=_event_time, reverse=True)[:MOST_EVENTS]],
        missing=[*missing, *cut],
    )


def state_of(resource: Manifest) -> Badge:
    """Returns the state of an AliseEngine in one or two words."""
    found = _conditions(resource)
    ready, degraded = found.get("Ready"), found.get("Degraded", {})
    if ready is None:
        return Badge("Not reported", "idle")
    if ready["status"] != "True":
        reason = str(ready.get("reason", ""))
        if reason in _STOPPED:
            return Badge("Suspended" if reason == "Suspended" else "Scaled to zero", "idle")
        return Badge(reason or "Not ready", "busy" if reason == "Starting" and degraded.get("status") != "True" else "bad")
    if degraded.get("status") == "True" or found.get("RouteReady", {}).get("status") == "False":
        return Badge("Degraded", "warn")
    progressing = found.get("Progressing", {})
    if progressing.get("status") == "True":
        return Badge(_UNDER_WAY.get(str(progressing.get("reason", "")), "Rolling out"), "busy")
    return Badge("Serving", "good")


def duration(seconds: float) -> str:
    """Returns a time in the two largest units that matter: 0 s, 42 s, 12 min, 3 h 20 min, 5 d."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 120:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d"


def age(since: object, now: datetime) -> str:
    """Returns how long ago a time of the API server is; empty if it is none."""
    try:
        then = datetime.fromisoformat(str(since).replace("Z", "+00:00"))
    except ValueError:
        return ""
    return duration((now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds())


def _row(resource: Manifest, load: Load | None, now: datetime) -> Row:
    meta = resource["metadata"]
    troubles = _troubles(resource, now)
    return Row(
        namespace=meta["namespace"],
        name=meta["name"],
        model=_model(resource),
        state=state_of(resource),
        pods=f"{int(resource.get('status', {}).get('readyReplicas', 0))} of {_wanted(resource)}",
        running=_UNKNOWN if load is None else str(load.running),
        waiting=_UNKNOWN if load is None else str(load.waiting),
        backlog=_UNKNOWN if load is None or load.backlog_seconds is None else duration(load.backlog_seconds),
        trouble=gist([troubles[0].message], "open it for the rest.") if troubles else "",
        age=age(meta.get("creationTimestamp"), now),
    )


def _conditions(resource: Manifest) -> dict[str, Mapping[str, Any]]:
    return {str(one["type"]): one for one in resource.get("status", {}).get("conditions", ())}


def _sorted_conditions(resource: Manifest) -> list[Mapping[str, Any]]:
    found = _conditions(resource)
    return [found[kind] for kind in _ORDER if kind in found] + [one for kind, one in found.items() if kind not in _ORDER]


def _condition(one: Mapping[str, Any], now: datetime) -> ConditionRow:
    badge = Badge(str(one.get("reason") or one["status"]), _tone(one))
    return ConditionRow(str(one["type"]), badge, _sentence(str(one.get("message", ""))), age(one.get("lastTransitionTime"), now))


def _tone(one: Mapping[str, Any]) -> Tone:
    kind, truth = one["type"], one["status"]
    if truth == "Unknown" or one.get("reason") in _STOPPED:
        return "idle"
    if _is_bad(one):
        return "warn" if kind == "KVCacheShort" else "bad"
    if kind == "Progressing":
        return "busy" if truth == "True" else "idle"
    if kind == "AutoscalingActive" and truth == "False":
        return "warn" if one.get("reason") in ("ScaleFailed", "KedaSilent") else "idle"
    return "good"


def _is_bad(one: Mapping[str, Any]) -> bool:
    if one["type"] in _NEUTRAL or one["status"] == "Unknown" or one.get("reason") in _STOPPED:
        return False
    return bool(one["status"] == ("False" if one["type"] in _GOOD else "True"))


def _troubles(resource: Manifest, now: datetime) -> list[ConditionRow]:
    """What is wrong, without repetition: Degraded has the whole message, and the others have its beginning."""
    bad = sorted((one for one in _sorted_conditions(resource) if _is_bad(one)), key=lambda one: one["type"] != "Degraded")
    shown: list[ConditionRow] = []
    if _conditions(resource).get("Degraded", {}).get("status") == "True":
        bad = [one for one in bad if one["type"] != "Ready"]
    for row in (_condition(one, now) for one in bad):
        if not any(other.message.startswith(row.message.rstrip(".… ")) for other in shown):
            shown.append(row)
    return shown


def _summary(resource: Manifest) -> str:
    ready = _conditions(resource).get("Ready")
    if ready is None:
        return "The operator has not reported on it yet."
    seen = int(resource.get("status", {}).get("observedGeneration", 0)) >= int(resource["metadata"].get("generation", 0))
    late = "" if seen else " The operator has not seen the newest spec yet."
    return _sentence(str(ready.get("message", ""))) + late


def _sentence(text: str) -> str:
    """The text with a capital and a period: messages of conditions have neither."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "…", "?", "!")) or not text else ".")


def _model(resource: Manifest) -> str:
    model = resource.get("spec", {}).get("model") or {}
    return str(model.get("servedName") or model.get("uri") or "")


def _wanted(resource: Manifest) -> int:
    spec = resource.get("spec", {})
    return 0 if spec.get("suspend") is True else int(spec.get("replicas", 1))


def _load(seen: Observation | None) -> Load | None:
    return load_of(seen.pods) if seen is not None and any(pod.report is not None for pod in seen.pods) else None


def _pod(pod: Pod, template: str, now: datetime) -> PodRow:
    report = pod.report
    known = report is not None
    kv = report.kv if report is not None else None
    return PodRow(
        name=pod.name,
        node=pod.node or _UNKNOWN,
        state=_pod_state(pod),
        spec=_UNKNOWN if not template or not pod.template else "newest" if pod.template == template else "older",
        restarts=pod.restarts,
        age=age(pod.created, now),
        running=str(report.requests_running) if report is not None else _UNKNOWN,
        waiting=str(report.requests_waiting) if report is not None else _UNKNOWN,
        offloaded=str(report.requests_offloaded) if report is not None else _UNKNOWN,
        backlog=duration(report.work.backlog_seconds) if report is not None and report.work is not None else _UNKNOWN,
        ranked=_UNKNOWN if report is None else "by rank" if report.is_ranked else "by arrival",
        kv=_share(kv.used_tokens, kv.limit_tokens, f"{kv.used_tokens:,} of {kv.limit_tokens:,} tokens") if kv is not None else None,
        host=_host(pod) if known else None,
        note=_note(pod),
    )


def _pod_state(pod: Pod) -> Badge:
    if pod.ended:
        return Badge("Ended", "idle")
    if pod.terminating:
        return Badge("Draining", "busy")
    if pod.ready:
        return Badge("Ready", "good" if pod.report_error is None else "warn")
    return Badge(pod.troubles[0].reason, "bad") if pod.troubles else Badge("Starting", "busy")


def _note(pod: Pod) -> str:
    if pod.troubles:
        return _sentence(pod.troubles[0].message)
    if pod.report_error is not None:
        return f"Its figures are missing: {pod.report_error}" + ("" if pod.report_error.endswith("?") else ".")
    if pod.report is not None:
        return ""
    if pod.terminating or pod.ended:
        return "It is not asked, because it ends."
    return "It has not answered the operator yet." if pod.ready else "It is asked once it is ready."


def _host(pod: Pod) -> Share | None:
    report = pod.report
    if report is None or not report.host_limit_bytes:
        return None
    used, limit = report.host_used_bytes, report.host_limit_bytes
    return _share(used, limit, f"{_gib(used)} of {_gib(limit)} GiB")


def _share(used: int, limit: int, text: str) -> Share | None:
    return Share(min(100, max(0, round(100 * used / limit))), text) if limit > 0 else None


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f}"


def _event(one: Manifest, now: datetime) -> EventRow:
    tone: Tone = "warn" if one.get("type") == "Warning" else "idle"
    return EventRow(
        str(one.get("reason", "")), tone, _sentence(str(one.get("message", ""))), age(_event_time(one), now), int(one.get("count") or 1)
    )


def _event_time(one: Manifest) -> str:
    return str(one.get("lastTimestamp") or one.get("eventTime") or one.get("firstTimestamp") or "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

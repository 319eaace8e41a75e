"""Writes Grafana's dashboard, manifests/monitoring/dashboard.json, from the panels below: `make dashboard`.

One screen that answers why requests are slow, for whom, and what would help. A panel is a title, queries and a place on a grid that is 24
wide. Every query has the two variables that select resources; tests/monitoring runs all of them on a real Prometheus.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

TARGET: Final = Path(__file__).resolve().parents[2] / "manifests" / "monitoring" / "dashboard.json"
# Series of the selected resources.
_SELECTED: Final = 'namespace=~"$namespace", alise_engine=~"$alise_engine"'
# Values of requests are published 16 at a time, so a shorter window would often hold none.
_WINDOW: Final = "[5m]"
Json = dict[str, Any]


def of(metric: str, *matchers: str, **labels: str) -> str:
    """Returns the selector of a metric: the chosen resources, further matchers, and labels with their values."""
    return f"{metric}{{{', '.join([_SELECTED, *matchers, *(f'{name}={json.dumps(value)}' for name, value in labels.items())])}}}"


def rate(metric: str, *matchers: str, by: str = "", **labels: str) -> str:
    """Returns the summed rate of a counter, by these labels."""
    return f"sum{f' by ({by})' if by else ''} (rate({of(metric, *matchers, **labels)}{_WINDOW}))"


def share(part: str, whole: str) -> str:
    return f"{part} / {whole}"


def quantile(q: float, metric: str, by: str = "") -> str:
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', by=', '.join(filter(None, ('le', by))))})"


def within_ten_times(by: str = "") -> str:
    """Returns the share of complete answers that took at most ten times as long as on an idle engine."""
    return share(rate("alise_scheduler_slowdown_bucket", by=by, le="10.0"), rate("alise_scheduler_slowdown_count", by=by))


REJECTED: Final = 'outcome=~"overloaded|wait_too_long"'
FAILED_OPEN: Final = share(rate("alise_engine_admissions_total", outcome="failed_open"), rate("alise_engine_admissions_total"))
HOST_STORE: Final = share(f"sum ({of('alise_engine_host_bytes')})", f"sum ({of('alise_engine_host_limit_bytes')})")
RECOMPUTED: Final = share(rate("alise_engine_recomputed_tokens_total"), rate("alise_engine_computed_tokens_total"))
KV_FULL: Final = f"avg (rate({of('alise_engine_kv_full_seconds_total')}{_WINDOW}))"
_RUNNING: Final = f"sum by (namespace, pod) ({of('alise_engine_requests', phase='running')})"
_QUEUED: Final = 'phase=~"waiting|offloaded|preempted"'
_WAITING: Final = f"sum by (namespace, pod) ({of('alise_engine_requests', _QUEUED)})"
_SLOTS: Final = f"sum by (namespace, pod) ({of('alise_engine_slots')})"
SLOTS_FULL: Final = f"avg (avg_over_time((({_RUNNING} >= bool {_SLOTS}) * ({_WAITING} > bool 0))[5m:15s]))"
COPYING: Final = f"avg (rate({of('alise_engine_save_seconds_total')}{_WINDOW}) + rate({of('alise_engine_restore_seconds_total')}{_WINDOW}))"
_RATIO: Final = "alise_scheduler_length_ratio"
# Predicted at less than half or more than double of the real length.
MISJUDGED: Final = f"1 - ({rate(f'{_RATIO}_bucket', le='2.0')} - {rate(f'{_RATIO}_bucket', le='0.5')}) / {rate(f'{_RATIO}_count')}"
NOT_READY: Final = of("alise_operator_resource_condition", 'condition="Ready", status!="True", reason!~"Suspended|ScaledToZero"')


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    # What each query is called, and the query.
    queries: dict[str, str]
    # x, y, width, height on the grid.
    at: tuple[int, int, int, int]
    unit: str = "short"
    kind: str = "timeseries"
    description: str = ""
    # From the first value on it is yellow, from the second on red; the other way round where the first is larger.
    thresholds: tuple[float, float] | None = None
    is_stacked: bool = False
    # Columns of a table, in order.
    columns: tuple[str, ...] = field(default_factory=tuple)


def _now(column: int, title: str, query: str, description: str = "", unit: str = "percentunit", **more: Any) -> Panel:
    """Returns a number of the first row, which has eight."""
    return Panel(title, {"": query}, (3 * column, 0, 3, 3), unit, "stat", description, **more)


def _for_whom(column: int, title: str, queries: dict[str, str], unit: str, description: str) -> Panel:
    """Returns a graph of the second row, which has three."""
    return Panel(f"For whom: {title}", queries, (8 * column, 3, 8, 7), unit, description=description)


def _why(column: int, title: str, queries: dict[str, str], description: str, unit: str = "short") -> Panel:
    """Returns a graph of the third row, which has four."""
    return Panel(f"Why: {title}", queries, (6 * column, 10, 6, 7), unit, description=description)


def _table(x: int, width: int, title: str, query: str, *columns: str) -> Panel:
    """Returns a table of the last row."""
    return Panel(title, {"": query}, (x, 17, width, 7), kind="table", columns=columns)


NOW: Final = (
    _now(0, "Finished requests", rate("alise_scheduler_requests_ended_total"), unit="reqps"),
    _now(
        1,
        "Within 10× unloaded",
        within_ten_times(),
        "Share of complete answers that took at most ten times as long as they take on an idle engine.",
        thresholds=(0.95, 0.8),
    ),
    _now(2, "Wait, 95th percentile", quantile(0.95, "alise_scheduler_wait_seconds"), unit="s"),
    _now(
        3,
        "Offered load",
        f"avg ({of('alise_scheduler_offered_load_ratio')})",
        "Predicted work of the last minute's arrivals over the work that the pods serve in a minute. Above 100% the backlog grows.",
        thresholds=(0.9, 1.1),
    ),
    _now(
        4,
        "Backlog",
        f"max ({of('alise_scheduler_backlog_seconds')})",
        "Predicted time to finish all requests that the fullest pod has.",
        "s",
        thresholds=(60, 300),
    ),
    _now(
        5,
        "Not ranked",
        FAILED_OPEN,
        "Share of requests that were admitted without a rank because the scheduler gave no answer in time.",
        thresholds=(0.01, 0.05),
    ),
    _now(
        6,
        "Rejected",
        share(rate("alise_engine_http_requests_total", REJECTED), rate("alise_engine_http_requests_total")),
        "Share of requests that got 429 because the queue is full or their wait would be too long.",
        thresholds=(0.01, 0.05),
    ),
    _now(7, "Resources not ready", f"count ({NOT_READY}) or vector(0)", unit="short", thresholds=(1, 1)),
)
FOR_WHOM: Final = (
    _for_whom(
        0,
        "wait by class",
        {"{{class}}, half of the requests": quantile(0.5, "alise_scheduler_wait_seconds", "class")}
        | {"{{class}}, 95%": quantile(0.95, "alise_scheduler_wait_seconds", "class")},
        "s",
        "Time that requests did not run: before the first token and while they were preempted.",
    ),
    _for_whom(
        1,
        "answers slower than 10× unloaded",
        {"{{class}}": f"1 - {within_ten_times('class')}"},
        "percentunit",
        "Share of complete answers that took more than ten times as long as on an idle engine, by class.",
    ),
    _for_whom(
        2,
        "requests by outcome",
        {"{{class}}, {{outcome}}": f"{rate('alise_engine_http_requests_total', by='class, outcome')} > 0"},
        "reqps",
        "What became of requests before the engine. A request is counted when its answer is complete.",
    ),
)
WHY: Final = (
    _why(
        0,
        "where requests are",
        {"{{phase}}": f"sum by (phase) ({of('alise_scheduler_jobs')})", "slots": f"sum ({of('alise_engine_slots')})"},
        "Waiting with all slots running: slots are short. Waiting with free slots: KV memory is short.",
    ),
    _why(
        1,
        "KV memory",
        {
            "device, used": share(f"sum ({of('alise_engine_kv_used_tokens')})", f"sum ({of('alise_engine_kv_limit_tokens')})"),
            "time in which it was short": KV_FULL,
            "host store, used": HOST_STORE,
        },
        "Short: a request had a slot but no KV memory, or was preempted because another needed its KV memory.",
        "percentunit",
    ),
    _why(
        2,
        "preemption",
        {
            "{{class}}, preempted": share(
                rate("alise_scheduler_preempted_requests_total", by="class"), rate("alise_scheduler_requests_ended_total", by="class")
            ),
            "tokens recomputed": RECOMPUTED,
        },
        "Share of finished requests that were preempted at least once, and of computed tokens that were computed again.",
        "percentunit",
    ),
    _why(
        3,
        "predicted lengths",
        {"error, as a factor": f"exp(max ({of('alise_scheduler_length_log_error')}))"},
        "Smoothed factor between predicted and real lengths; 1 is exact. The worse it is, the closer is the order to arrival.",
    ),
)
HELP_AND_ROLLOUT: Final = (
    Panel(
        "What would help",
        {
            "All slots taken while requests wait: more replicas, or engine.maxNumSeqs": SLOTS_FULL,
            "No KV memory for a free slot: engine.kvCacheDtype fp8, more device memory, or replicas": KV_FULL,
            "Tokens recomputed: more kvOffload.hostMemory": RECOMPUTED,
            "Time spent copying KV: kvOffload.quantization int8": COPYING,
            "Requests not ranked: more CPU in scheduling.resources": FAILED_OPEN,
            "Lengths off by more than a factor of two: history and encoder of the predictor": MISJUDGED,
        },
        (0, 17, 9, 7),
        "percentunit",
        "bargauge",
        "Shares of the last five minutes. The longest bar names what to change first.",
        (0.05, 0.2),
    ),
    _table(
        9,
        7,
        "Rollout: conditions",
        f"max by (alise_engine, condition, status, reason) ({of('alise_operator_resource_condition')})",
        "alise_engine",
        "condition",
        "status",
        "reason",
    ),
    _table(
        16, 3, "Rollout: pods", f"max by (alise_engine, state) ({of('alise_operator_resource_pods')})", "alise_engine", "state", "Value"
    ),
    _table(
        19,
        5,
        "Models and releases",
        f"count by (alise_engine, model, version) ({of('alise_engine_model_info')}"
        f" * on (namespace, pod) group_left (version) {of('alise_build_info', component='engine')})",
        "alise_engine",
        "model",
        "version",
        "Value",
    ),
)
PANELS: Final = (*NOW, *FOR_WHOM, *WHY, *HELP_AND_ROLLOUT)


def dashboard() -> Json:
    """Returns the dashboard as Grafana imports it."""
    return {
        "title": "alise",
        "uid": "alise",
        "tags": ["alise"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_DATASOURCE, _variable("namespace", ""), _variable("alise_engine", 'namespace=~"$namespace"')]},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS, 1)],
    }


_DATASOURCE: Final[Json] = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
_FROM: Final[Json] = {"type": "prometheus", "uid": "${datasource}"}


def _variable(label: str, labels: str) -> Json:
    """Returns a variable with the values of a label; all of them by default."""
    metric = f"alise_operator_resource_pods{{{labels}}}" if labels else "alise_operator_resource_pods"
    query = f"label_values({metric}, {label})"
    return {
        "name": label,
        "type": "query",
        "datasource": _FROM,
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "sort": 1,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panel(number: int, panel: Panel) -> Json:
    x, y, width, height = panel.at
    is_now = panel.kind in ("stat", "bargauge", "table")
    made: Json = {
        "id": number,
        "title": panel.title,
        "description": panel.description,
        "type": panel.kind,
        "datasource": _FROM,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _FROM,
                "expr": query,
                "legendFormat": legend or panel.title,
                "instant": is_now,
                "range": not is_now,
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
    }
    if panel.columns:
        order = {name: index for index, name in enumerate(panel.columns)}
        hidden = {name: True for name in ("Time", "Value") if name not in order}
        made["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden, "indexByName": order}}]
    return made


_OPTIONS: Final[dict[str, Json]] = {
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}},
    "stat": {"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}},
    "bargauge": {"displayMode": "basic", "orientation": "horizontal", "reduceOptions": {"calcs": ["lastNotNull"]}},
    "table": {"showHeader": True, "cellHeight": "sm"},
}


def _field(panel: Panel) -> Json:
    made: Json = {"unit": panel.unit, "noValue": "no data"}
    if panel.kind == "bargauge":
        made |= {"min": 0, "max": 1}
    if panel.kind == "timeseries":
        made |= {"min": 0, "custom": {"fillOpacity": 10, "showPoints": "never"}}
    if panel.thresholds is not None:
        first, second = panel.thresholds
        colors = ("green", "yellow", "red")
        marks = (first, second)
        if first > second:
            colors, marks = ("red", "yellow", "green"), (second, first)
        steps: list[Json] = [{"color": colors[0], "value": None}]
        steps += [{"color": color, "value": mark} for color, mark in zip(colors[1:], marks, strict=True)]
        made["thresholds"] = {"mode": "absolute", "steps": steps}
    return made


def render() -> str:
    """Returns the text of the file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    TARGET.write_text(render(), encoding="utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()

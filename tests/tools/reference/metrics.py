"""The page of the metrics, from the registries that the operator, the scheduler and the engine declare them in.

`__main__.py` writes it to docs/reference/metrics.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from alise_contract.names import DEFAULT_CLASS, ENGINE_PORT, OPERATOR_HTTP_PORT, PICKER_HTTP_PORT, SCHEDULER_HTTP_PORT
from alise_engine.api.metrics import Metrics as EngineMetrics
from alise_operator.metrics import REGISTRY as OPERATOR_REGISTRY
from alise_picker.metrics import Metrics as PickerMetrics
from alise_scheduler.metrics import Metrics as SchedulerMetrics
from tests.tools.reference.page import code, page, prose, sentence, table

# Metrics of every process that uses prometheus_client, which describes them itself.
STANDARD: Final = ("process_", "python_")
# Labels that tell the parts of one metric apart.
_PARTS: Final = frozenset({"le", "quantile"})
# Labels whose values differ from one installation or release to the next.
_OPEN: Final = frozenset({"class", "version", "contract_version"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric: its name as it is exposed, its type, its labels with the values that are known before anything happens, and its help."""

    name: str
    kind: str
    labels: Mapping[str, tuple[str, ...]]
    help: str


def entries(registry: CollectorRegistry, *, with_values: bool = True) -> list[Entry]:
    """Returns the metrics of a registry by name, without those that every process has; `with_values`: also the values of labels."""
    # prometheus_client has no public way to ask a metric without samples for the names of its labels.
    declared = {
        name: tuple(getattr(collector, "_labelnames", ())) for collector, names in registry._collector_to_names.items() for name in names
    }
    found = [
        _entry(family, declared.get(family.name) or tuple(getattr(family, "_labelnames", ())), with_values)
        for family in registry.collect()
        if not family.name.startswith(STANDARD)
    ]
    return sorted(found, key=lambda entry: entry.name)


def _entry(family: Metric, labels: tuple[str, ...], with_values: bool) -> Entry:
    values: dict[str, dict[str, None]] = {name: {} for name in labels}
    for sample in family.samples if with_values else ():
        for name, value in sample.labels.items():
            if name not in _PARTS:
                values.setdefault(name, {})[value] = None
    name = f"{family.name}_total" if family.type == "counter" else family.name
    return Entry(name, family.type, {label: tuple(found) for label, found in values.items()}, family.documentation)


def rooms() -> dict[str, list[Entry]]:
    """Returns the metrics by the heading of their section."""
    return {
        "Engine": entries(_engine()),
        "Scheduler": entries(SchedulerMetrics().registry),
        # One registry for the process: what has been counted in it before is not part of its declaration.
        "Operator": entries(OPERATOR_REGISTRY, with_values=False),
        "Endpoint picker": entries(PickerMetrics().registry),
    }


def _engine() -> CollectorRegistry:
    registry = CollectorRegistry()
    EngineMetrics(registry)
    return registry


_WHERE: Final = {
    "Engine": f"Served at port {ENGINE_PORT} of each engine pod, path `/metrics`, together with vLLM's own metrics.",
    "Scheduler": (
        f"Served at port {SCHEDULER_HTTP_PORT} of each engine pod, path `/metrics`, together with `process_*` and `python_info`."
    ),
    "Endpoint picker": f"Served at port {PICKER_HTTP_PORT} of each endpoint picker's pod, path `/metrics`.",
    "Operator": (
        f"Served at port {OPERATOR_HTTP_PORT} of the operator's pod, path `/metrics`, together with `process_*` and `python_info`. The "
        "label `alise_engine` is the name of an AliseEngine."
    ),
}


def render() -> str:
    """Returns the page: a table for each process."""
    sections = (
        [f"## {name}", "", *prose(_WHERE[name]), "", *table(("metric", "type", "labels", "description"), map(_row, found))]
        for name, found in rooms().items()
    )
    return page(
        "Metrics",
        "the metrics.py of each room",
        prose(
            "All metrics are in the Prometheus text format. [Monitor](../how-to/monitoring.md) shows how to collect them. A "
            "histogram `NAME` is exposed as `NAME_bucket`, `NAME_sum` and `NAME_count`. The values of a label are listed where each of "
            f"them has a series from the start. The label `class` is `{DEFAULT_CLASS}` or a name from `spec.scheduling.classes`."
        ),
        *sections,
    )


def _row(entry: Entry) -> tuple[str, str, str, str]:
    return code(entry.name), entry.kind, "<br>".join(_labels(entry)), sentence(entry.help)


def _labels(entry: Entry) -> Iterator[str]:
    for name, values in entry.labels.items():
        fixed = ", ".join(code(value) for value in values) if name not in _OPEN else ""
        yield f"{code(name)}: {fixed}" if fixed else code(name)

"""What manifests/monitoring asks Prometheus: the alerts' rules and the dashboard's queries.

`prometheus.py` and the tests of `tests/monitoring` read them.
"""

import copy
import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = ROOT / "manifests" / "monitoring"
# A metric of ours; `alise_engine` alone is a label.
METRIC: Final = re.compile(r"\balise_(?:engine|scheduler|operator)_[a-z0-9_]+|\balise_build_info\b")
# The window of an alert that fires at once.
SECONDS_AT_ONCE: Final = 20
Rule = dict[str, Any]


def groups(*, at_once: bool = False, bare: bool = False) -> list[dict[str, Any]]:
    """Returns the groups of rules. `at_once`: alerts look at the last seconds and fire without waiting; `bare`: without annotations."""
    found: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))["spec"]["groups"]
    changed = copy.deepcopy(found)
    for rule in (rule for group in changed for rule in group["rules"]):
        if at_once:
            rule["for"] = "0s"
            rule["expr"] = re.sub(r"\[\d+m\]", f"[{SECONDS_AT_ONCE}s]", rule["expr"])
        if bare:
            del rule["annotations"]
    return changed


def alerts() -> list[Rule]:
    return [rule for group in groups() for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    return found


def queries() -> dict[str, str]:
    """Returns the dashboard's queries by panel and legend, with every resource selected."""
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"].replace("$namespace", ".*").replace("$alise_engine", ".*")
        for panel in dashboard()["panels"]
        for target in panel["targets"]
    }


def metrics_of(expression: str) -> set[str]:
    """Returns the metrics that an expression names, without the suffixes of a histogram's series."""
    return {re.sub(r"_(?:bucket|count|sum)$", "", name) for name in METRIC.findall(expression)}


def monitor(name: str) -> dict[str, Any]:
    """Returns the spec of a PodMonitor: `engines` or `operator`."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))["spec"]
    return found

"""The alerts, the dashboard and the PodMonitors name what exists. What Prometheus makes of them is tested in the other modules."""

import json
import re
import subprocess
from typing import Any

import pytest
import yaml

from alise_contract.names import ENGINE_LABEL
from alise_operator.children import children
from alise_operator.spec import parse
from tests.monitoring.sources import FOLDER, ROOT, alerts, dashboard, metrics_of, monitor, queries
from tests.operator.builders import CURRENT, OWNER, raw_spec
from tests.tools import dashboard as tool
from tests.tools.reference.metrics import Entry, rooms

ALERTS = {rule["alert"]: rule for rule in alerts()}
RUNBOOKS = ROOT / "docs" / "runbooks"
EXPRESSIONS = {name: rule["expr"] for name, rule in ALERTS.items()} | queries()
# Labels that Prometheus adds to our series, and those that tell a histogram's series apart.
ADDED = frozenset({"namespace", "pod", "alise_engine", "le"})


def entries() -> dict[str, Entry]:
    return {entry.name: entry for room in rooms().values() for entry in room}


def selectors(expression: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Returns (metric, [(label, operator, value)]) for each selector of our metrics with braces."""
    found = re.findall(r"(alise_\w+)\{([^}]*)\}", expression)
    return [(name, re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', inside)) for name, inside in found]


def test_the_dashboard_is_fresh() -> None:
    assert (FOLDER / "dashboard.json").read_text(encoding="utf-8") == tool.render(), "run `make dashboard`"


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_every_metric_of_a_query_is_in_the_reference(expression: str) -> None:
    listed = set(re.findall(r"`(alise_[a-z0-9_]+)`", (ROOT / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")))
    assert metrics_of(expression)
    assert metrics_of(expression) - listed == set()


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_every_label_of_a_query_is_one_of_its_metric_and_has_a_value_that_occurs(expression: str) -> None:
    known = entries()
    wrong = []
    for name, matchers in selectors(expression):
        (metric,) = metrics_of(name)
        labels = known[metric].labels
        for label, operator, text in matchers:
            # Empty where the values depend on the installation.
            values = labels.get(label, ()) if label not in ADDED else ()
            parts = text.split("|") if "~" in operator else [text]
            if (label not in labels and label not in ADDED) or (values and not set(parts) <= set(values)):
                wrong.append((name, label, text))
    assert wrong == []


def test_every_alert_says_how_severe_it_is_and_what_to_read() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, name
        assert ROOT / rule["annotations"]["runbook"] == RUNBOOKS / f"{name}.md"


def test_the_documented_command_makes_links_of_all_runbooks() -> None:
    page = (ROOT / "docs" / "how-to" / "monitoring.md").read_text(encoding="utf-8")
    (expression,) = re.findall(r"^  \| sed -E '(.*)' \\$", page, re.MULTILINE)
    rules = (ROOT / "manifests" / "monitoring" / "alerts.yaml").read_text(encoding="utf-8")
    made = subprocess.run(["sed", "-E", expression], input=rules, capture_output=True, text=True, timeout=20, check=True).stdout
    named = [one["annotations"]["runbook_url"] for group in yaml.safe_load(made)["spec"]["groups"] for one in group["rules"]]
    assert named == [f"https://YOUR-ADDRESS/runbooks/{name}.html" for name in ALERTS]


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert {page.stem for page in RUNBOOKS.glob("*.md")} - {"index"} == set(ALERTS)
    index = (RUNBOOKS / "index.md").read_text(encoding="utf-8")
    assert [name for name in ALERTS if f"({name}.md)" not in index] == []


@pytest.mark.parametrize("name", ALERTS)
def test_a_runbook_has_the_parts_that_a_reader_looks_for(name: str) -> None:
    text = (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["What it means", "Find the cause", "Mend it"]


def test_the_panels_are_on_one_screen_and_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
    assert taken == {(x, y) for x in range(24) for y in range(24)}


def pod() -> dict[str, Any]:
    """Returns the template of an engine's pods."""
    (deployment,) = [one for one in children(parse(raw_spec()), OWNER, CURRENT) if one["kind"] == "Deployment"]
    template: dict[str, Any] = deployment["spec"]["template"]
    return template


def ports(spec: dict[str, Any]) -> set[str]:
    return {port["name"] for one in (*spec["containers"], *spec.get("initContainers", ())) for port in one.get("ports", ())}


def test_the_engines_monitor_selects_every_engine_pod_and_both_of_its_ports() -> None:
    found = monitor("engines")
    assert found["selector"]["matchLabels"].items() <= pod()["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in found["podMetricsEndpoints"]} == ports(pod()["spec"])
    assert found["namespaceSelector"] == {"any": True}


def test_series_of_pods_carry_the_name_of_their_resource() -> None:
    source = "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", ENGINE_LABEL)
    for endpoint in monitor("engines")["podMetricsEndpoints"]:
        assert endpoint["relabelings"] == [{"sourceLabels": [source], "targetLabel": "alise_engine"}]


def test_the_operators_monitor_selects_the_operator_and_keeps_the_namespace_of_resources() -> None:
    documents = yaml.safe_load_all((ROOT / "manifests" / "operator" / "deployment.yaml").read_text(encoding="utf-8"))
    (template,) = [document["spec"]["template"] for document in documents]
    found = monitor("operator")
    assert found["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert found["podMetricsEndpoints"] == [{"port": "http", "honorLabels": True}]
    assert ports(template["spec"]) == {"http"}


def test_the_network_policies_let_prometheus_in_unless_the_resource_lists_who_may_connect() -> None:
    def ingress(spec: dict[str, Any]) -> dict[str, Any]:
        (policy,) = [one for one in children(parse(spec), OWNER, CURRENT) if one["kind"] == "NetworkPolicy"]
        (rule,) = policy["spec"]["ingress"]
        return dict(rule)

    assert "from" not in ingress(raw_spec())
    prometheus = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    listed = ingress(raw_spec(networkPolicy={"from": [prometheus]}))
    assert prometheus in listed["from"]
    operators = yaml.safe_load((ROOT / "manifests" / "operator" / "network-policy.yaml").read_text(encoding="utf-8"))
    assert [list(rule) for rule in operators["spec"]["ingress"]] == [["ports"]]


def test_grafana_finds_the_dashboard_in_a_config_map_that_kustomize_makes() -> None:
    (generated,) = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))["configMapGenerator"]
    assert generated["files"] == ["alise.json=dashboard.json"]
    assert generated["options"]["labels"]["grafana_dashboard"] == "1"
    # A ConfigMap holds at most 1 MiB, and an annotation of `kubectl apply` 256 KiB.
    assert len(json.dumps(dashboard())) < 200_000

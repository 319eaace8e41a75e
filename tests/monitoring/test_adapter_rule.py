"""The rule of the Prometheus adapter in the documentation, in a real Prometheus that scrapes the operator's metrics."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import start_http_server

from alise_operator import metrics
from alise_operator.predicted_work import Work
from tests.monitoring.prometheus import Prometheus, running

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "autoscaling.md"
WORK = Work(backlog_seconds=90.0, offered_load=1.5)


def documents() -> list[dict[str, Any]]:
    """The YAML of the page's section about the HorizontalPodAutoscaler."""
    section = PAGE.read_text(encoding="utf-8").partition("## With a HorizontalPodAutoscaler")[2]
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)]


RULE: dict[str, Any] = documents()[0]["externalRules"][0]
AUTOSCALER: dict[str, Any] = documents()[1]["spec"]


def expanded(namespace: str, engine: str) -> str:
    """The query as the adapter asks it for a HorizontalPodAutoscaler in this namespace."""
    matchers = f'namespace="{namespace}",alise_engine="{engine}"'
    return str(RULE["metricsQuery"]).replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", "namespace")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server, thread = start_http_server(0, "127.0.0.1", metrics.REGISTRY)
    metrics.publish_work("team-a", "chat", WORK.backlog_seconds, WORK.offered_load)
    metrics.publish_work("team-a", "other", 1000.0, 9.0)
    try:
        with running(tmp_path_factory.mktemp("prometheus"), {f"127.0.0.1:{server.server_port}": {}}, honor_labels=True) as found:
            yield found
    finally:
        for name in ("chat", "other"):
            metrics.forget_work("team-a", name)
        server.shutdown()
        thread.join(10)


@pytest.mark.process
def test_the_rule_gives_the_work_of_one_resource_by_which_the_autoscaler_divides(prometheus: Prometheus) -> None:
    prometheus.eventually("the series of the rule is there", lambda: prometheus.query(RULE["seriesQuery"]))
    found = prometheus.eventually("the query has an answer", lambda: prometheus.query(expanded("team-a", "chat")))
    assert [one["metric"] for one in found] == [{"namespace": "team-a"}]
    target = float(AUTOSCALER["metrics"][0]["external"]["target"]["averageValue"])
    assert float(found[0]["value"][1]) == WORK.seconds_ahead(target)
    assert float(found[0]["value"][1]) / target == WORK.needed_pods(target) == 3.0


def test_the_autoscaler_asks_for_the_metric_of_the_rule_and_of_its_own_resource() -> None:
    metric = AUTOSCALER["metrics"][0]["external"]["metric"]
    assert metric["name"] == RULE["name"]["as"]
    assert metric["selector"]["matchLabels"] == {"alise_engine": AUTOSCALER["scaleTargetRef"]["name"]}

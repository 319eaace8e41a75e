"""A real Prometheus scrapes the real operator, which looks after resources of a real API server: alerts about resources fire."""

from functools import partial
from pathlib import Path

import pytest

from tests.monitoring.prometheus import running
from tests.monitoring.sources import metrics_of, queries
from tests.operator.control_plane import Engine, OperatorProcess

pytestmark = pytest.mark.controlplane


def test_alerts_about_resources_fire_and_the_dashboard_shows_their_rollout(
    engine: Engine,
    operator: OperatorProcess,
    tmp_path: Path,
) -> None:
    def fires(name: str, **labels: str) -> None:
        """Waits for an alert about this resource, with these labels."""
        wanted = {"alertname": name, "alertstate": "firing", "namespace": engine.namespace, "alise_engine": engine.name} | labels
        selector = ", ".join(f'{label}="{value}"' for label, value in wanted.items())
        prometheus.eventually(f"{name} fires with {labels}", lambda: prometheus.query(f"ALERTS{{{selector}}}"))

    target = {f"127.0.0.1:{operator.port()}": {"namespace": "alise-system", "pod": "operator"}}
    with running(tmp_path, target, honor_labels=True) as prometheus:
        # No node runs its pod.
        engine.apply()
        (pod,) = engine.wait_for_pods(1)
        fires("AliseEngineNotReady", severity="critical", reason="Starting")
        # Its pod is ready, but no Prometheus scrapes it.
        engine.make_ready(pod)
        fires("AliseMetricsMissing", severity="warning")
        engine.patch({"engine": {"args": ["--port=9000"]}})
        fires("AliseEngineDegraded", severity="warning", reason="InvalidSpec")
        for name, query in queries().items():
            if any("_operator_" in metric for metric in metrics_of(query)):
                prometheus.eventually(name, partial(prometheus.query, query))
        # A scrape that takes longer than a second, as on a busy machine, leaves a gap.
        (info,) = prometheus.eventually("the operator's build", lambda: prometheus.query('alise_build_info{component="operator"}'))
        assert info["metric"]["namespace"] == "alise-system"
        prometheus.eventually("the operator is up", lambda: "AliseOperatorDown" not in prometheus.firing())
        prometheus.eventually("every rule was evaluated without an error", lambda: not prometheus.rule_errors())

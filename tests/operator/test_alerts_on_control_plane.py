"""A real Prometheus scrapes the real operator, which looks after resources of a real API server: alerts about resources fire."""

from pathlib import Path
from typing import Any

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
    own = {"namespace": engine.namespace, "alise_engine": engine.name}

    def fires(name: str) -> dict[str, Any]:
        """Waits for an alert about this resource, and returns it."""
        selector = f'ALERTS{{alertname="{name}", alertstate="firing", namespace="{engine.namespace}", alise_engine="{engine.name}"}}'
        (series,) = prometheus.eventually(f"{name} fires", lambda: prometheus.query(selector))
        return dict(series["metric"])

    with running(
        tmp_path, {f"127.0.0.1:{operator.port()}": {"namespace": "alise-system", "pod": "operator"}}, honor_labels=True
    ) as prometheus:
        # No node runs its pod.
        engine.apply()
        (pod,) = engine.wait_for_pods(1)
        assert fires("AliseEngineNotReady").items() >= (own | {"severity": "critical", "reason": "Starting"}).items()
        # Its pod is ready, but no Prometheus scrapes it.
        engine.make_ready(pod)
        assert fires("AliseMetricsMissing").items() >= (own | {"severity": "warning"}).items()
        engine.patch({"engine": {"args": ["--port=9000"]}})
        assert fires("AliseEngineDegraded").items() >= (own | {"severity": "warning", "reason": "InvalidSpec"}).items()
        for name, query in queries().items():
            if any("_operator_" in metric for metric in metrics_of(query)):
                assert prometheus.query(query), name
        (info,) = prometheus.query('alise_build_info{component="operator"}')
        assert info["metric"]["namespace"] == "alise-system"
        assert "AliseOperatorDown" not in prometheus.firing()
        prometheus.eventually("every rule was evaluated without an error", lambda: not prometheus.rule_errors())

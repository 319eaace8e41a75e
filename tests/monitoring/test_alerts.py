"""promtool, of Debian's Prometheus, checks the alerts and runs alerts_test.yaml: what each fires on, and after how long."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.monitoring.prometheus import CALL_SECONDS, check_rules, program, running
from tests.monitoring.sources import alerts

pytestmark = pytest.mark.process

CASES = Path(__file__).with_name("alerts_test.yaml")


def test_promtool_accepts_the_rules_and_their_templates(tmp_path: Path) -> None:
    assert check_rules(tmp_path).exists()


def test_every_alert_fires_on_what_it_is_for_and_on_nothing_else(tmp_path: Path) -> None:
    check_rules(tmp_path, bare=True)
    shutil.copy(CASES, tmp_path)
    argv = [program("promtool"), "test", "rules", str(tmp_path / CASES.name)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=CALL_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_series_that_makes_it_fire() -> None:
    cases = yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
    fires = {one["alertname"] for case in cases for one in case["alert_rule_test"] if one["exp_alerts"]}
    assert fires == {rule["alert"] for rule in alerts()}


def test_without_an_operator_the_alert_about_it_fires_and_no_other(tmp_path: Path) -> None:
    with running(tmp_path, {}) as prometheus:
        prometheus.eventually("the alert fires", lambda: "AliseOperatorDown" in prometheus.firing())
        assert set(prometheus.firing()) == {"AliseOperatorDown"}
        prometheus.eventually("every rule was evaluated without an error", lambda: not prometheus.rule_errors())

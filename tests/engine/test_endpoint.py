"""The settings of the API half, the recent count and the report's JSON."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from alise_engine.api.endpoint import settings
from alise_engine.api.engine_api import ApiSettings, EngineApi
from alise_engine.api.metrics import Metrics
from alise_engine.api.recent import WINDOW_SECONDS, RecentCount
from alise_engine.api.status import as_json
from alise_engine.errors import ConfigError
from alise_engine.serve.plugin import AliseEndpoint


def test_without_an_environment_the_pods_settings_hold() -> None:
    found = settings({})
    assert (found.socket_dir, found.admit_deadline_seconds) == (Path("/run/alise/sock"), 0.050)


def test_the_environment_wins() -> None:
    found = settings({"ALISE_SOCKET_DIR": "/x", "ALISE_ADMIT_DEADLINE_MS": "200"})
    assert (found.socket_dir, found.admit_deadline_seconds) == (Path("/x"), 0.2)


@pytest.mark.parametrize("value", ["", "soon", "0", "-5", "nan", "99999"])
def test_a_deadline_that_is_none_is_named(value: str) -> None:
    with pytest.raises(ConfigError, match="ALISE_ADMIT_DEADLINE_MS"):
        settings({"ALISE_ADMIT_DEADLINE_MS": value})


def test_an_api_server_that_cannot_be_protected_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """vLLM goes on without a plugin that raises an Exception, and would serve without the API keys."""
    monkeypatch.setenv("ALISE_SOCKET_DIR", str(tmp_path))
    monkeypatch.setenv("ALISE_AUTH_CLASSES", "not JSON")
    with pytest.raises(SystemExit, match="ALISE_AUTH_CLASSES"):
        AliseEndpoint()


@hypothesis_settings(deadline=None)
@given(st.lists(st.floats(0, 500), max_size=80), st.floats(0, 200))
def test_the_recent_count_is_that_of_the_last_minute(times: list[float], later: float) -> None:
    times.sort()
    recent = RecentCount()
    for at in times:
        recent.add(at)
    now = (times[-1] if times else 0.0) + later
    assert recent.total(now) == sum(int(now) - WINDOW_SECONDS < int(at) for at in times)


def test_a_report_before_there_is_an_engine_has_every_field(tmp_path: Path) -> None:
    api = EngineApi(ApiSettings(tmp_path, 0.05, "0.32.0", bytes(32)), Metrics(CollectorRegistry()))
    report = as_json(api.report())
    assert report["sidecar"] == {
        "connected": False,
        "plan_fresh": False,
        "breaker": "closed",
        "refused_contract_version": 0,
        "contract_refused": False,
        "encoder": "ENCODER_STATE_UNSPECIFIED",
    }
    assert report["admission"]["failed_open_by_reason"].keys() == {"deadline", "unavailable", "breaker_open", "version", "error"}
    assert (report["draining"], report["requests_running"], report["vllm_version"]) == (False, 0, "0.32.0")

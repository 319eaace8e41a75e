"""The page of the real operator with its own rights, against a real API server and in a real browser."""

import socket
import urllib.request
from pathlib import Path

import pytest

from tests.operator.control_plane import Engine, OperatorProcess, eventually
from tests.operator.page import chromium

pytestmark = pytest.mark.controlplane


@pytest.fixture
def port(operator: OperatorProcess) -> int:
    def served() -> int | None:
        lines = [line for line in operator.lines() if line.get("message") == "page served"]
        return int(lines[0]["port"]) if lines else None

    return eventually("the page is served", served)


def test_a_browser_shows_a_real_engine_and_what_its_pod_does_not_say(port: int, engine: Engine, tmp_path: Path) -> None:
    engine.apply()
    (pod,) = engine.wait_for_pods(1)
    engine.make_ready(pod)
    engine.until("Ready", "True", "Serving")
    engine.patch({"engine": {"kvCacheDtype": "int4"}})
    engine.until("Degraded", "True", "InvalidSpec")
    eventually("the event of the mistake", lambda: any(one["reason"] == "InvalidSpec" for one in engine.events()))
    dom = chromium.dom_of(f"http://localhost:{port}/engines/{engine.namespace}/{engine.name}", tmp_path)
    assert pod["metadata"]["name"] in dom
    assert "engine.kvCacheDtype" in dom
    # A pod without a kubelet has no address, so the operator cannot ask it.
    assert "It has not answered the operator yet." in dom
    assert "Last events" in dom
    assert "There are none." not in dom
    assert f"/engines/{engine.namespace}/{engine.name}" in chromium.dom_of(f"http://localhost:{port}/", tmp_path)


def test_the_page_is_on_the_loopback_alone(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.settimeout(2)
        # 127.0.0.2 reaches what listens on all addresses, and not what listens on 127.0.0.1.
        assert other.connect_ex(("127.0.0.2", port)) != 0


def test_the_operator_has_the_rights_for_its_page(port: int, operator: OperatorProcess, engine: Engine) -> None:
    engine.apply()
    engine.child("deployment")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/engines/{engine.namespace}/{engine.name}", timeout=15) as answer:
        text = answer.read().decode()
    assert "could not be read" not in text
    assert operator.forbidden() == []

"""What `kubectl alise status` prints."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kubectl_alise.objects import engine_of, events_of, pod_of
from kubectl_alise.status_text import Report, list_text, report_of, status_text
from tests.operator.plugin.objects import condition, engine, pod

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
READY = condition("Ready", "True", "Serving", "1 of 2 pods serves requests.")
FINE = (READY, condition("Progressing", "True", "Rollout"), condition("Degraded", "False"), condition("RouteReady", "True", "Accepted"))


def status(resource: dict[str, Any], *pods: dict[str, Any], reports: dict[str, Report] | None = None, events: Any = ()) -> str:
    return "\n".join(status_text(engine_of(resource), [pod_of(one) for one in pods], "new", reports or {}, events_of(events), NOW))


def test_a_resource_that_serves_says_so_and_that_nothing_is_wrong() -> None:
    text = status(engine("chat", *FINE), pod())
    assert "team/chat: serves requests, 1 of 2 pods are ready." in text
    assert "URL http://chat.test/v1" in text
    assert "Nothing is wrong." in text


@pytest.mark.parametrize("observed", [None, 1])
def test_a_resource_that_the_operator_has_not_seen_is_not_called_fine(observed: int | None) -> None:
    resource = engine("chat", *(() if observed is None else FINE))
    resource["metadata"]["generation"] = 2
    if observed is not None:
        resource["status"]["observedGeneration"] = observed
    text = status(resource, pod())
    assert "Nothing is wrong." not in text
    assert observed is None or "team/chat: as last reported by the operator, it serves requests, 1 of 2 pods are ready." in text
    assert "The operator has not seen the newest spec." in text
    assert "kubectl -n alise-system get pods" in text
    assert "not seen by the operator" in "\n".join(list_text([engine_of(resource)], NOW, with_namespace=False))


def test_each_adapter_is_a_line_with_the_pods_that_serve_it() -> None:
    resource = engine("chat", *FINE)
    assert "Adapter" not in status(resource, pod())
    resource["status"]["adapters"] = [{"name": "support", "loadedPods": 1, "message": "loaded in 1 of 2 pods that report"}]
    assert "\nAdapter support: loaded in 1 of 2 pods that report.\n" in status(resource, pod())


def test_what_is_wrong_is_said_once_with_what_to_do() -> None:
    whole = "the Secret keys does not exist: create it with `kubectl create secret`. The pods wait."
    bad = (
        condition("Ready", "False", "MissingSecret", "the Secret keys does not exist: create it with `kubectl create secret`"),
        condition("Degraded", "True", "MissingSecret", whole),
    )
    text = status(engine("chat", *bad), pod(ready=False))
    assert "does not serve requests (MissingSecret)" in text
    assert f"What is wrong, and what to do:\n  Degraded (MissingSecret): {whole}\n\n" in text


@pytest.mark.parametrize("fine", [condition("Progressing", "False", "Complete"), condition("KVCacheShort", "Unknown", "Measuring")])
def test_what_is_no_trouble_is_not_called_one(fine: dict[str, Any]) -> None:
    assert "Nothing is wrong." in status(engine("chat", *FINE, fine), pod())


def test_a_route_that_leads_nowhere_is_said_instead_of_the_url() -> None:
    route = condition("RouteReady", "False", "MissingGateway", "the Gateway does not exist")
    text = status(engine("chat", READY, route), pod())
    assert "Requests from outside do not arrive (MissingGateway)." in text
    assert "URL http" not in text


def test_pods_show_their_requests_and_the_rollout() -> None:
    text = status(engine("chat", *FINE), pod(), pod("chat-2", template="old"), reports={"chat-1": Report(8, 3, 1, ranked=True)})
    rows = [line.split() for line in text.splitlines() if line.startswith("chat-")]
    assert rows[0] == ["chat-1", "yes", "Running", "1", "newest", "8", "3", "1", "yes", "node-1", "60m"]
    assert rows[1][4:9] == ["older", "-", "-", "-", "-"]
    assert "A rollout is in progress: 1 of 2 pods have an older spec." in text


STATES = [
    pytest.param(pod(deletionTimestamp="2026-11-29T12:00:00Z"), "Draining", id="a pod that ends"),
    pytest.param(pod(engine_state={"waiting": {"reason": "CrashLoopBackOff"}}), "CrashLoopBackOff", id="a container that crashes"),
    pytest.param(pod(engine_state={"terminated": {"reason": "OOMKilled"}}), "OOMKilled", id="a container that was killed"),
]


@pytest.mark.parametrize(("one", "state"), STATES)
def test_a_pod_has_one_word_for_its_state(one: dict[str, Any], state: str) -> None:
    assert pod_of(one).state() == state


def test_a_resource_that_the_operator_has_not_seen_says_where_to_look() -> None:
    text = status(engine("chat"))
    assert "the operator has not reported on it." in text
    assert "`kubectl -n alise-system get pods`" in text


def test_a_suspended_resource_says_how_to_start_it() -> None:
    suspended = engine("chat", READY, suspend=True)
    assert "suspended, so it has no pods. `spec.suspend: false` starts them." in status(suspended)
    assert "suspended; pods that finish their open answers and stop: 1. `spec.suspend" in status(suspended, pod())
    suspended["metadata"]["generation"], suspended["status"]["observedGeneration"] = 2, 1
    assert "team/chat: is to be suspended." in status(suspended, pod())


def test_the_newest_events_are_shown_the_oldest_first() -> None:
    events = [
        {"reason": f"R{number}", "message": f"m{number}", "lastTimestamp": f"2026-11-29T11:0{number}:00Z", "type": "Warning"}
        for number in reversed(range(7))
    ]
    shown = [line.split()[:2] for line in status(engine("chat", *FINE), events=events).splitlines() if line.startswith("R")]
    assert [line for line in shown if line[0][1].isdigit()] == [[f"R{number}", f"{60 - number}m"] for number in range(2, 7)]


def test_the_list_has_a_line_for_each_resource_with_the_reason_of_what_is_wrong() -> None:
    bad = engine("broken", condition("Ready", "False", "Starting"), condition("Degraded", "True", "ImagePull"))
    lines = [line.split() for line in list_text([engine_of(engine("chat", *FINE)), engine_of(bad)], NOW, with_namespace=True)]
    assert lines[1] == ["team", "chat", "qwen", "True", "1/2", "-", "http://chat.test/v1", "2h0m"]
    assert lines[2][:6] == ["team", "broken", "qwen", "False", "1/2", "ImagePull"]


def test_an_empty_list_says_where_else_to_look() -> None:
    assert list_text([], NOW, with_namespace=False) == ["There is no AliseEngine here: give another -n, or -A for all namespaces."]


def test_a_report_of_another_release_is_read_as_far_as_it_goes() -> None:
    assert report_of({"requests_running": 2, "new": 1}) == Report(2, 0, 0, ranked=False)


def test_a_pod_whose_answer_was_not_understood_is_named() -> None:
    lines = status_text(engine_of(engine("chat", *FINE)), [pod_of(pod("p1"))], "new", {}, (), NOW, {"p1": "its answer was not understood"})
    assert "p1: its answer was not understood." in lines

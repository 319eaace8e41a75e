"""Pods are asked by the programs of their own images; a pod that does not answer costs its own line only."""

import json
from typing import Any

import pytest

from kubectl_alise import pods
from kubectl_alise.objects import pod_of
from kubectl_alise.status_text import Report
from tests.operator.plugin.fake_cluster import FakeCluster
from tests.operator.plugin.objects import listed, pod

ONE = pod_of(pod("p1"))


def answering(status: int, output: str, error: str = "", program: str = "alise-scheduler") -> FakeCluster:
    return FakeCluster(outputs={("p1", program): (status, output, error)})


def test_the_answer_of_a_scheduler_is_its_json() -> None:
    answers, unknown = pods.requests(answering(0, json.dumps(listed())), [ONE], 50)
    assert (answers, unknown) == ({"p1": listed()}, {})


def test_a_request_that_a_pod_does_not_know_is_an_answer_although_the_status_is_1() -> None:
    answers, unknown = pods.accounts(answering(1, '{"matches": []}', "command terminated with exit code 1"), [ONE], "req-7")
    assert (answers, unknown) == ({"p1": {"matches": []}}, {})


def test_an_id_that_looks_like_a_flag_is_an_id() -> None:
    cluster = answering(0, '{"matches": []}')
    pods.accounts(cluster, [ONE], "--json")
    assert cluster.calls == [("exec", "p1", "scheduler", "alise-scheduler", "explain", "--json", "--", "--json")]


SILENT: list[Any] = [
    pytest.param((2, "", "alise-scheduler: error: argument command: invalid choice: 'top'"), "older release", id="an older image"),
    pytest.param((127, "", "exec: not found"), "older release", id="another image"),
    pytest.param((1, "", "alise-scheduler top: it does not answer.\nexit"), "does not answer", id="no answer"),
]


@pytest.mark.parametrize(("output", "why"), SILENT)
def test_a_pod_that_does_not_answer_says_why(output: tuple[int, str, str], why: str) -> None:
    answers, unknown = pods.requests(FakeCluster(outputs={("p1", "alise-scheduler"): output}), [ONE], 50)
    assert answers == {}
    assert why in unknown["p1"]


def test_a_pod_without_a_running_scheduler_is_not_asked() -> None:
    starting = pod("p2")
    starting["status"]["containerStatuses"] = []
    assert pods.requests(FakeCluster(), [pod_of(starting)], 50) == ({}, {"p2": "its scheduler does not run (Running)"})


def test_reports_of_pods_that_do_not_answer_are_left_out() -> None:
    good = answering(0, '{"requests_running": 2, "sidecar": {"plan_fresh": true}}', program="alise-engine")
    assert pods.reports(good, [ONE]) == ({"p1": Report(2, 0, 0, ranked=True)}, {})
    assert pods.reports(answering(1, "", "no", program="alise-engine"), [ONE]) == ({}, {})


ODD = [
    pytest.param("null", id="null"),
    pytest.param("[]", id="a list"),
    pytest.param('{"requests_running": null, "sidecar": null, "matches": null, "by_phase": {}}', id="fields without values"),
    pytest.param('{"requests_running": "many", "sidecar": [], "matches": [{}], "by_phase": 5}', id="fields of other types"),
]


@pytest.mark.parametrize("output", ODD)
def test_a_status_that_is_not_understood_is_said_of_its_pod(output: str) -> None:
    answers, unknown = pods.reports(answering(0, output, program="alise-engine"), [ONE])
    assert answers == {}
    assert "the answer of `alise-engine status` was not understood" in unknown["p1"]


@pytest.mark.parametrize("output", ODD)
def test_requests_that_are_not_understood_are_said_of_their_pod(output: str) -> None:
    answers, unknown = pods.requests(answering(0, output), [ONE], 50)
    assert answers == {}
    assert "the answer of `alise-scheduler top` was not understood" in unknown["p1"]


@pytest.mark.parametrize("output", ODD)
def test_an_explanation_that_is_not_understood_is_said_of_its_pod(output: str) -> None:
    answers, unknown = pods.accounts(answering(0, output), [ONE], "req-7")
    assert answers == {}
    assert "the answer of `alise-scheduler explain` was not understood" in unknown["p1"]

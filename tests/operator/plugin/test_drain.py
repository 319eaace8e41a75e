"""When a pod may be drained, and how its eviction is asked for."""

import json
from typing import Any

import pytest

from kubectl_alise.drain import evict, refusal_to_drain, wait_until_gone
from kubectl_alise.errors import KubectlError, NotAllowedError
from tests.operator.plugin.fake_cluster import FakeCluster
from tests.operator.plugin.objects import pod

STRANGER = pod()
STRANGER["metadata"]["labels"] = {}
MAY = [
    pytest.param(pod(), 1, False, None, id="another pod serves"),
    pytest.param(pod(), 0, True, None, id="the only pod, by force"),
    pytest.param(pod(ready=False), 0, False, None, id="a pod that serves nothing"),
    pytest.param(pod(), 0, False, "`kubectl scale alise chat --replicas=2`", id="the only pod"),
    pytest.param(STRANGER, 3, True, "is not a pod of an AliseEngine", id="a pod of something else"),
]


@pytest.mark.parametrize(("one", "others", "force", "why"), MAY)
def test_a_pod_is_drained_if_another_one_serves(one: dict[str, Any], others: int, force: bool, why: str | None) -> None:
    refusal = refusal_to_drain(one, others, force)
    assert refusal is None if why is None else why in (refusal or "")


def test_the_eviction_is_of_the_version_that_the_cluster_knows() -> None:
    cluster = FakeCluster(texts={"create --raw=/api/v1/namespaces/team/pods/chat-1/eviction": ""})
    evict(cluster, pod())
    assert [json.loads(body)["apiVersion"] for body in cluster.sent] == ["policy/v1"]


def test_an_old_cluster_is_asked_in_its_own_version() -> None:
    cluster = FakeCluster(texts={"create": KubectlError('no kind "Eviction" is registered for version "policy/v1"')})
    with pytest.raises(KubectlError):
        evict(cluster, pod())
    assert [json.loads(body)["apiVersion"] for body in cluster.sent] == ["policy/v1", "policy/v1beta1"]


def test_a_disruption_budget_that_forbids_it_says_what_to_wait_for() -> None:
    cluster = FakeCluster(texts={"create": KubectlError("Cannot evict pod as it would violate the pod's disruption budget.")})
    with pytest.raises(NotAllowedError, match="wait until all its pods are ready"):
        evict(cluster, pod())
    assert len(cluster.sent) == 1


def test_a_pod_of_the_same_name_that_is_another_one_means_that_it_has_ended() -> None:
    told: list[str] = []
    assert wait_until_gone(FakeCluster(objects={"pod chat-1": pod(uid="another")}), pod(), told.append)
    assert "at the latest" in told[0]


def test_a_pod_that_is_gone_has_ended() -> None:
    assert wait_until_gone(FakeCluster(), pod(), lambda _: None)


def test_waiting_has_an_end() -> None:
    cluster = FakeCluster(objects={"pod chat-1": pod()})
    clock = iter([0.0, 1000.0])
    assert not wait_until_gone(cluster, pod(), lambda _: None, lambda: next(clock))

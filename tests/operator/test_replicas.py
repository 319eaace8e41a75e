"""The number of pods, apart from the rest of the spec, and who else has written it."""

from typing import Any

import pytest

from alise_operator.replicas import Reset, Scale, reset_by, reset_message, wanted_replicas
from tests.operator.builders import OWNER

CACHE = {"uri": "a/b", "cache": {"size": "1Gi"}}


@pytest.mark.parametrize(
    ("raw", "replicas"),
    [
        pytest.param({}, 1, id="the default"),
        pytest.param({"replicas": 0}, 0, id="none"),
        pytest.param({"replicas": 3, "engine": {"device": "abacus"}}, 3, id="some, of a spec that is wrong"),
        pytest.param({"replicas": 3, "suspend": True}, 0, id="suspended"),
        pytest.param({"replicas": "many", "suspend": True}, 0, id="suspended, whatever the replicas"),
        pytest.param({"replicas": -1}, None, id="a negative number"),
        pytest.param({"replicas": 10_001}, None, id="more than are allowed"),
        pytest.param({"replicas": True}, None, id="no number"),
        pytest.param({"replicas": 1, "suspend": "yes"}, None, id="a suspend that is not understood"),
        pytest.param({"replicas": 2, "model": CACHE}, None, id="two that would share a volume of one node"),
        pytest.param({"replicas": 1, "model": CACHE}, 1, id="one with a volume of one node"),
        pytest.param({"replicas": 2, "model": CACHE | {"cache": {"accessMode": "ReadWriteMany"}}}, 2, id="two with a shared volume"),
        pytest.param({"replicas": 2, "model": "a/b"}, 2, id="a model of the wrong shape"),
        pytest.param("nonsense", None, id="no spec"),
    ],
)
def test_the_replicas_that_a_spec_asks_for(raw: object, replicas: int | None) -> None:
    assert wanted_replicas(raw) == replicas


def deployment(replicas: int, *, generation: int, managers: dict[str, str] | None = None) -> dict[str, Any]:
    managed = [{"manager": name, "time": time, "fieldsV1": {"f:spec": {"f:replicas": {}}}} for name, time in (managers or {}).items()]
    return {"metadata": {"generation": generation, "managedFields": managed}, "spec": {"replicas": replicas}}


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        pytest.param(deployment(3, generation=6), Reset(3, 1), id="scaled, by a server that does not say by whom"),
        pytest.param(
            deployment(3, generation=6, managers={"alise-operator": "2", "kubectl": "3"}), Reset(3, 1, "kubectl"), id="by kubectl"
        ),
        pytest.param(
            deployment(3, generation=6, managers={"kubectl": "1", "kube-controller-manager": "2"}),
            Reset(3, 1, "kube-controller-manager"),
            id="by an autoscaler after kubectl",
        ),
        pytest.param(deployment(1, generation=6), None, id="another field"),
        pytest.param(deployment(3, generation=5), None, id="what we have written ourselves"),
        pytest.param(deployment(3, generation=4), None, id="an event from before our last write"),
    ],
)
def test_replicas_of_another_writer_are_found(seen: dict[str, Any], found: Reset | None) -> None:
    assert reset_by(seen, Scale(generation=5, replicas=1)) == found


def test_the_message_names_what_to_scale_instead() -> None:
    message = reset_message(Reset(3, 1, "kubectl"), OWNER, suspended=False)
    assert "was scaled to 3 by kubectl and has been reset to 1" in message
    assert "kubectl scale alise tiny -n default --replicas=3" in message
    assert "apiVersion alise.dev/v1alpha1, kind AliseEngine, name tiny" in message


def test_the_message_of_a_suspended_engine_names_spec_suspend_and_both_ways_out() -> None:
    message = reset_message(Reset(3, 0), OWNER, suspended=True)
    assert "was scaled to 3 and has been reset to 0, because spec.suspend of the AliseEngine is true" in message
    assert """kubectl patch alise tiny -n default --type merge -p '{"spec":{"suspend":false}}'""" in message
    assert "to change the number of pods, use kubectl scale alise tiny -n default --replicas=3" in message

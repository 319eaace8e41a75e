"""The events about children that another writer changed: what they say, and how many there are."""

import copy
from typing import Any

import pytest

from alise_operator.apply import Applied
from alise_operator.children import children
from alise_operator.replicas import REPEAT_SECONDS, Scale
from alise_operator.restores import MOST_EVENTS, Restores
from tests.operator.builders import CURRENT, OWNER, make_spec

Object = dict[str, Any]
INGRESS = {"type": "Ingress", "hosts": ["a.b"], "className": "c"}


def child(kind: str, name: str = "tiny", **changes: object) -> Object:
    """A manifest of the operator."""
    wanted = children(make_spec(**changes), OWNER, CURRENT)
    return copy.deepcopy(next(one for one in wanted if (one["kind"], one["metadata"]["name"]) == (kind, name)))


def live(manifest: Object, *, uid: str = "first", generation: int = 3) -> Object:
    """The child that the cluster has made of it."""
    found = copy.deepcopy(manifest)
    found["metadata"] |= {"uid": uid, "generation": generation}
    return found


def applied(manifest: Object) -> Applied:
    key = manifest["kind"], manifest["metadata"]["name"]
    return Applied("digest", 0.0, generations={key: 3}, scale=Scale(3, 1))


def edit(manifest: Object, generation: int = 4, **spec: object) -> Object:
    """The child as `kubectl edit` leaves it."""
    found = live(manifest, generation=generation)
    tree: Object = {"f:spec": {f"f:{name}": {} for name in spec}}
    managed = {"manager": "kubectl-edit", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": tree}
    found["metadata"]["managedFields"] = [managed]
    found["spec"] |= spec
    return found


def said(
    restores: Restores,
    manifest: Object,
    seen: Object,
    *,
    answer: Object | None = None,
    deleted: bool = False,
    digest: str = "digest",
    at: float = 0.0,
) -> list[tuple[str, str]]:
    """The events after another writer has left the child like this and the operator has applied it again."""
    restores.note(OWNER, manifest["kind"], seen, applied(manifest), deleted=deleted)
    restores.compare(OWNER, digest, manifest, answer or live(manifest, generation=5))
    return [(one.reason, one.message) for one in restores.news(OWNER, applied(manifest), suspended=False, now_seconds=at)]


@pytest.mark.parametrize(
    ("kind", "changes", "edited", "words"),
    [
        pytest.param("Deployment", {}, {"strategy": {"type": "Recreate"}}, "change spec.engine.rollout of the AliseEngine", id="a rollout"),
        pytest.param("Ingress", {"route": INGRESS}, {"rules": []}, "(spec.rules); change spec.route.hosts of the AliseEngine", id="hosts"),
        pytest.param("NetworkPolicy", {}, {"ingress": []}, "change spec.networkPolicy.from of the AliseEngine", id="who may come in"),
        pytest.param("Service", {}, {"ports": []}, "create a Service of your own with the selector alise.dev/engine: tiny", id="ports"),
        pytest.param("PodDisruptionBudget", {"replicas": 2}, {"maxUnavailable": 2}, "lets one pod at a time be evicted", id="a budget"),
    ],
)
def test_the_event_names_the_fields_the_writer_and_the_right_way(kind: str, changes: Object, edited: Object, words: str) -> None:
    manifest = child(kind, **changes)
    ((reason, message),) = said(Restores(), manifest, edit(manifest, **edited))
    assert reason == "ChildRestored"
    assert message.startswith(f"{kind} tiny was changed by kubectl-edit and has been restored (spec.")
    assert words in message


def test_the_image_of_a_container_is_named_with_the_field_of_that_container() -> None:
    manifest = child("Deployment")
    seen = edit(manifest)
    pod = seen["spec"]["template"]["spec"]
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        container["image"] = "mine:1"
    ((_, message),) = said(Restores(), manifest, seen)
    assert "change spec.scheduling.image or spec.podTemplate, and spec.engine.image or spec.podTemplate of the AliseEngine" in message


def test_a_child_of_the_endpoint_picker_is_changed_through_its_field() -> None:
    manifest = child("Deployment", "tiny-picker", routing={"endpointPicker": {}})
    ((_, message),) = said(Restores(), manifest, edit(manifest, replicas=5))
    assert "Deployment tiny-picker was changed by kubectl-edit and has been restored (spec.replicas)" in message
    assert "change spec.routing.endpointPicker of the AliseEngine instead: kubectl edit alise tiny -n default" in message


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        pytest.param("Service", {}, "because the AliseEngine needs it", id="one that is always there"),
        pytest.param("Deployment", {}, "; to stop all pods, set spec.suspend to true", id="the Deployment"),
        pytest.param("Ingress", {"route": INGRESS}, "; to do without it, change spec.route", id="the route"),
    ],
)
def test_a_deleted_child_is_said_to_be_created_again(kind: str, changes: Object, words: str) -> None:
    manifest = child(kind, **changes)
    ((_, message),) = said(Restores(), manifest, live(manifest), answer=live(manifest, uid="second"), deleted=True)
    assert message.startswith(f"{kind} tiny was deleted and has been created again")
    assert message.endswith(words)


def test_a_child_that_lost_the_label_that_is_watched_was_not_deleted() -> None:
    manifest = child("Service")
    ((_, message),) = said(Restores(), manifest, live(manifest), deleted=True)
    assert message.startswith("Service tiny was changed and has been restored (metadata.labels)")


def test_replicas_have_an_event_of_their_own() -> None:
    manifest = child("Deployment")
    events = said(Restores(), manifest, edit(manifest, replicas=3))
    assert [reason for reason, _ in events] == ["ReplicasReset"]


@pytest.mark.parametrize(
    ("generation", "digest"),
    [
        pytest.param(2, "digest", id="a version from before the last apply"),
        pytest.param(4, "another", id="manifests that have changed as well"),
    ],
)
def test_what_may_be_the_operators_own_change_causes_no_event(generation: int, digest: str) -> None:
    manifest = child("NetworkPolicy")
    assert said(Restores(), manifest, edit(manifest, generation, ingress=[]), digest=digest) == []


def test_an_edit_that_restored_nothing_causes_no_event() -> None:
    manifest = child("Service")
    seen = edit(manifest, externalIPs=["192.0.2.1"])
    assert said(Restores(), manifest, seen, answer=seen) == []


def test_writers_that_fight_cause_an_event_now_and_then() -> None:
    restores, manifest = Restores(), child("Service")
    times = [at for at in range(0, 2 * int(REPEAT_SECONDS), 15) if said(restores, manifest, edit(manifest, ports=[]), at=float(at))]
    assert times == [0, REPEAT_SECONDS]


def test_a_writer_that_changes_something_else_each_time_causes_a_bounded_number_of_events() -> None:
    restores, manifest = Restores(), child("NetworkPolicy")
    names = [f"writer-{number}" for number in range(2 * MOST_EVENTS)]
    events = []
    for name in names:
        seen = edit(manifest, ingress=[])
        seen["metadata"]["managedFields"][0]["manager"] = name
        events += said(restores, manifest, seen)
    assert len(events) == MOST_EVENTS


def test_an_engine_that_is_gone_is_forgotten() -> None:
    restores, manifest = Restores(), child("Service")
    said(restores, manifest, edit(manifest, ports=[]))
    restores.keep(set())
    assert said(restores, manifest, edit(manifest, ports=[])) != []


def test_a_writer_that_does_not_give_up_while_no_apply_ends_well_adds_one_message() -> None:
    restores, service = Restores(), child("Service")
    for _ in range(3):
        restores.note(OWNER, "Service", edit(service, ports=[]), applied(service), deleted=False)
        restores.compare(OWNER, "digest", service, live(service, generation=5))
    assert len(restores.news(OWNER, applied(service), suspended=False, now_seconds=0.0)) == 1

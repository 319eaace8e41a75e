"""Which fields another writer has changed on a child, and what sets them back."""

import copy
from typing import Any

import pytest

from alise_operator.children import children
from alise_operator.drift import edited_fields, kept_entries, taken_back, writer_of
from tests.operator.builders import CURRENT, OWNER, make_spec

Object = dict[str, Any]


def child(kind: str, **changes: object) -> Object:
    return copy.deepcopy(next(one for one in children(make_spec(**changes), OWNER, CURRENT) if one["kind"] == kind))


def entry(manager: str, tree: Object, *, at: str = "2026-01-01T00:00:00Z", **fields: object) -> Object:
    return {"manager": manager, "operation": "Update", "time": at, "fieldsV1": tree, **fields}


def owned(node: Any) -> Object:
    """The tree of a writer that owns all of an object; items of lists are known by their name."""
    if isinstance(node, dict):
        return {f"f:{name}": owned(value) for name, value in node.items()}
    if isinstance(node, list) and node and all(isinstance(item, dict) and "name" in item for item in node):
        return {f'k:{{"name":"{item["name"]}"}}': {".": {}, **owned(item)} for item in node}
    return {}


def seen(manifest: Object, *others: Object, without: tuple[str, ...] = ()) -> Object:
    """The manifest as a child in the cluster. `without`: the path in the tree that the operator has lost to another writer."""
    tree = owned({"spec": manifest["spec"]})
    if without:
        node = tree
        for name in without[:-1]:
            node = node[name]
        del node[without[-1]]
    found = copy.deepcopy(manifest)
    found["metadata"]["managedFields"] = [entry("alise-operator", tree, operation="Apply"), *others]
    return found


ENGINE = 'k:{"name":"engine"}'
IMAGE = ("f:spec", "f:template", "f:spec", "f:containers", ENGINE, "f:image")


def with_image(image: str, **parts: Any) -> tuple[Object, Object]:
    """A Deployment's manifest, and the Deployment with another image of the engine."""
    manifest = child("Deployment")
    edited = seen(manifest, **parts)
    edited["spec"]["template"]["spec"]["containers"][0]["image"] = image
    return manifest, edited


def test_a_field_that_another_writer_took_is_named_with_its_container() -> None:
    manifest, edited = with_image("mine:1", without=IMAGE)
    assert edited_fields(manifest, edited, manifest) == ["spec.template.spec.containers[engine].image"]


def test_an_older_value_of_the_operators_own_is_no_edit() -> None:
    manifest, edited = with_image("of-the-last-release:1")
    assert edited_fields(manifest, edited, manifest) == []


def test_what_others_add_and_what_has_its_value_already_is_no_edit() -> None:
    manifest, edited = with_image(child("Deployment")["spec"]["template"]["spec"]["containers"][0]["image"], without=IMAGE)
    edited["spec"]["template"]["spec"]["nodeName"] = "mine"
    restored = copy.deepcopy(edited)
    assert edited_fields(manifest, edited, restored) == []


def test_an_item_that_another_writer_removed_is_named() -> None:
    manifest = child("Deployment")
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    name = container["env"][0]["name"]
    edited = seen(manifest, without=(*IMAGE[:-1], "f:env", f'k:{{"name":"{name}"}}'))
    del edited["spec"]["template"]["spec"]["containers"][0]["env"][0]
    assert edited_fields(manifest, edited, manifest) == [f"spec.template.spec.containers[engine].env[{name}]"]


def test_a_list_of_items_without_names_is_named_as_a_whole() -> None:
    manifest = child("Ingress", route={"type": "Ingress", "hosts": ["a.b"], "className": "c"})
    edited = seen(manifest, without=("f:spec", "f:rules"))
    edited["spec"]["rules"][0]["host"] = "c.d"
    assert edited_fields(manifest, edited, manifest) == ["spec.rules"]


def test_an_object_that_is_owned_as_a_whole_is_compared_as_a_whole() -> None:
    manifest = child("Service")
    edited = seen(manifest)
    edited["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:selector"] = {}
    edited["spec"]["selector"] = {"app": "mine"}
    assert edited_fields(manifest, edited, manifest) == [], "it is still the operator's, so the watch is behind"
    del edited["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:selector"]
    assert edited_fields(manifest, edited, manifest) == ["spec.selector[alise.dev/engine]"]


@pytest.mark.parametrize(
    ("others", "writer"),
    [
        pytest.param([entry("kubectl-edit", {"f:spec": {"f:ports": {}}})], "kubectl-edit", id="one that owns the list"),
        pytest.param(
            [entry("old", {"f:spec": {"f:ports": {}}}), entry("new", {"f:spec": {"f:ports": {}}}, at="2026-01-02T00:00:00Z")],
            "new",
            id="the latest of two",
        ),
        pytest.param([entry("kubectl-label", {"f:metadata": {"f:labels": {}}})], "", id="one that owns something else"),
        pytest.param([entry("x", {"f:spec": {"f:ports": {}}}, subresource="status")], "", id="one that reports a status"),
        pytest.param([], "", id="none that is recorded"),
    ],
)
def test_the_writer_is_the_last_one_that_owns_the_field(others: list[Object], writer: str) -> None:
    assert writer_of(seen(child("Service"), *others), ["spec.ports[http].port"]) == writer


def test_what_others_added_is_taken_back_and_annotations_of_pods_stay() -> None:
    manifest = child("Deployment")
    volumes: Object = {"f:volumes": {'k:{"name":"scratch"}': {"f:hostPath": {}}}}
    restarted: Object = {"f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}}}
    live = seen(manifest, entry("kubectl-edit", {"f:spec": {"f:paused": {}, "f:template": {"f:spec": volumes, **restarted}}}))
    live["spec"]["paused"] = True
    assert taken_back(manifest, live) == {"spec": manifest["spec"] | {"paused": None}}


def test_a_budget_with_the_other_bound_gets_the_operators() -> None:
    manifest = child("PodDisruptionBudget", replicas=2)
    live = seen(manifest, entry("kubectl-edit", {"f:spec": {"f:minAvailable": {}}}))
    del live["spec"]["maxUnavailable"]
    live["spec"]["minAvailable"] = 2
    assert taken_back(manifest, live) == {"spec": manifest["spec"] | {"minAvailable": None}}


def test_a_child_without_another_writer_is_refused_for_its_own_sake() -> None:
    manifest = child("Service")
    status = entry("kube-controller-manager", {"f:status": {}})
    assert taken_back(manifest, seen(manifest, status)) is None
    assert taken_back(child("ServiceAccount"), {"metadata": {"managedFields": [entry("x", {"f:secrets": {}})]}}) is None


def test_only_what_the_operator_applied_stays_its_own() -> None:
    applied, updated = entry("alise-operator", {}, operation="Apply"), entry("alise-operator", {})
    other = entry("kubectl-edit", {})
    assert kept_entries({"metadata": {"managedFields": [applied, updated, other]}}) == [applied, other]

"""Which children are created, changed, pruned and left alone in a cluster."""

from typing import Any

import pytest

from alise_operator.apply import OWNED_KINDS, apply_children, version_of
from alise_operator.children import children
from alise_operator.children.meta import MANAGER, Manifest
from alise_operator.errors import ApplyError, ClusterError, NameTaken
from alise_operator.kube import Resource
from tests.operator.builders import CURRENT, OWNER, make_spec
from tests.operator.fake_kube import FakeKube

SERVICES = OWNED_KINDS["Service"][0]
INGRESS = {"type": "Ingress", "hosts": ["a.b"]}
HTTP_ROUTE = {"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}}


async def put(kube: FakeKube, **changes: object) -> None:
    await apply_children(kube, OWNER, children(make_spec(**changes), OWNER, CURRENT), changed=True, at_seconds=0.0)


async def test_children_come_to_exist() -> None:
    kube = FakeKube()
    await put(kube, route=INGRESS)
    for plural in ("serviceaccounts", "services", "deployments", "networkpolicies", "ingresses"):
        assert kube.names(plural) == ["tiny"]


async def test_another_route_type_prunes_the_old_route() -> None:
    kube = FakeKube()
    await put(kube, route=INGRESS)
    await put(kube, route=HTTP_ROUTE)
    assert (kube.names("ingresses"), kube.names("httproutes")) == ([], ["tiny"])


async def test_fewer_replicas_prune_the_disruption_budget() -> None:
    kube = FakeKube()
    await put(kube, replicas=2)
    assert kube.names("poddisruptionbudgets") == ["tiny"]
    await put(kube, replicas=1)
    assert kube.names("poddisruptionbudgets") == []


async def test_an_object_of_the_same_labels_but_another_owner_is_left_alone() -> None:
    kube = FakeKube()
    labels = {"alise.dev/engine": "tiny", "app.kubernetes.io/managed-by": "alise-operator"}
    kube.put(SERVICES, {"kind": "Service", "metadata": {"name": "other", "labels": labels, "ownerReferences": [{"uid": "uid-other"}]}})
    await put(kube)
    assert kube.names("services") == ["other", "tiny"]


async def test_a_foreign_object_of_the_same_name_is_never_taken_over() -> None:
    kube = FakeKube()
    kube.put(SERVICES, {"kind": "Service", "metadata": {"name": "tiny"}, "spec": {"mine": True}})
    with pytest.raises(NameTaken, match="Service default/tiny exists and does not belong to this AliseEngine"):
        await put(kube)
    assert kube.writes == []


async def test_a_child_that_the_cluster_refuses_leaves_all_others_unwritten() -> None:
    kube = FakeKube()
    kube.refused["ingresses"] = "admission webhook denied the request"
    with pytest.raises(ApplyError, match="the cluster refused Ingress tiny: admission webhook denied the request"):
        await put(kube, route=INGRESS)
    assert kube.writes == []


async def test_applying_the_same_twice_prunes_nothing() -> None:
    kube = FakeKube()
    await put(kube, route=INGRESS)
    await put(kube, route=INGRESS)
    assert [write for write in kube.writes if write[0] == "delete"] == []


@pytest.mark.parametrize(
    ("resource", "path"),
    [
        pytest.param(Resource("v1", "pods"), "/api/v1/namespaces/a/pods/b", id="the core group"),
        pytest.param(Resource("apps/v1", "deployments"), "/apis/apps/v1/namespaces/a/deployments/b", id="a named group"),
    ],
)
def test_a_resource_knows_its_path(resource: Resource, path: str) -> None:
    assert resource.path("a", "b") == path
    assert resource.path("a", "b", "status") == path + "/status"


async def test_an_endpoint_picker_that_is_turned_off_goes_whole_and_the_model_stays() -> None:
    kube = FakeKube()
    await put(kube, routing={"endpointPicker": {}})
    for plural in ("serviceaccounts", "rolebindings", "networkpolicies", "services", "deployments"):
        assert "tiny-picker" in kube.names(plural)
    await put(kube)
    assert kube.names("rolebindings") == []
    for plural in ("serviceaccounts", "networkpolicies", "services", "deployments"):
        assert kube.names(plural) == ["tiny"]


class OwningKube(FakeKube):
    """The operator owns a field of the Service by a merge patch, and other writers are faster a few times."""

    def __init__(self, conflicts: int) -> None:
        super().__init__()
        self.conflicts = conflicts
        self.freed: list[Any] = []

    async def apply(self, resource: Resource, manifest: Manifest, *, dry_run: bool = False) -> Manifest:
        answer = await super().apply(resource, manifest, dry_run=dry_run)
        if resource == SERVICES and not dry_run and not self.freed:
            answer["metadata"]["managedFields"].append({"manager": MANAGER, "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {}}}})
        return answer

    async def patch(self, resource: Resource, namespace: str, name: str, changes: Manifest, *, dry_run: bool = False) -> Manifest:
        if self.conflicts:
            self.conflicts -= 1
            raise ClusterError("the object has been modified", status=409)
        self.freed += changes["metadata"]["managedFields"]
        return await super().patch(resource, namespace, name, changes, dry_run=dry_run)


@pytest.mark.parametrize("conflicts", [0, 1, 4])
async def test_what_the_operator_owns_by_a_merge_patch_is_given_up_in_the_end(conflicts: int) -> None:
    kube = OwningKube(conflicts)
    for _ in range(2):
        await put(kube)
    assert [(one["manager"], one["operation"]) for one in kube.freed] == [(MANAGER, "Apply")]


def test_a_child_that_was_created_anew_has_another_version() -> None:
    first, second = ({"metadata": {"uid": uid, "generation": 1}} for uid in ("first", "second"))
    assert version_of(first) != version_of(second)


def owned(fields: dict[str, Any], *others: dict[str, Any], version: str = "1") -> Manifest:
    """A child without a generation."""
    entries = [{"manager": MANAGER, "operation": "Apply", "fieldsV1": fields}, *others]
    return {"metadata": {"uid": "first", "resourceVersion": version, "managedFields": entries}}


def test_a_child_without_a_generation_has_another_version_once_another_writer_has_taken_a_field_over() -> None:
    edited = owned({"f:spec": {}}, {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:ports": {}}}})
    assert version_of(owned({"f:spec": {"f:ports": {}}})) != version_of(edited)


def test_a_child_without_a_generation_keeps_its_version_while_controllers_only_add_to_it() -> None:
    added = {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:secrets": {}}}
    assert version_of(owned({"f:spec": {}})) == version_of(owned({"f:spec": {}}, added, version="2"))


def test_without_managed_fields_every_write_is_another_version() -> None:
    first, second = ({"metadata": {"uid": "first", "resourceVersion": version}} for version in ("1", "2"))
    assert version_of(first) != version_of(second)


def test_a_later_write_of_the_same_fields_by_the_operator_itself_is_another_version() -> None:
    """A request that timed out may be carried out after the next one."""
    first, late = owned({"f:data": {}}), owned({"f:data": {}})
    late["metadata"]["managedFields"][0]["time"] = "2026-01-01T00:00:15Z"
    assert version_of(first) != version_of(late)


def test_an_annotation_that_another_writer_has_taken_over_is_another_version_although_the_generation_is_not() -> None:
    first, edited = owned({"f:metadata": {"f:annotations": {"f:timeout": {}}}}), owned({"f:metadata": {}})
    for child in (first, edited):
        child["metadata"]["generation"] = 1
    assert version_of(first) != version_of(edited)

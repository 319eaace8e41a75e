"""Which changes of a child without a generation count, with the owners of fields that an API server records, and without them."""

from typing import Any

import pytest

from alise_operator.apply import OWNED_KINDS
from alise_operator.children.meta import MANAGER
from alise_operator.reads import VERIFY_SECONDS
from tests.operator.managed_fields import after_write
from tests.operator.world import World

SERVICES, ACCOUNTS = OWNED_KINDS["Service"][0], OWNED_KINDS["ServiceAccount"][0]
SPEC = {"type": "ClusterIP", "ports": [{"port": 80, "name": "http"}]}
PORT: dict[str, Any] = {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:name": {}}}


async def added(world: World) -> None:
    """A controller adds a token to the ServiceAccount, as that of Kubernetes before 1.24 does."""
    account = world.kube.objects[("serviceaccounts", "default", "tiny")]
    changed = world.kube.put(ACCOUNTS, account | {"secrets": [{"name": "tiny-token"}]}, writer="kube-controller-manager")
    await looked_at(world, "ServiceAccount", changed)


async def looked_at(world: World, kind: str, changed: dict[str, Any]) -> None:
    """The watch and the list of all children show it, and the next reconcile acts."""
    world.kube.writes.clear()
    world.reconciler.child_changed(kind, changed, deleted=False)
    world.seconds += VERIFY_SECONDS
    await world.reconciler.verify()
    await world.reconcile()


@pytest.mark.parametrize("records_owners", [True, False])
async def test_an_edited_service_is_put_right(world: World, records_owners: bool) -> None:
    world.kube.records_owners = records_owners
    await world.reconcile()
    service = world.kube.objects[("services", "default", "tiny")]
    await looked_at(world, "Service", world.kube.put(SERVICES, service | {"spec": service["spec"] | {"ports": []}}))
    assert world.kube.objects[("services", "default", "tiny")]["spec"] == service["spec"]


async def test_what_a_controller_adds_is_no_change(world: World) -> None:
    await world.reconcile()
    await added(world)
    assert world.kube.writes == []


async def test_without_owners_of_fields_every_write_is_a_change(world: World) -> None:
    world.kube.records_owners = False
    await world.reconcile()
    await added(world)
    assert ("apply", "serviceaccounts", "tiny") in world.kube.writes


def who(entries: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    return {(one["manager"], one["operation"]): one["fieldsV1"] for one in entries}


def service(spec: dict[str, Any], *entries: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": "tiny", "managedFields": list(entries)}, "spec": spec, "status": {"mine": True}}


def test_who_applies_owns_what_is_applied_and_items_of_lists_one_by_one() -> None:
    (entry,) = after_write({}, service(SPEC), MANAGER, "Apply", "1")
    assert (entry["manager"], entry["operation"], entry["time"]) == (MANAGER, "Apply", "1")
    assert entry["fieldsV1"] == {"f:spec": {"f:type": {}, "f:ports": PORT}}


def test_who_updates_takes_over_what_is_another_value_and_nothing_else() -> None:
    applied = after_write({}, service(SPEC), MANAGER, "Apply", "1")
    edited = after_write(service(SPEC, *applied), service(SPEC | {"type": "NodePort", "mine": 1}), "kubectl-edit", "Update", "2")
    assert who(edited) == {
        (MANAGER, "Apply"): {"f:spec": {"f:ports": PORT}},
        ("kubectl-edit", "Update"): {"f:spec": {"f:type": {}, "f:mine": {}}},
    }
    again = after_write(service(SPEC | {"type": "NodePort", "mine": 1}, *edited), service(SPEC), MANAGER, "Apply", "3")
    assert who(again) == {(MANAGER, "Apply"): {"f:spec": {"f:type": {}, "f:ports": PORT}}}


def test_an_apply_that_changes_nothing_has_the_time_of_the_one_before() -> None:
    applied = after_write({}, service(SPEC), MANAGER, "Apply", "1")
    assert after_write(service(SPEC, *applied), service(SPEC), MANAGER, "Apply", "2") == applied
    (changed,) = after_write(service(SPEC, *applied), service(SPEC | {"type": "NodePort"}), MANAGER, "Apply", "2")
    assert changed["time"] == "2"

"""The steps of a reconciliation, against an API server in memory."""

import copy
from typing import Any

import pytest

from alise_operator import metrics
from alise_operator import reconcile as reconciling
from alise_operator.apply import OWNED_KINDS
from alise_operator.errors import ClusterError
from alise_operator.observe import SECRETS
from alise_operator.reconcile import ENGINES, REAPPLY_SECONDS
from tests.operator.builders import raw_spec
from tests.operator.world import KEY, World

DEPLOYMENTS, SERVICES = OWNED_KINDS["Deployment"][0], OWNED_KINDS["Service"][0]
AUTH = {"secretRef": {"name": "keys"}}
HTTP_ROUTE = {"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}}


async def test_a_new_engine_gets_its_children_and_a_status(world: World) -> None:
    conditions = await world.reconcile()
    assert world.kube.names("deployments") == world.kube.names("services") == ["tiny"]
    assert conditions["Ready"]["reason"] == "Starting"
    world.set_ready(1)
    assert (await world.reconcile())["Ready"]["status"] == "True"


async def test_a_settled_engine_causes_no_writes(world: World) -> None:
    await world.reconcile()
    await world.reconcile()
    writes, patches = list(world.kube.writes), list(world.kube.status_patches)
    for _ in range(5):
        world.seconds += 15
        await world.reconcile()
    assert world.kube.writes == writes
    assert world.kube.status_patches == patches


async def test_children_are_applied_again_after_a_while_whatever_the_watches_report(world: World) -> None:
    await world.reconcile()
    del world.kube.objects[("services", "default", "tiny")]
    world.seconds = REAPPLY_SECONDS + 1
    await world.reconcile()
    assert world.kube.names("services") == ["tiny"]


async def test_a_deleted_child_that_was_seen_comes_back_at_once(world: World) -> None:
    await world.reconcile()
    service = world.kube.objects.pop(("services", "default", "tiny"))
    world.reconciler.child_changed("Service", service, deleted=True)
    await world.reconcile()
    assert world.kube.names("services") == ["tiny"]


async def test_each_of_several_children_that_were_deleted_at_once_has_an_event(world: World) -> None:
    await world.reconcile()
    for kind, plural in (("Service", "services"), ("NetworkPolicy", "networkpolicies")):
        world.reconciler.child_changed(kind, world.kube.objects.pop((plural, "default", "tiny")), deleted=True)
    await world.reconcile()
    said = [one["message"] for (plural, _, _), one in world.kube.objects.items() if plural == "events" and one["reason"] == "ChildRestored"]
    assert sorted(message.partition(" ")[0] for message in said) == ["NetworkPolicy", "Service"]
    await world.reconcile()
    assert world.kube.names("services") == world.kube.names("networkpolicies") == ["tiny"]


async def test_the_operators_own_writes_hide_no_event_if_the_watch_shows_them_while_children_are_applied(world: World) -> None:
    await world.reconcile()
    service = world.kube.objects.pop(("services", "default", "tiny"))
    world.reconciler.child_changed("Service", service, deleted=True)
    world.kube.on_apply = lambda written: void(world.reconciler.child_changed(written["kind"], written, deleted=False))
    await world.reconcile()
    assert ("Warning", "ChildRestored") in world.events()


def void(_: object) -> None:
    return None


async def test_an_edited_child_is_put_right(world: World) -> None:
    await world.reconcile()
    deployment = world.deployment()
    edited = world.kube.put(DEPLOYMENTS, deployment | {"spec": {"replicas": 99}})
    world.reconciler.child_changed("Deployment", edited, deleted=False)
    await world.reconcile()
    assert world.deployment()["spec"]["replicas"] == 1


async def test_a_childs_own_status_is_no_edit(world: World) -> None:
    await world.reconcile()
    writes = list(world.kube.writes)
    world.reconciler.child_changed("Deployment", world.deployment(), deleted=False)
    await world.reconcile()
    assert world.kube.writes == writes


async def test_an_edited_label_of_a_child_is_put_right(world: World) -> None:
    owned = {"name": "tiny", "generation": 1, "ownerReferences": [{"uid": "uid-tiny"}]}
    world.kube.put(DEPLOYMENTS, {"metadata": owned, "spec": {"replicas": 1}})
    await world.reconcile()
    labels = dict(world.deployment()["metadata"]["labels"])
    edited = copy.deepcopy(world.deployment())
    edited["metadata"]["labels"] = {}
    world.kube.put(DEPLOYMENTS, edited)
    world.reconciler.child_changed("Deployment", edited, deleted=False)
    await world.reconcile()
    assert world.deployment()["metadata"]["labels"] == labels


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "edited"])
async def test_a_child_that_changes_while_the_others_are_applied_is_applied_again(world: World, deleted: bool) -> None:
    def change_the_service(written: dict[str, Any]) -> None:
        if written["kind"] == "Deployment":
            world.kube.on_apply = lambda _: None
            service = world.kube.objects[("services", "default", "tiny")]
            if deleted:
                del world.kube.objects[("services", "default", "tiny")]
            else:
                service = world.kube.put(SERVICES, service | {"spec": {}})
            world.reconciler.child_changed("Service", service, deleted=deleted)

    world.kube.on_apply = change_the_service
    await world.reconcile()
    await world.reconcile()
    assert world.kube.objects[("services", "default", "tiny")]["spec"]["type"] == "ClusterIP"
    assert ("Warning", "ChildRestored") in world.events()


async def test_children_seen_as_they_were_applied_are_not_applied_again(world: World) -> None:
    def seen(written: dict[str, Any]) -> None:
        world.reconciler.child_changed(written["kind"], written, deleted=False)

    world.kube.on_apply = seen
    await world.reconcile()
    writes = list(world.kube.writes)
    await world.reconcile()
    assert world.kube.writes == writes


BAD_ENGINE = {"device": "cpu", "kvCacheDtype": "int4"}


async def test_a_bad_patch_changes_no_child_and_is_reported_once(world: World) -> None:
    await world.reconcile()
    world.set_ready(1)
    await world.reconcile()
    before = world.deployment()
    world.kube.put_engine(raw_spec(engine=BAD_ENGINE), generation=2)
    for _ in range(3):
        conditions = await world.reconcile()
    assert world.deployment() == before
    assert (conditions["Ready"]["status"], conditions["Ready"]["reason"]) == ("True", "ServingOldSpec")
    assert "spec.engine.kvCacheDtype: 'int4'" in conditions["Ready"]["message"]
    assert conditions["Ready"]["observedGeneration"] == 2
    assert conditions["Degraded"]["reason"] == "InvalidSpec"
    assert world.events().count(("Warning", "InvalidSpec")) == 1


async def test_a_suspended_resource_says_so_although_its_spec_cannot_be_parsed(world: World) -> None:
    world.kube.put_engine(raw_spec(suspend=True, model={"uri": "a/b", "servedName": "two names"}), generation=2)
    conditions = await world.reconcile()
    assert conditions["Progressing"]["message"].endswith("spec.suspend is also true, so pods start only after it is set to false")


@pytest.mark.parametrize(
    ("change", "replicas"),
    [
        pytest.param({"replicas": 3}, 3, id="scaled up"),
        pytest.param({"replicas": 0}, 0, id="scaled to zero"),
        pytest.param({"suspend": True}, 0, id="suspended"),
        pytest.param({"suspend": True, "replicas": -1}, 0, id="suspended, with replicas that are wrong themselves"),
        pytest.param({"replicas": -1}, 1, id="replicas that are wrong themselves"),
    ],
)
async def test_pods_are_scaled_whatever_else_is_wrong(world: World, change: dict[str, Any], replicas: int) -> None:
    await world.reconcile()
    template = copy.deepcopy(world.deployment()["spec"]["template"])
    world.kube.put_engine(raw_spec(engine=BAD_ENGINE, noSuchField=1, **change), generation=2)
    assert (await world.reconcile())["Degraded"]["reason"] == "InvalidSpec"
    assert world.deployment()["spec"]["replicas"] == replicas
    assert world.deployment()["spec"]["template"] == template


async def test_pods_are_scaled_while_the_cluster_refuses_the_rest(world: World) -> None:
    await world.reconcile()
    # Several pods come with a disruption budget.
    world.kube.refused["poddisruptionbudgets"] = "exceeded quota"
    world.kube.put_engine(raw_spec(replicas=3), generation=2)
    assert (await world.reconcile())["Degraded"]["reason"] == "ApplyFailed"
    assert world.deployment()["spec"]["replicas"] == 3


async def test_replicas_go_back_with_a_spec_that_is_taken_back(world: World) -> None:
    await world.reconcile()
    world.kube.put_engine(raw_spec(engine=BAD_ENGINE, replicas=3), generation=2)
    await world.reconcile()
    world.kube.put_engine(raw_spec(), generation=3)
    await world.reconcile()
    assert world.deployment()["spec"]["replicas"] == 1


async def test_a_foreign_deployment_is_not_scaled(world: World) -> None:
    world.kube.put(DEPLOYMENTS, {"kind": "Deployment", "metadata": {"name": "tiny"}, "spec": {"replicas": 7}})
    assert (await world.reconcile())["Ready"]["reason"] == "NameTaken"
    assert world.deployment()["spec"] == {"replicas": 7}


async def test_a_mended_spec_recovers(world: World) -> None:
    world.kube.put_engine(raw_spec(replicas=-1))
    assert (await world.reconcile())["Ready"]["reason"] == "InvalidSpec"
    world.kube.put_engine(raw_spec(replicas=3), generation=2)
    conditions = await world.reconcile()
    assert conditions["Ready"]["reason"] == "Starting"
    assert conditions["Degraded"]["status"] == "False"
    assert world.deployment()["spec"]["replicas"] == 3


async def test_no_secret_is_read_before_the_children_are_applied(world: World) -> None:
    world.kube.forbidden = {"secrets"}
    postgres = {"dsnSecretRef": {"name": "lengths"}, "keySecretRef": {"name": "lengths"}}
    named = {"model": {"uri": "a/b", "tokenSecretRef": {"name": "hub"}}, "predictor": {"history": {"postgres": postgres}}}
    world.kube.put_engine(raw_spec(auth=AUTH, route={"type": "Ingress", "hosts": ["a.b"], "tlsSecret": "cert"}, **named))
    conditions = await world.reconcile()
    assert conditions["Ready"]["reason"] == "Starting"
    assert conditions["Degraded"]["status"] == "False"
    assert world.kube.names("deployments") == ["tiny"]


async def test_other_api_keys_do_not_roll_the_pods(world: World) -> None:
    world.kube.put(SECRETS, {"metadata": {"name": "keys"}, "data": {"team-a": "eA=="}})
    world.kube.put_engine(raw_spec(auth=AUTH))
    await world.reconcile()
    template = copy.deepcopy(world.deployment()["spec"]["template"])
    world.kube.put(SECRETS, {"metadata": {"name": "keys"}, "data": {"team-a": "eQ==", "team-b": "eg=="}})
    world.restart()
    await world.reconcile()
    assert world.deployment()["spec"]["template"] == template


async def test_a_refused_child_is_reported_with_the_servers_message_and_retried(world: World) -> None:
    world.kube.refused["deployments"] = "exceeded quota"
    conditions = await world.reconcile()
    assert (conditions["Ready"]["reason"], conditions["Degraded"]["reason"]) == ("ApplyFailed", "ApplyFailed")
    assert "the cluster refused Deployment tiny: exceeded quota" in conditions["Degraded"]["message"]
    world.kube.refused.clear()
    assert (await world.reconcile())["Ready"]["reason"] == "Starting"


@pytest.mark.parametrize("trouble", ["refused", "failing"])
async def test_a_child_that_the_cluster_does_not_take_does_not_end_autoscaling(world: World, trouble: str) -> None:
    world.kube.put_engine(raw_spec(replicas=1, autoscaling={"minReplicas": 2, "maxReplicas": 4}))
    troubled: dict[str, Any] = {"refused": world.kube.refused, "failing": world.kube.failing}
    troubled[trouble]["services"] = "exceeded quota" if trouble == "refused" else 500
    conditions = await world.reconcile()
    assert conditions["Degraded"]["status"] == "True"
    assert conditions["AutoscalingActive"]["reason"] == "PodsStarting"
    assert world.kube.objects[("aliseengines", "default", "tiny")]["spec"]["replicas"] == 2


async def test_a_cluster_that_fails_at_a_new_spec_is_reported_on_the_resource_and_retried(world: World) -> None:
    world.kube.failing["deployments"] = 500
    error = await world.reconciler.reconcile(KEY)
    conditions = {one["type"]: one for one in world.status()["conditions"]}
    assert error is not None
    assert {one["reason"] for one in conditions.values() if one["type"] not in ("RouteReady", "KVCacheShort")} == {"ClusterUnavailable"}
    assert (
        "the cluster failed to apply Deployment tiny, and the operator tries again: failed calling webhook"
        in conditions["Ready"]["message"]
    )
    assert "tries again" in conditions["Progressing"]["message"]
    world.kube.failing.clear()
    assert (await world.reconcile())["Ready"]["reason"] == "Starting"


async def test_a_cluster_that_fails_at_what_was_never_applied_is_not_taken_for_one_that_starts(world: World) -> None:
    world.kube.refused["deployments"] = "exceeded quota"
    assert (await world.reconcile())["Ready"]["reason"] == "ApplyFailed"
    world.kube.refused.clear()
    world.kube.failing["deployments"] = 500
    assert (await world.reconcile())["Ready"]["reason"] == "ClusterUnavailable"


async def test_a_cluster_that_fails_at_a_spec_that_serves_degrades_it_and_no_more(world: World) -> None:
    await world.reconcile()
    world.set_ready(1)
    await world.reconcile()
    world.kube.failing["deployments"] = 500
    world.seconds = REAPPLY_SECONDS + 1
    for _ in range(2):
        conditions = await world.reconcile()
        assert (conditions["Ready"]["status"], conditions["Degraded"]["reason"]) == ("True", "ClusterUnavailable")


async def test_a_bug_in_the_builders_is_reported_on_the_resource_and_then_raised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[dict[str, Any]]:
        raise KeyError("surprise")

    monkeypatch.setattr(reconciling, "children", broken)
    with pytest.raises(KeyError):
        await world.reconciler.reconcile(KEY)
    (reason,) = {one["reason"] for one in world.status()["conditions"] if one["type"] not in ("RouteReady", "KVCacheShort")}
    assert reason == "InternalError"
    assert "KeyError: 'surprise'" in world.status()["conditions"][0]["message"]


async def test_a_name_in_use_is_reported_and_the_foreign_object_is_kept(world: World) -> None:
    world.kube.put(SERVICES, {"kind": "Service", "metadata": {"name": "tiny"}, "spec": {"mine": True}})
    assert (await world.reconcile())["Ready"]["reason"] == "NameTaken"
    assert world.kube.objects[("services", "default", "tiny")]["spec"] == {"mine": True}


async def test_without_the_api_server_the_pass_fails_and_says_nothing(world: World) -> None:
    world.kube.away = True
    with pytest.raises(ClusterError):
        await world.reconciler.reconcile(KEY)
    assert world.kube.status_patches == []


async def test_an_engine_that_is_being_deleted_is_left_to_the_garbage_collector(world: World) -> None:
    world.kube.objects[(ENGINES.plural, "default", "tiny")]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert await world.reconciler.reconcile(KEY) is None
    assert world.kube.writes == []


async def test_an_engine_that_is_gone_is_no_error(world: World) -> None:
    del world.kube.objects[(ENGINES.plural, "default", "tiny")]
    assert await world.reconciler.reconcile(KEY) is None


async def test_metrics_have_each_resources_conditions_and_pods_until_it_is_gone(world: World) -> None:
    labels = {"namespace": "default", "alise_engine": "tiny"}
    ready = labels | {"condition": "Ready", "status": "False", "reason": "Starting"}
    await world.reconcile()
    assert metrics.REGISTRY.get_sample_value("alise_operator_resource_condition", ready) == 1
    assert metrics.REGISTRY.get_sample_value("alise_operator_resource_pods", labels | {"state": "desired"}) == 1
    assert list(await world.reconciler.all_keys()) == [KEY]
    del world.kube.objects[(ENGINES.plural, "default", "tiny")]
    assert await world.reconciler.all_keys() == {}
    assert metrics.REGISTRY.get_sample_value("alise_operator_resource_condition", ready) is None


async def test_a_new_operator_takes_up_what_changed_while_there_was_none(world: World) -> None:
    await world.reconcile()
    world.kube.put_engine(raw_spec(replicas=4), generation=2)
    world.restart()
    await world.reconcile()
    assert world.deployment()["spec"]["replicas"] == 4


async def test_a_new_operator_prunes_what_the_last_one_created(world: World) -> None:
    world.kube.put_engine(raw_spec(route={"type": "Ingress", "hosts": ["a.b"]}))
    await world.reconcile()
    assert world.status()["url"] == "http://a.b/v1"
    world.kube.put_engine(raw_spec(), generation=2)
    world.restart()
    await world.reconcile()
    assert world.kube.names("ingresses") == []
    assert world.status()["url"] == "http://tiny.default.svc/v1"


async def test_the_resource_itself_is_never_written_but_for_its_status(world: World) -> None:
    await world.reconcile()
    engine = world.kube.objects[(ENGINES.plural, "default", "tiny")]
    assert engine["spec"] == raw_spec()
    assert set(engine["metadata"]) == {"name", "namespace", "uid", "generation", "resourceVersion"}
    assert (ENGINES.plural, "tiny") not in [(plural, name) for _, plural, name in world.kube.writes]

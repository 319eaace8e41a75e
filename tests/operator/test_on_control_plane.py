"""The real operator process against a real API server, with its real rights and nothing more."""

import json

import pytest

from tests.cluster.errors import CommandFailed
from tests.operator.control_plane import Engine, Object, OperatorProcess, eventually

pytestmark = pytest.mark.controlplane

CHILDREN = ("serviceaccount", "service", "deployment", "networkpolicy", "ingresses.networking.k8s.io")
BAD_DTYPE = {"engine": {"kvCacheDtype": "int4"}}


def test_applying_the_sample_brings_its_children(engine: Engine) -> None:
    engine.apply()
    for kind in CHILDREN:
        child = engine.child(kind)
        assert child["metadata"]["ownerReferences"][0]["uid"] == engine.get()["metadata"]["uid"]
        assert {entry["manager"] for entry in child["metadata"]["managedFields"]} >= {"alise-operator"}
    assert len(engine.wait_for_pods(1)) == 1


def test_the_resource_carries_no_finalizer_and_no_annotation_of_the_operator(engine: Engine) -> None:
    engine.apply()
    engine.until("Ready", "False", "Starting")
    meta = engine.get()["metadata"]
    assert "finalizers" not in meta
    assert set(meta.get("annotations", {})) <= {"kubectl.kubernetes.io/last-applied-configuration"}
    spec_writers = {entry["manager"] for entry in meta["managedFields"] if "f:spec" in entry["fieldsV1"]}
    assert "alise-operator" not in spec_writers


def test_a_ready_pod_makes_the_engine_ready_and_its_end_unready(engine: Engine) -> None:
    engine.apply()
    (pod,) = engine.wait_for_pods(1)
    engine.until("Ready", "False", "Starting")
    engine.make_ready(pod)
    engine.until("Ready", "True", "Serving")
    engine.until("Progressing", "False", "Complete")
    engine.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    assert engine.until("Ready", "False", "Starting")


def test_a_stranger_reads_the_state_in_kubectl_get_and_describe(engine: Engine) -> None:
    engine.apply()
    engine.until("Ready", "False", "Starting")
    # The Deployment's controller counts its pods a little later.
    eventually("the pod is counted", lambda: engine.get()["status"]["replicas"] == 1)
    header, row = engine.kubectl("get", "alise").splitlines()[:2]
    assert header.split() == ["NAME", "MODEL", "POLICY", "READY", "REASON", "DEGRADED", "REPLICAS", "URL", "AGE"]
    assert row.split()[:8] == [
        "tiny",
        "/models/tiny",
        "boost",
        "False",
        "Starting",
        "AsExpected",
        "1",
        f"http://tiny.{engine.namespace}.test/v1",
    ]
    engine.patch(BAD_DTYPE)
    said = engine.until("Ready", "False", "InvalidSpec")["message"]
    described = engine.kubectl("describe", "alise", "tiny")
    assert "InvalidSpec" in described
    assert said in " ".join(described.split())


def test_an_invalid_patch_keeps_the_children_and_is_announced_once(engine: Engine) -> None:
    engine.apply()
    before = engine.child("deployment")
    engine.until("Ready", "False", "Starting")
    engine.patch(BAD_DTYPE)
    engine.until("Ready", "False", "InvalidSpec")
    condition = engine.until("Degraded", "True", "InvalidSpec")
    assert "spec.engine.kvCacheDtype: 'int4' is not available on device cpu; use one of auto, fp8" in condition["message"]
    assert engine.child("deployment")["spec"] == before["spec"]

    def warnings() -> list[Object]:
        return [one for one in engine.events() if (one["type"], one["reason"]) == ("Warning", "InvalidSpec")]

    # Events are posted after the status.
    eventually("it is announced", warnings)
    assert [one["count"] for one in warnings()] == [1]
    engine.patch({"engine": {"kvCacheDtype": "fp8"}, "replicas": 2})
    engine.until("Degraded", "False", "AsExpected")
    eventually("the mended spec is applied", lambda: engine.one("deployment")["spec"]["replicas"] == 2)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"replicas": -1}, "spec.replicas", id="negative replicas"),
        pytest.param({"scheduling": {"policy": "lifo"}}, "spec.scheduling.policy", id="an unknown policy"),
        pytest.param({"kvOffload": {"hostMemory": "2 GB"}}, "spec.kvOffload.hostMemory", id="a bad quantity"),
        pytest.param({"scheduling": {"classes": [{"name": "a\tb"}]}}, "spec.scheduling.classes.name", id="a tab in the name of a class"),
        pytest.param({"auth": {}}, "spec.auth.secretRef", id="API keys from nowhere"),
    ],
)
def test_the_api_server_refuses_what_the_schema_forbids(engine: Engine, spec: dict[str, object], said: str) -> None:
    engine.apply()
    with pytest.raises(Exception, match=said):
        engine.patch(spec)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"route": {"hosts": []}}, "spec.route.hosts: is empty; type Ingress needs", id="no hosts"),
        pytest.param(
            {"route": {"parentRef": {"name": "g"}}}, "className (Ingress) and parentRef (HTTPRoute) are both set", id="both route types"
        ),
        pytest.param(
            {"kvOffload": {"hostMemory": "3Gi"}},
            "spec.engine.resources.limits.memory: '4Gi' is below 5392Mi = 1Gi (the engine itself)",
            id="memory sum",
        ),
        pytest.param({"engine": {"args": ["--data-parallel-size=2"]}}, "data parallel engines are not supported", id="data parallel"),
        pytest.param(
            {"podTemplate": {"spec": {"volumes": [{"name": "A B"}]}}}, "the cluster refused Deployment tiny", id="a refused pod template"
        ),
        pytest.param({"podTemplate": {"spec": {"nodeSelectr": {"a": "b"}}}}, "nodeSelectr", id="a field that pods do not have"),
        pytest.param(
            {"podTemplate": {"spec": {"containers": [{"name": "x", "image": "x", "ports": [{"containerPort": 99999}]}]}}},
            "the cluster refused Deployment tiny",
            id="a port that there is not",
        ),
    ],
)
def test_what_the_schema_lets_through_is_reported_in_the_condition_and_not_applied(
    engine: Engine, spec: dict[str, object], said: str
) -> None:
    engine.apply()
    before = engine.child("deployment")
    engine.until("Ready", "False", "Starting")
    engine.patch(spec)
    condition = eventually("the condition says so", lambda: found if said in (found := engine.condition("Degraded"))["message"] else None)
    assert (condition["status"], engine.condition("Ready")["status"]) == ("True", "False")
    assert engine.child("deployment")["spec"] == before["spec"]


def test_a_webhook_that_fails_is_reported_on_the_resource_until_it_is_repaired(engine: Engine) -> None:
    engine.apply()
    engine.until("Ready", "False", "Starting")
    before = engine.child("deployment")
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}
    webhook = {
        "name": "nobody.example.com",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": 2,
        "clientConfig": {"url": "https://127.0.0.1:1/"},
        "namespaceSelector": {"matchLabels": {"hooked": engine.namespace}},
        "rules": [rule],
    }
    meta = {"name": f"nobody-{engine.namespace}"}
    engine.access.kubectl("label", "namespace", engine.namespace, f"hooked={engine.namespace}")
    engine.access.apply(
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": meta, "webhooks": [webhook]}
    )

    def is_in_force() -> bool:
        """The API server learns of a webhook a little later."""
        try:
            engine.kubectl("annotate", "deployment", "tiny", "example.com/tried=yes", "--dry-run=server")
        except CommandFailed as error:
            return str(webhook["name"]) in str(error)
        return False

    try:
        eventually("the webhook is in force", is_in_force)
        engine.patch({"replicas": 2})
        engine.until("Ready", "False", "ClusterUnavailable")
        condition = engine.until("Degraded", "True", "ClusterUnavailable")
        assert "the cluster failed to apply Deployment tiny, and the operator tries again: " in condition["message"]
        assert engine.child("deployment")["spec"] == before["spec"]
    finally:
        engine.access.kubectl("delete", "validatingwebhookconfiguration", meta["name"])
    eventually("the spec is applied", lambda: engine.one("deployment")["spec"]["replicas"] == 2)
    engine.until("Degraded", "False", "AsExpected")


def test_while_the_old_pod_serves_the_state_says_so_and_what_holds_the_new_one_up(engine: Engine) -> None:
    engine.apply()
    (old,) = engine.wait_for_pods(1)
    engine.make_ready(old)
    engine.until("Ready", "True", "Serving")
    engine.patch({"drainSeconds": 7})
    engine.until("Ready", "True", "ServingOldSpec")
    new = next(pod for pod in engine.wait_for_pods(2) if pod["metadata"]["uid"] != old["metadata"]["uid"])
    no_room = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no nvidia.com/gpu"}
    engine.set_pod_status(new["metadata"]["name"], {"conditions": [no_room]})
    assert "; see the condition Degraded" in engine.until("Progressing", "False", "Unschedulable")["message"]
    assert "spec.engine.rollout: replace" in engine.until("Degraded", "True", "Unschedulable")["message"]


def test_a_certificate_that_may_not_be_looked_for_is_no_trouble(engine: Engine) -> None:
    engine.apply(route={"type": "Ingress", "className": "alise-test", "hosts": ["a.b"], "tlsSecret": "cert"})
    engine.child("ingresses.networking.k8s.io")
    engine.until("RouteReady", "True", "Applied")
    assert engine.condition("Degraded")["status"] == "False"


def test_kubectl_scale_scales_the_deployment_and_the_operator_leaves_replicas_alone(engine: Engine) -> None:
    engine.apply()
    engine.wait_for_pods(1)
    engine.kubectl("scale", "alise/tiny", "--replicas=2")
    engine.wait_for_pods(2)
    assert engine.get()["spec"]["replicas"] == 2
    engine.child("poddisruptionbudget")
    scale = engine.access.get(f"/apis/alise.dev/v1alpha1/namespaces/{engine.namespace}/aliseengines/tiny/scale")
    assert scale["status"]["selector"] == "alise.dev/engine=tiny"
    engine.kubectl("scale", "alise/tiny", "--replicas=1")
    engine.wait_for_pods(1)
    eventually("the budget is pruned", lambda: not engine.one("poddisruptionbudget"))


def test_another_route_type_prunes_the_ingress(engine: Engine) -> None:
    engine.apply()
    engine.child("ingresses.networking.k8s.io")
    engine.apply(route={"type": "None"})
    eventually("the Ingress is pruned", lambda: not engine.one("ingresses.networking.k8s.io"))
    assert eventually("the URL is the Service's", lambda: engine.get()["status"]["url"] == f"http://tiny.{engine.namespace}.svc/v1")


def test_a_route_that_the_cluster_cannot_serve_names_what_to_install(engine: Engine) -> None:
    engine.apply(route={"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}})
    engine.until("Ready", "False", "MissingApi")
    condition = engine.until("Degraded", "True", "MissingApi")
    assert "install the Gateway API or use Ingress" in condition["message"]
    assert engine.one("deployment") == {}


def test_api_keys_change_without_a_new_template_of_the_pods(engine: Engine) -> None:
    engine.kubectl("create", "secret", "generic", "keys", "--from-literal=team-a=one")
    tenants = [{"name": "team-a", "class": "größe"}]
    engine.apply(scheduling={"classes": [{"name": "größe"}]}, auth={"secretRef": {"name": "keys"}, "tenants": tenants})
    before = engine.child("deployment")
    assert [one["secret"]["secretName"] for one in before["spec"]["template"]["spec"]["volumes"] if "secret" in one] == ["keys"]
    engine.kubectl("patch", "secret", "keys", "-p", json.dumps({"stringData": {"team-a": "two", "team-b": "three"}}))
    engine.patch({"replicas": 2})
    after = eventually("the replicas are applied", lambda: found if (found := engine.one("deployment"))["spec"]["replicas"] == 2 else None)
    assert after["spec"]["template"] == before["spec"]["template"]


def test_deleting_the_engine_leaves_nothing(engine: Engine) -> None:
    engine.apply(replicas=2)
    engine.wait_for_pods(2)
    engine.child("poddisruptionbudget")
    engine.kubectl("delete", "alise", "tiny", "--wait=true", "--timeout=30s")
    kinds = ",".join([*CHILDREN, "replicaset", "pod", "poddisruptionbudget"])
    assert eventually("nothing is left", lambda: not engine.kubectl("get", kinds, "-l", "alise.dev/engine=tiny", "-o", "name").strip())


def test_a_deleted_and_an_edited_child_are_put_right(engine: Engine) -> None:
    engine.apply()
    uid = engine.child("service")["metadata"]["uid"]
    engine.kubectl("delete", "service", "tiny")
    eventually("the Service is back", lambda: engine.one("service").get("metadata", {}).get("uid") not in (None, uid))
    engine.kubectl("patch", "deployment", "tiny", "--type=merge", "-p", json.dumps({"spec": {"replicas": 3}}))
    assert eventually("the Deployment is put right", lambda: engine.one("deployment")["spec"]["replicas"] == 1)


def test_a_foreign_service_of_the_same_name_is_not_taken_over(engine: Engine) -> None:
    engine.kubectl("create", "service", "clusterip", "tiny", "--tcp=1234")
    engine.apply()
    engine.until("Ready", "False", "NameTaken")
    service = engine.one("service")
    assert service["spec"]["ports"][0]["port"] == 1234
    assert "ownerReferences" not in service["metadata"]
    assert engine.one("deployment") == {}


def test_the_condition_says_why_pods_do_not_run(engine: Engine) -> None:
    engine.apply()
    (pod,) = engine.wait_for_pods(1)
    waiting = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/engine:1"'}
    status = {
        "name": "engine",
        "image": "nowhere/engine:1",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": waiting},
    }
    engine.set_pod_status(pod["metadata"]["name"], {"containerStatuses": [status]})
    condition = engine.until("Degraded", "True", "ImagePull")
    assert 'Back-off pulling image "nowhere/engine:1"' in condition["message"]
    assert engine.until("Ready", "False", "ImagePull")


def test_a_settled_engine_is_not_written_to_again(engine: Engine, operator: OperatorProcess) -> None:
    engine.apply()
    (pod,) = engine.wait_for_pods(1)
    engine.make_ready(pod)
    engine.until("Ready", "True", "Serving")
    # Its pod has no address, so nothing else can change from here on; the operator looks again every second.
    engine.until("Progressing", "False", "Complete")
    before = engine.get()["metadata"]["resourceVersion"], engine.child("deployment")["metadata"]["resourceVersion"]
    seen = operator.reconciles()
    eventually("three more looks", lambda: operator.reconciles() >= seen + 3)
    assert (engine.get()["metadata"]["resourceVersion"], engine.child("deployment")["metadata"]["resourceVersion"]) == before


def test_health_is_served_and_no_reconcile_met_a_bug(engine: Engine, operator: OperatorProcess) -> None:
    engine.apply()
    engine.child("deployment")
    assert operator.get("/healthz") == "ok\n"
    assert operator.reconciles("bug") == 0
    assert operator.forbidden() == [], "its own rights are not enough"

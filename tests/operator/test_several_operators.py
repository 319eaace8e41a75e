"""N3, N4, N5 on a real API server: operators that come, wait and go, one for a namespace alone, and resources that are too much."""

import json
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from alise_operator.cluster import Images
from alise_operator.kube import PAGE, HttpKube
from alise_operator.lease import LEASE_NAME
from alise_operator.poller import Poller
from alise_operator.reconcile import Key, Reconciler
from tests.cluster.control_plane import ControlPlane
from tests.cluster.gateway import gateway_api
from tests.operator.builders import report_text
from tests.operator.control_plane import MANIFESTS, Engine, eventually, install, install_into, running_operator, whole_lines
from tests.operator.inference_pool_crd import inference_pool_crd
from tests.operator.keda_crd import scaled_object_crd
from tests.operator.test_scaler import write_certificate

pytestmark = pytest.mark.controlplane

WAITS = "another operator is active; waiting for its lease"


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the API server writes what the operator asks of it."""
    return tmp_path_factory.mktemp("audit") / "audit.log"


@pytest.fixture(scope="module")
def plane(audit: Path) -> Iterator[ControlPlane]:
    """A control plane without an operator."""
    users = ["system:serviceaccount:alise-system:alise-operator"]
    rules = [{"level": "Metadata", "users": users}, {"level": "None"}]
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
    audit.with_name("policy.yaml").write_text(json.dumps(policy))
    with ControlPlane(f"--audit-policy-file={audit.with_name('policy.yaml')}", f"--audit-log-path={audit}") as cp:
        install(cp)
        yield cp


@pytest.fixture
def engine(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine that is not applied yet, in a namespace with the rights of an operator for it alone."""
    name = f"t-{abs(hash(request.node.nodeid)) % 10**10}"
    plane.access.kubectl("create", "namespace", name)
    install_into(plane, name)
    yield Engine(plane.access, name)
    plane.access.kubectl("delete", "namespace", name, "--wait=false")


def test_a_new_operator_takes_up_what_changed_while_none_was_running(plane: ControlPlane, engine: Engine, tmp_path: Path) -> None:
    with running_operator(plane, tmp_path):
        engine.apply(replicas=2)
        engine.child("poddisruptionbudget")
        engine.child("ingresses.networking.k8s.io")
    engine.apply(replicas=1, route={"type": "None"})
    with running_operator(plane, tmp_path):
        eventually("the Deployment is changed", lambda: engine.one("deployment")["spec"]["replicas"] == 1)
        assert eventually("the Ingress is pruned", lambda: not engine.one("ingresses.networking.k8s.io"))
        eventually("the budget is pruned", lambda: not engine.one("poddisruptionbudget"))


def test_of_two_operators_the_second_waits_and_takes_over_when_the_first_is_told_to_end(
    plane: ControlPlane, engine: Engine, tmp_path: Path
) -> None:
    with running_operator(plane, tmp_path) as first:
        eventually("the first acts", first.is_active)
        with running_operator(plane, tmp_path, ALISE_IMAGE_ENGINE_CPU="another/image:1") as second:
            eventually("the second waits", lambda: second.said(WAITS))
            engine.apply()
            image = engine.child("deployment")["spec"]["template"]["spec"]["containers"][0]["image"]
            assert (second.get("/healthz"), second.is_active()) == ("ok\n", False)
            first.process.send_signal(signal.SIGTERM)
            assert first.process.wait(30) == 0
            eventually("the second acts", second.is_active)
            taken_over = eventually("its image is applied", lambda: _image(engine) if _image(engine) != image else None)
    assert (taken_over, second.forbidden()) == ("another/image:1", [])


def _image(engine: Engine) -> str:
    return str(engine.one("deployment")["spec"]["template"]["spec"]["containers"][0]["image"])


def test_an_operator_that_waits_ends_when_it_is_told_to(plane: ControlPlane, engine: Engine, tmp_path: Path) -> None:
    with running_operator(plane, tmp_path, namespace=engine.namespace) as first:
        eventually("the first acts", first.is_active)
        with running_operator(plane, tmp_path, namespace=engine.namespace) as second:
            eventually("the second waits", lambda: second.said(WAITS))
            second.process.send_signal(signal.SIGTERM)
            assert second.process.wait(30) == 0
        assert first.is_active()


def test_an_operator_that_dies_is_followed_when_its_lease_runs_out(plane: ControlPlane, engine: Engine, tmp_path: Path) -> None:
    # A busy machine may keep the holder from renewing a shorter one.
    short = {"ALISE_LEASE_SECONDS": "6"}
    with running_operator(plane, tmp_path, namespace=engine.namespace, **short) as first:
        eventually("the first acts", first.is_active)
        with running_operator(plane, tmp_path, namespace=engine.namespace, **short) as second:
            eventually("the second waits", lambda: second.said(WAITS))
            first.process.kill()
            first.process.wait(30)
            assert eventually("the second acts", second.is_active)


def test_an_operator_whose_lease_is_taken_stops_acting_and_ends(plane: ControlPlane, engine: Engine, tmp_path: Path) -> None:
    with running_operator(plane, tmp_path, namespace=engine.namespace) as operator:
        eventually("it acts", operator.is_active)
        engine.kubectl("patch", "lease", LEASE_NAME, "--type=merge", "-p", json.dumps({"spec": {"holderIdentity": "another"}}))
        assert operator.process.wait(30) == 1
    assert operator.said("the operator is stopping because it lost the lease")
    engine.apply()
    assert engine.one("deployment") == {}


def test_in_one_namespace_the_operator_does_all_it_does_without_a_right_in_the_cluster(
    plane: ControlPlane, engine: Engine, tmp_path: Path
) -> None:
    elsewhere = Engine(plane.access, "default")
    with running_operator(plane, tmp_path, namespace=engine.namespace) as operator:
        elsewhere.apply()
        engine.apply(replicas=2)
        engine.child("poddisruptionbudget")
        engine.child("ingresses.networking.k8s.io")
        for pod in engine.wait_for_pods(2):
            engine.make_ready(pod)
        engine.until("Ready", "True", "Serving")
        uid = engine.child("service")["metadata"]["uid"]
        engine.kubectl("delete", "service", "tiny")
        eventually("the Service is back", lambda: engine.one("service").get("metadata", {}).get("uid") not in (None, uid))
        engine.apply(replicas=1, route={"type": "None"}, routing={"endpointPicker": {}})
        eventually("the Ingress is pruned", lambda: not engine.one("ingresses.networking.k8s.io"))
        assert Engine(plane.access, engine.namespace, "tiny-picker").child("rolebinding")["roleRef"]["kind"] == "Role"
        engine.apply(route={"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}})
        eventually("it says what the cluster lacks", lambda: engine.condition("Degraded").get("reason") == "MissingApi")
        assert (operator.forbidden(), elsewhere.one("deployment")) == ([], {})
        assert operator.reconciles("bug") == 0
    elsewhere.kubectl("delete", "alise", "tiny")


def test_more_pods_than_a_page_holds_are_all_looked_at(plane: ControlPlane, engine: Engine, tmp_path: Path) -> None:
    with running_operator(plane, tmp_path, namespace=engine.namespace) as operator:
        engine.apply(replicas=PAGE + 10)
        last = max(engine.wait_for_pods(PAGE + 10), key=lambda pod: str(pod["metadata"]["name"]))["metadata"]["name"]
        waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
        container = {"name": "engine", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": {"waiting": waiting}}
        engine.set_pod_status(last, {"containerStatuses": [container]})
        assert last in engine.until("Degraded", "True", "ImagePull")["message"]
        assert operator.get("/healthz") == "ok\n"
        engine.kubectl("delete", "alise", "tiny", "--wait=false")


def _is_gone(engine: Engine, kind: str) -> bool:
    """Or on its way: a claim stays while a pod mounts it."""
    found = engine.one(kind)
    return not found or "deletionTimestamp" in found["metadata"]


NOT_SEEN = {
    # Asked for by an admission plugin that some clusters have, for owner references that block a deletion.
    ("alise.dev", "aliseengines/finalizers", "update"),
    # No request has this verb: the API server looks it up when a RoleBinding to the role is written. It is used all the same, because the
    # operator cannot list EndpointSlices, and writes such a RoleBinding for the picker.
    ("rbac.authorization.k8s.io", "clusterroles", "bind"),
}
# As little as a resource may have.
BARE: dict[str, Any] = {"route": {"type": "None"}, "networkPolicy": {"enabled": False}}
PICKER_KINDS = ("deployment", "service", "serviceaccount", "rolebinding")
POOL, SCALED_OBJECT = "inferencepools.inference.networking.k8s.io", "scaledobjects.keda.sh"


def test_every_right_that_the_operator_has_is_used(plane: ControlPlane, engine: Engine, audit: Path, tmp_path: Path) -> None:
    if plane.belongs_to_user:
        # What a cluster of yours is asked is not ours to read; that the rights are enough is seen in the other tests.
        return
    gateway_api.ensure(plane.access, belongs_to_user=False)
    write_certificate(tmp_path)
    keda = {"ALISE_SCALER_TLS_DIR": str(tmp_path), "ALISE_SCALER_PORT": "0", "ALISE_SCALER_ADDRESS": "scaler.example:9501"}
    # Another resource for the second half, because the rollout of the first never ends: no node runs its pods.
    second = Engine(engine.access, engine.namespace, "second")
    with running_operator(plane, tmp_path, **keda) as operator:
        _everything_and_then_as_little_as_it_may_have(engine)
        _more_pods_and_then_fewer(second)
    assert operator.forbidden() == []
    # A new operator knows new kinds at once; one that runs finds them within a minute.
    _install_kinds_of_other_projects(plane)
    with running_operator(plane, tmp_path, **keda) as operator:
        _objects_of_other_projects(second)
        _children_that_belong_to_nothing(Engine(engine.access, engine.namespace, "third"))
    assert operator.forbidden() == []
    documents = yaml.safe_load_all((MANIFESTS / "operator" / "rbac.yaml").read_text())
    (role,) = (one for one in documents if (one["kind"], one["metadata"]["name"]) == ("ClusterRole", "alise-operator"))
    assert granted(role) >= NOT_SEEN
    assert "endpointslices" not in {resource for _, resource, _ in granted(role)}
    # A watch without an event is written down when it ends.
    try:
        eventually("every right is used", lambda: granted(role) <= asked(audit) | NOT_SEEN)
    except AssertionError as error:
        raise AssertionError(f"{error}; not used: {sorted(granted(role) - asked(audit) - NOT_SEEN)}") from None


def _everything_and_then_as_little_as_it_may_have(engine: Engine) -> None:
    shared = {"size": "1Gi", "accessMode": "ReadWriteMany"}
    model = {"uri": "org/model", "cache": shared, "adapters": [{"name": "support", "uri": "org/adapter"}]}
    engine.apply(replicas=2, model=model, route={"type": "Ingress", "hosts": ["a.b"], "className": "c"})
    listed = Engine(engine.access, engine.namespace, f"{engine.name}-adapters")
    listed.child("configmap")
    for kind in ("persistentvolumeclaim", "poddisruptionbudget", "networkpolicy", "ingresses.networking.k8s.io"):
        engine.child(kind)
    pod = engine.wait_for_pods(2)[0]["metadata"]["name"]
    engine.set_pod_status(pod, {"conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})
    meta = {"name": "g", "namespace": engine.namespace}
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    gateway = {"gatewayClassName": "c", "listeners": [listener]}
    engine.access.apply({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": meta, "spec": gateway})
    engine.apply(**BARE | {"route": {"type": "HTTPRoute", "hosts": ["a.b"], "parentRef": {"name": "g"}}})
    engine.child("httproutes.gateway.networking.k8s.io")
    engine.apply(**BARE)
    for kind in ("persistentvolumeclaim", "poddisruptionbudget", "networkpolicy", "httproutes.gateway.networking.k8s.io"):
        eventually(f"the {kind} is pruned", partial(_is_gone, engine, kind))
    eventually("the list of adapters is pruned", partial(_is_gone, listed, "configmap"))


def _more_pods_and_then_fewer(engine: Engine) -> None:
    """By the operator itself, because KEDA is not there yet; it marks the pod that should leave."""
    engine.apply(**BARE, autoscaling={"minReplicas": 2, "maxReplicas": 2})
    for pod in engine.wait_for_pods(2):
        engine.make_ready(pod)
    engine.until("Ready", "True", "Serving")
    engine.apply(**BARE, autoscaling={"minReplicas": 1, "maxReplicas": 1})
    engine.wait_for_pods(1)


def _install_kinds_of_other_projects(plane: ControlPlane) -> None:
    for crd in (inference_pool_crd(), scaled_object_crd()):
        plane.access.apply(crd)
        plane.access.kubectl("wait", "--for=condition=Established", f"crd/{crd['metadata']['name']}", "--timeout=30s")
    plane.access.learn_kinds()


def _objects_of_other_projects(engine: Engine) -> None:
    """An endpoint picker with its InferencePool, and a ScaledObject for KEDA, are created and pruned."""
    picker = Engine(engine.access, engine.namespace, f"{engine.name}-picker")
    made = [*((picker, kind) for kind in PICKER_KINDS), (engine, POOL), (engine, SCALED_OBJECT)]
    engine.apply(**BARE, autoscaling={"minReplicas": 1, "maxReplicas": 2}, routing={"endpointPicker": {}})
    for owner, kind in made:
        owner.child(kind)
    engine.patch({"autoscaling": None, "routing": None})
    for owner, kind in made:
        eventually(f"the {kind} {owner.name} is pruned", partial(_is_gone, owner, kind))


def _children_that_belong_to_nothing(engine: Engine) -> None:
    """Objects with the names of the children are looked at, and not taken over."""
    model = {
        "uri": "org/model",
        "cache": {"size": "1Gi", "accessMode": "ReadWriteMany"},
        "adapters": [{"name": "support", "uri": "org/adapter"}],
    }
    route = {"type": "Ingress", "hosts": ["c.d"], "className": "c"}
    everything: dict[str, Any] = {
        "model": model, "route": route, "autoscaling": {"minReplicas": 2, "maxReplicas": 3}, "routing": {"endpointPicker": {}}
    }  # fmt: skip
    engine.apply(replicas=2, **everything)
    engine.until("Ready", "False", "Starting")
    engine.kubectl("delete", f"alise/{engine.name}", "--cascade=orphan")
    engine.apply(replicas=2, **everything)
    engine.until("Ready", "False", "NameTaken")


def granted(role: dict[str, Any]) -> set[tuple[str, str, str]]:
    """(group, resource, verb)."""
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def asked(audit: Path) -> set[tuple[str, str, str]]:
    """What the API server was asked, and answered. Applying what is not there yet is a patch that needs the right to create."""
    found = set()
    for line in whole_lines(audit):
        event = json.loads(line)
        of, code = event.get("objectRef") or {}, event.get("responseStatus", {}).get("code")
        resource = "/".join(part for part in (of.get("resource", ""), of.get("subresource", "")) if part)
        if resource and code != 403:
            verbs = {event["verb"]} | ({"create"} if event["verb"] == "patch" and code == 201 else set())
            found |= {(of.get("apiGroup", ""), resource, verb) for verb in verbs}
    return found


class SaidPoller(Poller):
    """Polls by the test's clock; what pods answer is what the test says."""

    def __init__(self) -> None:
        self.seconds = 0.0
        super().__init__(monotonic=lambda: self.seconds)
        self.kv_full_seconds = 0.0

    async def _fetch(self, address: str) -> tuple[int, str, bytes]:
        kv = {"limit_tokens": 30_720, "used_tokens": 30_000, "bits": 16}
        counted = {"kv_full_us": int(self.kv_full_seconds * 1e6), "computed_tokens": int(self.seconds * 1000)}
        sidecar = {"connected": True, "plan_fresh": True}
        text = report_text(boot_id="boot", sidecar=sidecar, kv=kv, counters=counted, requests_running=30)
        return 200, "", text.encode()


async def test_kv_memory_that_is_short_is_a_condition_with_figures_until_there_is_room(plane: ControlPlane, engine: Engine) -> None:
    engine.apply(networkPolicy={"enabled": False}, route={"type": "None"})
    credentials = plane.kubeconfig_for(engine.namespace, "alise-operator")
    async with HttpKube(credentials) as kube, SaidPoller() as poller:
        reconciler = Reconciler(kube, poller, Images(), namespace=engine.namespace)

        async def after(minutes: int, share: float) -> dict[str, Any]:
            """The condition when KV memory was at its limit for this share of some minutes."""
            for _ in range(minutes):
                poller.seconds += 60.0
                poller.kv_full_seconds += share * 60.0
                await reconciler.reconcile(Key(engine.namespace, engine.name))
            return engine.condition("KVCacheShort")

        assert (await after(1, 0.0))["reason"] == "NoReports"
        (pod,) = engine.wait_for_pods(1)
        engine.make_ready(pod)
        engine.set_pod_status(pod["metadata"]["name"], {"podIP": "198.51.100.7", "podIPs": [{"ip": "198.51.100.7"}]})
        assert (await after(1, 0.0))["reason"] == "Measuring"
        assert (await after(5, 0.0))["reason"] == "EnoughRoom"
        short = await after(4, 0.6)
        assert (short["status"], short["reason"]) == ("True", "KVCacheFull")
        said = " ".join(engine.kubectl("describe", "alise", engine.name).split())
        assert "the KV cache of a pod holds 30,720 tokens, and with 8-bit values 61,440" in said
        assert "set spec.engine.kvCacheDtype: fp8" in said
        assert (await after(6, 0.0))["reason"] == "EnoughRoom"
    reasons = {one["reason"] for one in engine.events()}
    assert {"KVCacheFull", "EnoughRoom"} <= reasons
    assert not {"NoReports", "Measuring"} & reasons
